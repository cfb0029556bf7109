"""First tokenisation of a chat data set: danlu against datasets.map, in turn, and the ratio.

    python benchmarks/tokenise.py [--tokenizer FOLDER] [--data FILE ...]

Both read the same files and produce ids and a loss mask for every row; nothing is cached between rounds. The peer does
what its users do: `datasets.map(num_proc=...)`, `apply_chat_template` for the row and for its prompt, mask by length.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from datasets import disable_progress_bars, load_dataset

from danlu.data.config import DataConfig
from danlu.data.pipeline import load_data
from danlu.data.workers import num_cores
from danlu.models.builtin.catalogue import builtin_folder
from danlu.samples import Conversation
from danlu.tokens.tokenizer import load_tokenizer

ALPACA = Path(__file__).parents[2] / "shared/data"
FILES = ("alpaca_en_9k.jsonl.zst", "alpaca_en_extra_10k.jsonl.zst")


def ours(files: list[str], tokenizer, workers: int, cache: Path) -> tuple[int, int]:
    """Rows and trained tokens by danlu."""
    config = DataConfig(sources=[{"path": file} for file in files], cache=cache, workers=workers)
    report = load_data(config, tokenizer, (Conversation,), seed=0).report
    sources = report.sources.values()
    return sum(one.rows_in for one in sources), sum(one.trained_tokens for one in sources)


def peers(files: list[str], tokenizer, workers: int, cache: Path) -> tuple[int, int]:
    """Rows and trained tokens by datasets.map."""

    def encode(row: dict) -> dict:
        asked = "\n".join(filter(None, [row["instruction"], row["input"]]))
        chat = [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]
        ids = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)
        prompt = tokenizer.apply_chat_template(chat[:1], tokenize=True, return_dict=False, add_generation_prompt=True)
        return {"input_ids": ids, "labels": [-100] * len(prompt) + ids[len(prompt) :]}

    rows = load_dataset("json", data_files=files, split="train", cache_dir=str(cache))
    done = rows.map(encode, num_proc=workers, remove_columns=rows.column_names)
    return len(done), sum(sum(label != -100 for label in labels) for labels in done[:100]["labels"])


def timed(run, *given) -> tuple[float, int]:
    """Rows a second and rows."""
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        rows, _ = run(*given, Path(cache))
        return rows / (time.perf_counter() - start), rows


def main() -> None:
    """Alternate both and print each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", help="a model's folder; SmolLM2 if not given")
    parser.add_argument("--data", nargs="+", default=[str(ALPACA / name) for name in FILES])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=num_cores())
    given = parser.parse_args()
    disable_progress_bars()
    tokenizer = load_tokenizer(given.tokenizer or builtin_folder("smollm2-135m"))
    speeds: dict[str, list[float]] = {"danlu": [], "datasets.map": []}
    for _ in range(given.rounds):
        for name, run in (("danlu", ours), ("datasets.map", peers)):
            speed, rows = timed(run, given.data, tokenizer, given.workers)
            speeds[name].append(speed)
            print(f"{name:>14}: {rows:,} rows, {speed:,.0f} rows/s", flush=True)
    ratios = [mine / theirs for mine, theirs in zip(*speeds.values(), strict=True)]
    print(f"ratio: {statistics.median(ratios):.2f} (each round: {', '.join(f'{one:.2f}' for one in ratios)})")


if __name__ == "__main__":
    main()

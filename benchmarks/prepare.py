"""Preparing data: speed against the peer, memory over many rows, how full the packs are.

    python benchmarks/prepare.py speed [--times 3] [--rounds 3]    files to packed tokens: danlu and the peer, in turn
    python benchmarks/prepare.py memory --rows 10_000_000          peak memory of all processes, and how fast it opens
    python benchmarks/prepare.py fill [--pack-tokens 4096]         how full packs are

The peer does what LLaMA-Factory does: `datasets.map(num_proc=...)` into its columns, then a batched map of 1000 rows
that writes the template turn by turn, encodes each turn by itself, masks the prompt, and packs those rows by a
knapsack. Nothing is cached between rounds.
"""

import argparse
import json
import resource
import statistics
import tempfile
import threading
import time
from bisect import bisect
from collections import defaultdict
from pathlib import Path

import psutil
from datasets import disable_progress_bars, load_dataset

from danlu.data.config import DataConfig
from danlu.data.pipeline import Data, load_data
from danlu.data.workers import num_cores
from danlu.models.builtin.catalogue import builtin_folder
from danlu.samples import Conversation
from danlu.tokens.tokenizer import load_tokenizer

SHARED = Path(__file__).parents[2] / "shared/data"
ALPACA = ("alpaca_en_9k.jsonl.zst", "alpaca_en_extra_10k.jsonl.zst")
MIXED = (*ALPACA, "dolly_3k.jsonl.zst", "sharegpt_zh.jsonl.zst")
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def ours(files: list[str], tokenizer, given, cache: Path) -> tuple[int, int]:
    """Rows and packs by danlu: every pack is made."""
    config = DataConfig(
        sources={"alpaca": {"path": files}},
        cache=cache,
        workers=given.workers,
        max_length=given.pack_tokens,
        pack_tokens=given.pack_tokens,
        batch={"tokens": 16 * given.pack_tokens},
    )
    data = load_data(config, tokenizer, (Conversation,), seed=0)
    return len(data.train), sum(len(step.packs) for step in data.loader(epochs=1))


def peers(files: list[str], tokenizer, given, cache: Path) -> tuple[int, int]:
    """Rows and packs by LLaMA-Factory's way."""
    cutoff = given.pack_tokens

    def align(row: dict) -> dict:
        asked = "\n".join(part for part in (row["instruction"], row["input"]) if part)
        prompt, response = [{"role": "user", "content": asked}], [{"role": "assistant", "content": row["output"]}]
        return {"_prompt": prompt, "_response": response, "_system": "", "_tools": ""}

    def encode(prompt: list[dict], response: list[dict]) -> tuple[list[int], list[int]]:
        asked = [f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"] + [
            f"<|im_start|>user\n{message['content']}<|im_end|>\n<|im_start|>assistant\n" for message in prompt
        ]
        source = [id for text in asked for id in tokenizer.encode(text, add_special_tokens=False)]
        answer = f"{response[0]['content']}<|im_end|>\n"
        target = tokenizer.encode(answer, add_special_tokens=False)[: max(1, cutoff - len(source))]
        return source + target, [-100] * len(source) + target

    def knapsacks(lengths: list[int]) -> list[list[int]]:
        left, made = sorted(lengths), []
        while left:
            room, one = cutoff, []
            while at := bisect(left, room):
                room -= left[at - 1]
                one.append(left.pop(at - 1))
            made.append(one)
        return made

    def preprocess(rows: dict) -> dict:
        encoded, by_length = [], defaultdict(list)
        for prompt, response in zip(rows["_prompt"], rows["_response"], strict=True):
            ids, labels = encode(prompt, response)
            if len(ids) <= cutoff:
                by_length[len(ids)].append(len(encoded))
                encoded.append((ids, labels))
        made = defaultdict(list)
        for knapsack in knapsacks([len(ids) for ids, _ in encoded]):
            ids, labels, positions, mask = [], [], [], []
            for n, length in enumerate(knapsack, 1):
                one = encoded[by_length[length].pop()]
                ids += one[0]
                labels += one[1]
                positions += list(range(length))
                mask += [n] * length
            pad = cutoff - len(ids) + 1
            made["input_ids"].append(ids + [tokenizer.pad_token_id] * pad)
            made["attention_mask"].append(mask + [0] * pad)
            made["position_ids"].append(positions + [0] * pad)
            made["labels"].append(labels + [-100] * pad)
        return made

    rows = load_dataset("json", data_files=files, split="train", cache_dir=str(cache))
    rows = rows.map(align, num_proc=given.workers, remove_columns=rows.column_names)
    packs = rows.map(
        preprocess, batched=True, batch_size=1000, num_proc=given.workers, remove_columns=rows.column_names
    )
    return len(rows), len(packs)


def speed(given, tokenizer) -> None:
    """Alternate both and print each round: by the clock, and by the processors' time, which neighbours disturb less."""
    files = [str(SHARED / name) for name in ALPACA] * given.times
    took: dict[str, list[tuple[float, float]]] = {"danlu": [], "peer": []}
    for _ in range(given.rounds):
        for name, run in (("danlu", ours), ("peer", peers)):
            with tempfile.TemporaryDirectory() as cache:
                start, used = time.perf_counter(), cpu_seconds()
                rows, packs = run(distinct(files, Path(cache)), tokenizer, given, Path(cache))
                seconds, used = time.perf_counter() - start, cpu_seconds() - used
            took[name].append((seconds / rows, used / rows))
            told = f"{rows:,} rows, {packs:,} packs, {rows / seconds:,.0f} rows/s"
            print(f"{name:>6}: {told}, {used / rows * 1e6:,.0f} µs of a core a row", flush=True)
    for what, at in (("by the clock", 0), ("by the cores' time", 1)):
        ratios = [theirs[at] / mine[at] for mine, theirs in zip(*took.values(), strict=True)]
        print(f"ratio {what}: {statistics.median(ratios):.2f} ({', '.join(f'{one:.2f}' for one in ratios)})")


def cpu_seconds() -> float:
    """What this process and its ended children have used."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def distinct(files: list[str], folder: Path) -> list[str]:
    """A file named several times is several files, so that nobody tokenises it once for all; each ends differently."""
    made = []
    for n, file in enumerate(files):
        to = folder / f"{n}-{Path(file).name}"
        to.write_bytes(Path(file).read_bytes() + skippable(n))
        made.append(str(to))
    return made


def skippable(number: int) -> bytes:
    """A zstd frame that holds no data, so that files differ."""
    return bytes.fromhex("502a4d18") + (4).to_bytes(4, "little") + number.to_bytes(4, "little")


def memory(given, tokenizer) -> None:
    """Prepare many short rows and print the peak memory of this process and its workers."""
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "rows.jsonl"
        with open(path, "w", encoding="utf-8") as file:
            for n in range(given.rows):
                file.write(json.dumps({"instruction": f"Count to {n}.", "output": f"{n} is where I end."}) + "\n")
        config = DataConfig(sources=str(path), cache=Path(folder) / "cache", workers=given.workers)
        with Peak() as peak:
            start = time.perf_counter()
            load_data(config, tokenizer, (Conversation,), seed=0)
            seconds = time.perf_counter() - start
        print(f"{given.rows:,} rows prepared in {seconds:,.0f} s ({given.rows / seconds:,.0f} rows/s)")
        print(f"peak memory of all processes: {peak.bytes / 2**30:.2f} GiB (before: {peak.before / 2**30:.2f})")
        for trust in (True, False):
            start = time.perf_counter()
            data = load_data(config.model_copy(update={"trust_times": trust}), tokenizer, (Conversation,), seed=0)
            opened = time.perf_counter() - start
            print(f"opened in {opened:.2f} s{'' if trust else ', every file read to be sure'}")
        print(f"its order and first step in {first_step(data):.2f} s")


def first_step(data: Data) -> float:
    """Seconds until the first step of a loader."""
    start = time.perf_counter()
    next(iter(data.loader()))
    return time.perf_counter() - start


class Peak:
    """The most memory that this process and its children hold together, watched ten times a second."""

    def __enter__(self) -> "Peak":
        self.me, self.ended = psutil.Process(), threading.Event()
        self.before = self.bytes = self.now()
        self.watcher = threading.Thread(target=self.watch)
        self.watcher.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        self.watcher.join()

    def watch(self) -> None:
        """Until it ends."""
        while not self.ended.wait(0.1):
            self.bytes = max(self.bytes, self.now())

    def now(self) -> int:
        """Bytes now; pages that processes share are counted once (PSS), mapped files with them."""
        total = 0
        for process in [self.me, *self.me.children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                continue
        return total


def fill(given, tokenizer) -> None:
    """How full the packs of a mixed data set are."""
    files = [str(SHARED / name) for name in MIXED]
    with tempfile.TemporaryDirectory() as cache:
        tokens = {"batch": {"tokens": 16 * given.pack_tokens}, "pack_tokens": given.pack_tokens}
        config = DataConfig(sources=files, cache=Path(cache), max_length=given.pack_tokens, **tokens)
        data = load_data(config, tokenizer, (Conversation,), seed=0)
        rows, tokens_in = len(data.train), int(data.train.lengths.sum())
        print(f"{rows:,} rows, {tokens_in:,} tokens: packs of {given.pack_tokens} are {data.loader().fill:.2%} full")


def main() -> None:
    """What the first word asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "memory", "fill"))
    parser.add_argument("--tokenizer", help="a model's folder; SmolLM2 if not given")
    parser.add_argument("--times", type=int, default=3, help="how often the Alpaca files are taken")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--pack-tokens", type=int, default=4096)
    parser.add_argument("--workers", type=int, default=num_cores())
    parser.add_argument("--folder", help="where the many rows are written")
    given = parser.parse_args()
    disable_progress_bars()
    tokenizer = load_tokenizer(given.tokenizer or builtin_folder("smollm2-135m"))
    {"speed": speed, "memory": memory, "fill": fill}[given.what](given, tokenizer)


if __name__ == "__main__":
    main()

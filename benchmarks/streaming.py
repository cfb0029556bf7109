"""Streaming: speed against the tokenizer's own, memory over many rows, and how soon a late place is found again.

    python benchmarks/streaming.py [--rows 10000000] [--only speed|memory|resume]

speed: tokens/s from 1,000 packed shards of web text with two workers, once the first windows are there, and of the bare
tokenizer (`encode_batch` of the same texts, already in memory, in two processes), in turn; the ratio, by the clock and
by processor time, which other programs on the machine change less. memory: of this process and its workers while short
rows are streamed. resume: seconds from a cursor behind row 9,000,000 to the next step.
"""

import argparse
import itertools
import json
import multiprocessing
import random
import statistics
import tempfile
import threading
import time
from pathlib import Path

import psutil
import zstandard

from danlu.data.config import DataConfig
from danlu.data.files.read import read_rows
from danlu.data.pipeline import open_data
from danlu.data.stream.data import StreamedData
from danlu.models.builtin.catalogue import builtin_folder
from danlu.samples import Document
from danlu.tokens.tokenizer import load_tokenizer

TEXTS = Path(__file__).parents[2] / "shared/data/c4_demo.jsonl.zst"
SHARDS = 1000
WORKERS = 2


def write_shards(folder: Path, shards: int, rows: int, text) -> Path:
    """Packed files; `text(number)` is one row's."""
    folder.mkdir()
    for shard in range(shards):
        numbers = range(shard * rows, (shard + 1) * rows)
        lines = "".join(json.dumps({"text": text(number)}, ensure_ascii=False) + "\n" for number in numbers)
        (folder / f"part-{shard + 1}.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    return folder


def stream_of(folder: Path, tokenizer, workers: int = WORKERS, **more) -> StreamedData:
    """Danlu's stream of a folder."""
    settings = {"streaming": True, "batch": {"tokens": 32768}, "workers": workers, "max_length": 1 << 20}
    config = DataConfig(**{"sources": {"text": str(folder)}, "cache": folder.parent / "cache", **settings, **more})
    data = open_data(config, tokenizer, (Document,), seed=0)
    assert isinstance(data, StreamedData)
    return data


def busy() -> float:
    """Processor seconds of this process and its workers."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in family)


def ours(folder: Path, tokenizer, tokens: int) -> tuple[float, float]:
    """Tokens a second, and of a processor's second, between two moments when a lane begins a new group of packs."""
    seen, began, group = 0, (0, 0.0, 0.0), 0
    steps = iter(stream_of(folder, tokenizer, streaming={"window": 2000}).loader())
    for step in steps:
        seen += sum(pack.num_tokens for pack in step.packs)
        if step.cursor["lanes"][0]["group"] > group:
            group, now = group + 1, (seen, time.perf_counter(), busy())
            began = now if group == 1 else began
            if seen > 0.7 * tokens:
                break
    count, seconds, processor = (after - before for after, before in zip(now, began, strict=True))
    steps.close()  # type: ignore[attr-defined]
    return count / seconds, count / processor


def encode(backend, texts: list[str], results) -> None:
    """One process of the bare tokenizer."""
    count = 0
    for at in range(0, len(texts), 128):
        count += sum(len(one.ids) for one in backend.encode_batch(texts[at : at + 128], add_special_tokens=False))
    results.put((count, time.process_time()))


def bare(texts: list[str], tokenizer) -> tuple[float, float, int]:
    """The tokenizer's own tokens a second in two processes, and of a processor's second, and all tokens."""
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    parts = [texts[n::WORKERS] for n in range(WORKERS)]
    start = time.perf_counter()
    processes = [fork.Process(target=encode, args=(tokenizer.backend_tokenizer, part, results)) for part in parts]
    for process in processes:
        process.start()
    counts, processor = zip(*(results.get() for _ in processes), strict=True)
    seconds = time.perf_counter() - start
    for process in processes:
        process.join()
    return sum(counts) / seconds, sum(counts) / sum(processor), sum(counts)


def speed(tokenizer, rounds: int, rows: int) -> None:
    """Both in turn, and the ratio."""
    texts = [row["text"] for _, row in read_rows(TEXTS)]
    chosen = random.Random(0).choices(texts, k=SHARDS * rows)
    with tempfile.TemporaryDirectory() as place:
        folder = write_shards(Path(place) / "text", SHARDS, rows, lambda number: chosen[number])
        ratios = []
        for _ in range(rounds):
            *theirs, tokens = bare(chosen, tokenizer)
            mine = ours(folder, tokenizer, tokens)
            ratios.append([one / other for one, other in zip(mine, theirs, strict=True)])
            print(
                f"bare tokenizer {theirs[0]:,.0f} tokens/s, stream {mine[0]:,.0f} tokens/s: {ratios[-1][0]:.3f} "
                f"({ratios[-1][1]:.3f} by processor time)",
                flush=True,
            )
    clock, processor = (statistics.median(some) for some in zip(*ratios, strict=True))
    print(f"speed ratio: {clock:.3f}, {processor:.3f} by processor time; {tokens:,} tokens in {SHARDS:,} shards")


class Watch:
    """The most that this process and its workers have taken, looked at four times a second; shared pages count once.

    Pages of files, such as torch's libraries, are left out: who else on the machine maps them changes their share.
    """

    def __init__(self) -> None:
        self.most, self.ended = 0, threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self) -> None:
        """Until it ends."""
        me = psutil.Process()
        while not self.ended.wait(0.25):
            try:
                family = [me, *me.children(recursive=True)]
                self.most = max(self.most, sum(taken(process.pid) for process in family))
            except (psutil.Error, OSError):
                continue

    def since(self) -> float:
        """MiB since this was last asked."""
        most, self.most = self.most, 0
        return most / 2**20


def taken(process: int) -> int:
    """Bytes of memory that belong to no file, a page of n processes by an nth."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))


def memory(folder: Path, tokenizer, rows: int) -> None:
    """The most that was held in each twentieth of the way; it comes and goes with the windows that are shuffled."""
    seen, looks, watch = 0, [], Watch()
    steps = iter(stream_of(folder, tokenizer).loader())
    for step in steps:
        seen += sum(len(pack.segments) for pack in step.packs)
        if seen * 20 >= rows * (len(looks) + 1):
            looks.append(watch.since())
            print(f"{seen:>12,} rows  {looks[-1]:,.0f} MiB", flush=True)
        if seen >= rows:
            break
    watch.ended.set()
    steps.close()  # type: ignore[attr-defined]
    settled = looks[2:]
    middle = (max(settled) + min(settled)) / 2
    print(f"memory over {rows:,} rows: {middle:,.0f} MiB ±{(max(settled) - min(settled)) / 2 / middle:.1%}")


def resume(folder: Path, tokenizer, rows: int) -> None:
    """From a cursor behind row 9 M (or 9/10 of fewer rows), at the place in each lane that stands for it."""
    data = stream_of(folder, tokenizer)
    cursor = next(iter(data.loader())).cursor
    lanes = len(cursor["lanes"])
    row = rows * 9 // 10
    done, within = divmod(row // lanes, 10_000)
    for lane in cursor["lanes"]:
        lane["tracks"] = [[0, done, within, row // lanes // 1250, 1]]
    start, before = time.perf_counter(), busy()
    again = stream_of(folder, tokenizer).loader()
    again.restore(json.loads(json.dumps(cursor)))
    steps = iter(again)
    next(steps)
    seconds, processor = time.perf_counter() - start, busy() - before
    print(f"resume behind row {row:,}: {seconds:.2f} s to the next step ({processor:.2f} s of a processor)")
    steps.close()  # type: ignore[attr-defined]


def main() -> None:
    """All three, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="short rows streamed for the memory figure")
    parser.add_argument("--on-disk", type=int, default=10_000_000, help="short rows that are there to be resumed in")
    parser.add_argument("--shard-rows", type=int, default=40, help="texts in each shard for the speed figure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["speed", "memory", "resume"])
    given = parser.parse_args()
    tokenizer = load_tokenizer(builtin_folder("smollm2-135m"))
    if given.only in (None, "speed"):
        speed(tokenizer, given.rounds, given.shard_rows)
    if given.only == "speed":
        return
    with tempfile.TemporaryDirectory() as place:
        words = itertools.cycle(["one", "two two", "three of them", "a few more words"])
        folder = write_shards(Path(place) / "rows", given.on_disk // 10_000, 10_000, lambda n: f"row {n} {next(words)}")
        if given.only in (None, "resume"):
            resume(folder, tokenizer, given.on_disk)
        if given.only in (None, "memory"):
            memory(folder, tokenizer, given.rows)


if __name__ == "__main__":
    main()

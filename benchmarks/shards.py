"""Read many zst shards: danlu, plain zstandard + json, and datasets' streaming, in turn, and the ratios.

    python benchmarks/shards.py [--rows 200000] [--shards 1000] [--data FILE]

The rows of FILE are repeated until there are enough, packed by `danlu data compress`, and read from the first to the
last. "plain" is the least that anyone could do: `zstandard`'s stream of lines and `json.loads`, without a check of the
bytes, line numbers or a word about what is wrong. "skip" is danlu from the row at nine tenths on.
"""

import argparse
import io
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import zstandard
from datasets import load_dataset

from danlu.data.files.find import find_files
from danlu.data.files.read import read_files, read_rows
from danlu.data.shards import write_shards

ALPACA = Path(__file__).parents[2] / "shared/data/alpaca_en_9k.jsonl.zst"


def plain(files: list[Path]) -> Iterator[Any]:
    """Nothing but unpacking and parsing."""
    for file in files:
        with open(file, "rb") as packed:
            for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(packed), encoding="utf-8"):
                yield json.loads(line)


def streamed(files: list[Path]) -> Iterator[Any]:
    """The peer."""
    return iter(load_dataset("json", data_files=[str(file) for file in files], split="train", streaming=True))


def seconds_of(rows: Callable[[], Iterator[Any]]) -> tuple[float, int]:
    """How long all rows take, and how many they are."""
    start = time.perf_counter()
    count = sum(1 for _ in rows())
    return time.perf_counter() - start, count


def write(source: Path, folder: Path, rows: int, shards: int) -> list[Path]:
    """Enough rows, packed."""
    some = [json.dumps(row, ensure_ascii=False) for _, row in read_rows(source)]
    whole = folder / "rows.jsonl"
    with open(whole, "w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in islice(cycle(some), rows))
    start = time.perf_counter()
    made = write_shards([whole], folder / "shards", -(-rows // shards))
    seconds = time.perf_counter() - start
    size = whole.stat().st_size
    print(
        f"written: {made.rows:,} rows to {len(made.shards):,} shards, {rows / seconds:,.0f} rows/s, "
        f"{size / seconds / 1e6:.0f} MB/s"
    )
    whole.unlink()
    return [file for file in find_files(str(folder / "shards")) if isinstance(file, Path)]


def main() -> None:
    """Alternate the readers and print each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=ALPACA)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = write(given.data, Path(folder), given.rows, given.shards)
        readers: dict[str, Callable[[], Iterator[Any]]] = {
            "danlu": lambda: read_files(files),
            "plain": lambda: plain(files),
            "datasets": lambda: streamed(files),
        }
        speeds: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(given.rounds):
            for name, reader in readers.items():
                seconds, count = seconds_of(reader)
                assert count == given.rows, (name, count)
                speeds[name].append(count / seconds)
                print(f"{name:>9}: {count / seconds:,.0f} rows/s", flush=True)
        for name in ("plain", "datasets"):
            ratios = [mine / theirs for mine, theirs in zip(speeds["danlu"], speeds[name], strict=True)]
            print(f"danlu / {name}: {statistics.median(ratios):.2f} ({', '.join(f'{one:.2f}' for one in ratios)})")
        start = time.perf_counter()
        next(iter(read_files(files, given.rows * 9 // 10)))
        print(f"skip: row {given.rows * 9 // 10:,} after {time.perf_counter() - start:.3f} s")
        print(f"most memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")


if __name__ == "__main__":
    main()

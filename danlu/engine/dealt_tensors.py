"""Named tensors in the files of a checkpoint: whole in one file, or by rows in one file of each process.

`NAME.safetensors` holds what is whole, `NAME.rank-R.safetensors` the rows of process R, and `NAME.rows.json` between
which rows each process's lie. Any number of processes reads what any other number has written.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

Rows = tuple[int, int]
"""the first, and the one after the last"""
Wanted = Callable[[str, tuple[int, ...]], Rows | None]
"""which rows of a tensor, by its name and whole shape, are asked for; None is all"""


def write_tensors(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> None:
    """What is whole."""
    save_file(plain(tensors), folder / f"{name}.safetensors")


def write_rows(folder: Path, name: str, tensors: Mapping[str, Tensor], rank: int) -> None:
    """A process's rows."""
    save_file(plain(tensors), folder / part(name, rank))


def write_bounds(folder: Path, name: str, bounds: Mapping[str, list[int]]) -> None:
    """Where each process's rows begin, and last where those of the last one end."""
    (folder / f"{name}.rows.json").write_text(json.dumps(bounds))


def read_tensors(folder: Path, name: str, wanted: Wanted | None = None) -> dict[str, Tensor]:
    """All tensors under a name, or of each the rows that are wanted; on the CPU."""
    index = folder / f"{name}.rows.json"
    bounds: dict[str, list[int]] = json.loads(index.read_bytes()) if index.is_file() else {}
    whole = folder / f"{name}.safetensors"
    if wanted is None:
        found = load_file(whole)
    else:
        with safe_open(whole, "pt") as file:
            found = {key: piece(file, key, wanted) for key in file.keys()}  # noqa: SIM118
    with ExitStack() as files:
        count = max((len(each) for each in bounds.values()), default=1) - 1
        parts = [files.enter_context(safe_open(folder / part(name, rank), "pt")) for rank in range(count)]
        for key, places in bounds.items():
            found[key] = joined(parts, key, places, wanted)
    return found


def joined(parts: Iterable[Any], key: str, bounds: list[int], wanted: Wanted | None) -> Tensor:
    """The wanted rows of a tensor from the files that have some of them."""
    slices = [file.get_slice(key) for file in parts]
    shape = (bounds[-1], *slices[0].get_shape()[1:])
    first, after = (wanted and wanted(key, shape)) or (0, bounds[-1])
    pieces = []
    for (start, end), rows in zip(pairwise(bounds), slices, strict=True):
        low, high = max(first, start), min(after, end)
        if low < high:
            pieces.append(rows[low - start : high - start])
    return torch.cat(pieces) if pieces else slices[0][:0]


def piece(file: Any, key: str, wanted: Wanted) -> Tensor:
    """The wanted rows of a tensor that is whole in a file."""
    found = file.get_slice(key)
    rows = wanted(key, tuple(found.get_shape()))
    return file.get_tensor(key) if rows is None else found[rows[0] : rows[1]]


def part(name: str, rank: int) -> str:
    """The file of a process's rows."""
    return f"{name}.rank-{rank}.safetensors"


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As safetensors takes them."""
    return {key: tensor.detach().contiguous() for key, tensor in tensors.items()}

"""One checkpoint's folder: how it is filled, verified and read. Nothing in it is pickled."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from danlu.core.errors import CheckpointError
from danlu.engine.dealt_tensors import Wanted, read_tensors, write_bounds, write_rows, write_tensors
from danlu.engine.manifest import Damaged, Manifest, Verify

Writer = Callable[[Path], None]


@dataclass(frozen=True)
class Checkpoint:
    """One verified checkpoint."""

    path: Path
    manifest: Manifest
    skipped: tuple[str, ...] = ()
    """newer ones that could not be trusted, each with its reason"""

    @property
    def step(self) -> int:
        """How many optimiser steps it stands after."""
        return self.manifest.step

    def tensors(self, name: str, wanted: Wanted | None = None) -> dict[str, Tensor]:
        """The tensors saved under a name, or of each the rows that are wanted, on the CPU."""
        return read_tensors(self.path, name, wanted)

    def state(self, name: str) -> Any:
        """The JSON saved under a name."""
        return json.loads((self.path / f"{name}.json").read_bytes())

    @classmethod
    def open(cls, path: Path, verify: Verify = "hash") -> "Checkpoint":
        """The checkpoint in a folder, or a `CheckpointError` that names the damaged file."""
        try:
            return cls(path, verified(path, verify))
        except Damaged as damage:
            raise CheckpointError(f"{path}: {damage}; use another checkpoint") from damage


def step_of(path: Path) -> int:
    """The step in a checkpoint's folder name."""
    return int(path.name.removeprefix("step-"))


def verified(path: Path, verify: Verify) -> Manifest:
    """The manifest of a checkpoint whose every file was compared with it; `Damaged` if one differs."""
    manifest = Manifest.read(path)
    manifest.check(path, verify)
    return manifest


@dataclass(frozen=True)
class Content:
    """What a checkpoint holds but for its manifest. `tensors` are whole; of `rows` each process has its own, between
    `bounds`; `state` is JSON. All by the name of their file. Nothing is pickled."""

    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    bounds: Mapping[str, Mapping[str, list[int]]] = field(default_factory=dict)
    writers: Sequence[Writer] = ()

    def write(self, folder: Path, rank: int) -> None:
        """A process's share of the files; the first one writes what is not dealt out."""
        for name, rows in self.rows.items():
            write_rows(folder, name, rows, rank)
        if rank:
            return
        for name, bounds in self.bounds.items():
            write_bounds(folder, name, bounds)
        for name, tensors in self.tensors.items():
            write_tensors(folder, name, tensors)
        for name, state in self.state.items():
            (folder / f"{name}.json").write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
        for writer in self.writers:
            writer(folder)

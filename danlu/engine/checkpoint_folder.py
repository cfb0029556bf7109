"""One checkpoint's folder: how it is filled, verified and read. Nothing in it is pickled."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from danlu.core.errors import CheckpointError
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

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors saved under a name, on the CPU."""
        return load_file(self.path / f"{name}.safetensors")

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


def write_content(
    folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], writers: Sequence[Writer]
) -> None:
    """Everything in a checkpoint but its manifest. Nothing is pickled."""
    for name, content in tensors.items():
        plain = {key: tensor.detach().contiguous() for key, tensor in content.items()}
        save_file(plain, folder / f"{name}.safetensors")
    for name, content in state.items():
        (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    for writer in writers:
        writer(folder)

"""The last file of a checkpoint: what is in it, from which run and code, sealed so that no changed byte goes unseen."""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from danlu import __version__
from danlu.core.errors import CheckpointError
from danlu.core.files import sha256_of

SCHEMA = 1
FILE = "manifest.json"

Verify = Literal["hash", "size"]


class Damaged(Exception):
    """A checkpoint's bytes are not those that were written; names the file."""


@dataclass(frozen=True)
class FileFacts:
    """A file's size and SHA-256."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds and where it comes from."""

    step: int
    files: dict[str, FileFacts]
    config: dict[str, Any]
    """what must not change between saving and resuming"""
    best: bool = False
    """whether it was the best when it was saved"""
    world_size: int = 1
    versions: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def num_bytes(self) -> int:
        """The size of everything it lists."""
        return sum(file.bytes for file in self.files.values())

    @classmethod
    def of(cls, folder: Path, **facts: Any) -> "Manifest":
        """The manifest of a folder's files as they are now."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): FileFacts(path.stat().st_size, sha256_of(path)) for path in paths}
        return cls(files=files, versions=versions(), **facts)

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of a folder; `Damaged` when not one byte of it may be believed."""
        try:
            written = (folder / FILE).read_bytes()
            facts = json.loads(written)
        except FileNotFoundError as error:
            raise Damaged(f"{FILE} is missing") from error
        except ValueError as error:
            raise Damaged(f"{FILE} is not JSON: {error}") from error
        # the text is rebuilt and compared, so that even a changed blank shows
        if not isinstance(facts, dict) or _sealed({k: v for k, v in facts.items() if k != "seal"}) != written:
            raise Damaged(f"{FILE} was changed after it was written")
        if facts["schema"] > SCHEMA:
            raise CheckpointError(
                f"{folder} was written by danlu {facts['versions']['danlu']} (checkpoint schema {facts['schema']}). "
                f"This is danlu {__version__}, which reads schemas up to {SCHEMA}; install the newer one"
            )
        del facts["seal"], facts["config_hash"]
        files = {name: FileFacts(**file) for name, file in facts.pop("files").items()}
        return cls(files=files, **facts)

    def write(self, folder: Path) -> None:
        """Write it into its folder, which nothing may enter after it."""
        facts = asdict(self)
        facts = {"schema": facts.pop("schema"), **facts, "config_hash": hash_of(self.config)}
        (folder / FILE).write_bytes(_sealed(facts))

    def check(self, folder: Path, verify: Verify = "hash") -> None:
        """Compare every file with what the manifest says; `Damaged` names the first that differs."""
        for name, facts in self.files.items():
            path = folder / name
            if not path.is_file():
                raise Damaged(f"{name} is missing")
            if path.stat().st_size != facts.bytes:
                raise Damaged(f"{name} has {path.stat().st_size:,} bytes, not {facts.bytes:,}")
            if verify == "hash" and sha256_of(path) != facts.sha256:
                raise Damaged(f"{name} was changed after it was written (its SHA-256 differs)")


@cache
def versions() -> dict[str, str]:
    """The versions of what decides a run's numbers."""
    packages = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "numpy")
    return {"danlu": __version__, "python": platform.python_version()} | {name: version(name) for name in packages}


def hash_of(config: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON tree, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def differences(old: Any, new: Any, place: str = "") -> list[str]:
    """`optimizer.lr: 0.001 -> 0.002`, one line for each leaf that two JSON trees disagree on."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        inner = (differences(old.get(key), new.get(key), f"{place}.{key}".lstrip(".")) for key in keys)
        return [line for lines in inner for line in lines]
    return [] if old == new else [f"{place}: {old!r} -> {new!r}"]


def _sealed(facts: Mapping[str, Any]) -> bytes:
    """Readable JSON whose last key is the SHA-256 of all the text before it."""
    body = json.dumps(facts, indent=2, ensure_ascii=False).removesuffix("\n}")
    seal = hashlib.sha256(body.encode()).hexdigest()
    return f'{body},\n  "seal": "{seal}"\n}}\n'.encode()

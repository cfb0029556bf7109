"""What GPUs have: memory, arithmetic and bandwidth of the usual ones, from a table beside this file."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

from danlu.core.errors import UserError
from danlu.core.parts import did_you_mean

TABLE = Path(__file__).with_name("gpus.yaml")


@dataclass(frozen=True)
class GPU:
    """One kind of GPU."""

    name: str
    memory_bytes: float
    bf16_flops: float
    """dense products a second with fp32 accumulation, as the maker promises"""
    bandwidth: float
    """bytes a second of its memory"""
    named: tuple[str, ...]
    """words that all stand in the name that torch prints"""
    capability: tuple[int, int]
    """CUDA's, which says which products it has"""
    bf16: bool = True
    """whether it multiplies bf16; else fp16 is what the arithmetic counts"""


@lru_cache
def gpus() -> dict[str, GPU]:
    """Every GPU of the table, by name."""
    found = {}
    for name, row in yaml.safe_load(TABLE.read_text(encoding="utf-8")).items():
        flops, bandwidth = float(row["bf16_flops"]), float(row["bandwidth"])
        named, capability = tuple(row["named"]), tuple(row["capability"])
        memory = row["memory_gib"] * 2**30
        found[name] = GPU(name, memory, flops, bandwidth, named, capability, row.get("bf16", True))
    return found


def gpu(name: str) -> GPU:
    """The GPU of a name such as h100 or A100-80."""
    known = gpus()
    wanted = name.lower().removeprefix("rtx").removeprefix("-")
    wanted = {"a100": "a100-80", "v100-16": "v100"}.get(wanted, wanted)
    if wanted not in known:
        raise UserError(
            f"--gpu {name}: not in the table{did_you_mean(wanted, list(known))} (known: {', '.join(known)})"
        )
    return known[wanted]


def gpu_called(device_name: str) -> GPU | None:
    """The GPU that torch calls so, such as `NVIDIA H100 80GB HBM3`."""
    words = device_name.replace("-", " ").split()
    return next((each for each in gpus().values() if all(_says(words, word) for word in each.named)), None)


def _says(words: list[str], wanted: str) -> bool:
    return any(word == wanted for word in words)

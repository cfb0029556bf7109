"""A plan: what each part of a run takes of one device's memory, and the most at any moment."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from danlu.core.gpus import GPU
from danlu.engine.planner.holdings import Holdings

WORKSPACE_BYTES = 72 << 20
"""what cuBLAS takes from torch's allocator: 32 MiB for each of the threads that go forward and back, and a little"""
CONTEXT_BYTES = 640 << 20
"""what CUDA's context and kernels take of a GPU before torch takes anything"""
SLACK = 0.03
"""share of what is allocated that torch's allocator loses between its blocks"""


@dataclass(frozen=True)
class Device:
    """Where a run would be: a GPU of the table, or this machine's processor and its free memory."""

    name: str
    kind: Literal["cpu", "cuda"]
    memory_bytes: float
    gpu: GPU | None = None

    @property
    def capability(self) -> tuple[int, int]:
        """CUDA's; of a GPU that is not in the table, that of the first with bf16."""
        return self.gpu.capability if self.gpu else (8, 0)


@dataclass(frozen=True)
class Choice:
    """What may change without changing the result."""

    pack_tokens: int
    """tokens that are run at once"""
    recomputed: int
    """how many of the first blocks are recomputed in the backward pass"""


@dataclass(frozen=True)
class Plan:
    """Predicted bytes on one device. activations: what the forward keeps. working: the most beyond it at any moment."""

    choice: Choice
    device: Device
    holdings: Holdings
    activations: float
    working: float
    num_blocks: int
    all_kept: float
    """what the forward would keep if nothing were recomputed"""
    activation_factor: float = 1.0
    """what measuring has shown activations to be, in predictions"""

    @property
    def terms(self) -> dict[str, float]:
        """Every term by name, at the moment of the peak."""
        parts = {name: value for name, value in asdict(self.holdings).items() if value or name != "gathered"}
        changing = {"activations": self.activations, "working": self.working}
        workspace = {"workspace": float(WORKSPACE_BYTES)} if self.device.kind == "cuda" else {}
        return parts | {name: value * self.activation_factor for name, value in changing.items()} | workspace

    @property
    def peak(self) -> float:
        """The most that is allocated at any moment."""
        return sum(self.terms.values())

    @property
    def needed(self) -> float:
        """The memory that a device must have for that peak."""
        return self.peak if self.device.kind == "cpu" else self.peak * (1 + SLACK) + CONTEXT_BYTES

    @property
    def fits(self) -> bool:
        """Whether the device has it."""
        return self.needed <= self.device.memory_bytes

    @property
    def largest_term(self) -> str:
        """What takes most."""
        return max(self.terms, key=lambda name: self.terms[name])

    def describe(self) -> str:
        """One line."""
        tokens, recomputed = self.choice.pack_tokens, self.choice.recomputed
        sizes = f"{self.needed / 2**30:.2f} of {self.device.memory_bytes / 2**30:.2f} GiB planned"
        return f"packs of {tokens:,} tokens, {recomputed} of {self.num_blocks} blocks recomputed: {sizes}"

    def to_json(self) -> dict[str, Any]:
        """A tree of plain values, in bytes."""
        return {
            "device": self.device.name,
            "memory": self.device.memory_bytes,
            **asdict(self.choice),
            "blocks": self.num_blocks,
            "terms": {name: round(value) for name, value in self.terms.items()},
            "peak": round(self.peak),
            "needed": round(self.needed),
            "fits": self.fits,
        }

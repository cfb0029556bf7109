"""What the loop tells the world about a run: one small record for each thing that happens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run as it starts, or as it goes on after `step` steps."""

    folder: Path
    num_steps: int
    step: int = 0
    measured_step: int | None = None
    """the last step whose held-out loss is known"""
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The run's name among others."""
        return self.folder.name


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimiser step. `loss` and `metrics` are over the whole global batch; NaN stays NaN."""

    step: int
    num_steps: int
    epoch: float
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    """tokens the model saw in this step, padding never counted"""
    trained_tokens: int
    """tokens of this step that the loss counted"""
    seconds: float
    tokens_per_second: float
    """of all processes together"""
    ranks: int = 1
    """processes that made it"""
    mfu: float | None = None
    """share of the device's peak arithmetic, where the peak is known"""
    memory_bytes: int | None = None
    """the most memory the device held"""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """what the objective measures, and the loss of each source as `loss/NAME`"""
    waited_seconds: float = 0.0
    """what came before the step: its rows were read, or its answers were written and judged"""
    waited: Mapping[str, float] = field(default_factory=dict)
    """what of that went where, and how fast it was: seconds of writing and judging, the answers' tokens a second

    `others_seconds` are of the step itself: those in which the first process waited for the others or summed with them.
    """
    samples: Sequence[Mapping[str, Any]] = ()
    """what was written for this step"""
    skipped: bool = False
    """whether the update was left out because a loss or gradient was not finite"""

    def scalars(self) -> dict[str, float]:
        """What trackers draw."""
        named = {key: getattr(self, key) for key in ("loss", "lr", "grad_norm", "epoch", "tokens_per_second", "mfu")}
        known = {
            key: float(value)
            for key, value in (named | dict(self.metrics) | dict(self.waited)).items()
            if value is not None
        }
        return {f"train/{key}": value for key, value in known.items()}


@dataclass(frozen=True, slots=True)
class EvalRecord:
    """One measurement on held-out data. `sources` is the loss of each source."""

    step: int
    loss: float
    epoch: float = 0.0
    sources: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    """what the objective measures; of several sources, also NAME/SOURCE"""
    seconds: float = 0.0
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """single numbers, such as how far each better answer is ahead of the worse one"""

    def scalars(self) -> dict[str, float]:
        """What trackers draw."""
        sources = {f"loss/{source}": loss for source, loss in self.sources.items()}
        return {f"eval/{key}": value for key, value in ({"loss": self.loss} | sources | dict(self.metrics)).items()}


@dataclass(frozen=True, slots=True)
class Summary:
    """A run that came to its end."""

    step: int
    loss: float
    tokens: int
    trained_tokens: int
    seconds: float
    eval_loss: float | None = None
    skipped_steps: int = 0
    artifact: Path | None = None
    """the folder with what was trained"""

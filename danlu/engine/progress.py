"""How far a run has come: everything about it that is neither a weight nor the optimiser's, as JSON."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(slots=True)
class Progress:
    """Saved with every checkpoint; the data cursor is where the order stands after the last step."""

    step: int = 0
    epoch: float = 0.0
    tokens: int = 0
    trained_tokens: int = 0
    seconds: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    last_loss: float | None = None
    loss_scale: float = 1.0
    steps_since_scale: int = 0
    best_loss: float | None = None
    best_step: int | None = None
    evals_without_gain: int = 0
    cursor: dict[str, Any] | None = None
    measured_step: int | None = None
    held_out_loss: float | None = None

    def to_json(self) -> dict[str, Any]:
        """A tree of plain values."""
        return asdict(self)

"""The clock, told of the steps and batches of a trainer of transformers' kind."""

from typing import Any

from peers.workload import Clock, Row, forget_peak, mean_length
from transformers import Trainer, TrainerCallback


class Ticks(TrainerCallback):
    """Tells the clock of every step."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.loss = float("nan")

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Nothing before counts."""
        forget_peak()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """One more."""
        self.clock.tick()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """The mean loss."""
        self.loss = float((logs or {}).get("loss", self.loss))


def trained(trainer: Trainer, ticks: Ticks, rows: list[Row]) -> dict[str, Any]:
    """Train, with a clock that sees every batch as the model is given it, and tell."""
    own = trainer.training_step

    def seen(model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        ticks.clock.saw(inputs)
        return own(model, inputs, *rest, **named)

    trainer.training_step = seen  # type: ignore[method-assign]
    trainer.train()
    return ticks.clock.answer(ticks.loss, mean_length(rows))

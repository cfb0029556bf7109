"""Metrics for TensorBoard, written under the run's folder."""

from torch.utils.tensorboard import SummaryWriter

from danlu.engine.hooks.base import Hook, Listener
from danlu.engine.records import EvalRecord, RunFacts, StepRecord


class TensorBoard(Hook):
    """Event files in RUN/tensorboard; see them with `tensorboard --logdir RUN`."""

    def start(self, run: RunFacts) -> Listener:
        return Events(run)


class Events(Listener):
    """Writes each record as scalars; what a killed process drew past the resumed step is purged."""

    def __init__(self, run: RunFacts) -> None:
        self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.step + 1 if run.step else None)

    def on_step(self, record: StepRecord) -> None:
        self._write(record)

    def on_eval(self, record: EvalRecord) -> None:
        self._write(record)

    def close(self) -> None:
        self._writer.close()

    def _write(self, record: StepRecord | EvalRecord) -> None:
        for name, value in record.scalars().items():
            self._writer.add_scalar(name, value, record.step)

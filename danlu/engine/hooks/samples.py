"""Writes `samples.jsonl`: what the model wrote while it learned, with what each answer was worth."""

from pydantic import PositiveInt

from danlu.engine.hooks.base import Hook, Listener
from danlu.engine.metrics import MetricsLog
from danlu.engine.records import RunFacts, StepRecord

FILE = "samples.jsonl"
SAMPLE = "sample"


class Samples(Hook):
    """One JSON object for each answer, by step; runs whose objective writes none have no such file."""

    most: PositiveInt | None = 16
    """answers kept of each step, from its first prompt on; null keeps all"""

    def start(self, run: RunFacts) -> Listener:
        return Keeper(run, self.most)


class Keeper(Listener):
    """Appends answers as they are learnt from."""

    def __init__(self, run: RunFacts, most: int | None) -> None:
        self.path, self.step, self.most = run.folder / FILE, run.step, most
        self._log = MetricsLog(self.path, run.step) if self.path.exists() else None

    def on_step(self, record: StepRecord) -> None:
        for sample in record.samples[: self.most]:
            self._log = self._log or MetricsLog(self.path, self.step)
            self._log.write(SAMPLE, record.step, sample)

    def on_rollback(self, step: int) -> None:
        if self._log is not None:
            self._log.go_back(step)

    def close(self) -> None:
        if self._log is not None:
            self._log.close()

"""Writes `delta_scores.json`: how far each held-out pair's better answer was ahead, at each measurement."""

import json

from danlu.core.files import write_json
from danlu.engine.hooks.base import Hook, Listener
from danlu.engine.records import EvalRecord, RunFacts

FILE = "delta_scores.json"
DELTA = "delta"


class DeltaScores(Hook):
    """Keeps {step: [difference of scores, ...]} of objectives that compare answers."""

    def start(self, run: RunFacts) -> Listener:
        return Keeper(run)


class Keeper(Listener):
    """Adds a measurement to the file as it happens."""

    def __init__(self, run: RunFacts) -> None:
        self.path = run.folder / FILE
        measured = -1 if run.measured_step is None else min(run.step, run.measured_step)
        self._keep_until(measured)

    def on_eval(self, record: EvalRecord) -> None:
        if DELTA in record.values:
            write_json(self.path, self._read() | {str(record.step): list(record.values[DELTA])})

    def on_rollback(self, step: int) -> None:
        self._keep_until(step)

    def _keep_until(self, step: int) -> None:
        """Forget what a run that goes on will measure again."""
        if self.path.exists():
            write_json(self.path, {key: scores for key, scores in self._read().items() if int(key) <= step})

    def _read(self) -> dict[str, list[float]]:
        return json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}

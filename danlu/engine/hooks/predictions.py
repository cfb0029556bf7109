"""Writes `generated_predictions.jsonl`: the scores of both answers of each held-out pair, as last measured."""

import json

from danlu.core.files import write_atomic
from danlu.engine.hooks.base import Hook, Listener
from danlu.engine.records import EvalRecord, RunFacts

FILE = "generated_predictions.jsonl"
ACCEPT, REJECT = "accept", "reject"
DIGITS = 2


class Predictions(Hook):
    """Lines of {"accept": 1.23, "reject": 0.45} of a reward model."""

    def start(self, run: RunFacts) -> Listener:
        return Writer(run)


class Writer(Listener):
    """Writes the file anew at each measurement."""

    def __init__(self, run: RunFacts) -> None:
        self.path = run.folder / FILE

    def on_eval(self, record: EvalRecord) -> None:
        if ACCEPT in record.values and REJECT in record.values:
            pairs = zip(record.values[ACCEPT], record.values[REJECT], strict=True)
            lines = [{ACCEPT: round(better, DIGITS), REJECT: round(worse, DIGITS)} for better, worse in pairs]
            write_atomic(self.path, "".join(json.dumps(line) + "\n" for line in lines))

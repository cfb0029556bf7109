"""Writes `metrics.jsonl`, the run's own memory: whoever shows a run reads nothing else."""

from dataclasses import asdict
from pathlib import Path

from danlu.engine.hooks.base import Hook, Listener
from danlu.engine.metrics import MetricsLog
from danlu.engine.records import EvalRecord, RunFacts, StepRecord, Summary


class MetricsFile(Hook):
    """One JSON object for each event, appended to metrics.jsonl as it happens."""

    def start(self, run: RunFacts) -> Listener:
        return Writer(run)


class Writer(Listener):
    """Turns each event into one line."""

    def __init__(self, run: RunFacts) -> None:
        self._log = MetricsLog(run.folder / "metrics.jsonl", run.step, run.measured_step)
        self._log.write("start", run.step, {"num_steps": run.num_steps})

    def on_step(self, record: StepRecord) -> None:
        self._write("step", record)

    def on_eval(self, record: EvalRecord) -> None:
        self._write("eval", record)

    def on_save(self, step: int, path: Path) -> None:
        self._log.write("save", step, {"path": path.name})
        self._log.sync()

    def on_alert(self, step: int, message: str) -> None:
        self._log.write("alert", step, {"message": message})

    def on_rollback(self, step: int) -> None:
        self._log.go_back(step)

    def on_stop(self, step: int, reason: str) -> None:
        self._log.write("stop", step, {"reason": reason})

    def on_end(self, summary: Summary) -> None:
        self._write("end", summary)

    def close(self) -> None:
        self._log.close()

    def _write(self, event: str, record: StepRecord | EvalRecord | Summary) -> None:
        facts = asdict(record)
        facts.pop("values", None)  # thousands of numbers, which have a hook of their own
        facts.pop("samples", None)  # so have these
        self._log.write(event, record.step, facts)

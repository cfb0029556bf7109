"""Metrics for Trackio, which keeps them on this machine: https://huggingface.co/docs/trackio"""

import trackio  # pyright takes this very file for the package

from danlu.engine.hooks.base import Hook, Listener
from danlu.engine.records import EvalRecord, RunFacts, StepRecord


class Trackio(Hook):
    """Keeps metrics in Trackio's local store; see them with `trackio show`."""

    project: str = "danlu"
    """the project the run belongs to"""

    def start(self, run: RunFacts) -> Listener:
        return Keeper(self, run)


class Keeper(Listener):
    """One run there for one run here, however often it is resumed."""

    def __init__(self, hook: Trackio, run: RunFacts) -> None:
        resume = "allow" if run.step else "never"
        self._run = trackio.init(  # pyright: ignore[reportAttributeAccessIssue]
            project=hook.project, name=run.name, config=dict(run.config), resume=resume
        )

    def on_step(self, record: StepRecord) -> None:
        self._run.log(record.scalars(), step=record.step)

    def on_eval(self, record: EvalRecord) -> None:
        self._run.log(record.scalars(), step=record.step)

    def close(self) -> None:
        self._run.finish()

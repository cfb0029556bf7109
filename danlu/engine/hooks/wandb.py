"""Metrics for Weights & Biases: https://docs.wandb.ai"""

import uuid
from pathlib import Path
from typing import Literal

import wandb  # pyright takes this very file for the package

from danlu.core.files import write_atomic
from danlu.engine.hooks.base import Hook, Listener
from danlu.engine.records import EvalRecord, RunFacts, StepRecord


class WandB(Hook):
    """Sends metrics to Weights & Biases, or keeps them to be sent later."""

    project: str = "danlu"
    """the project the run belongs to"""
    mode: Literal["online", "offline"] = "online"
    """offline keeps everything in RUN/wandb until `wandb sync`"""

    def start(self, run: RunFacts) -> Listener:
        return Sender(self, run)


class Sender(Listener):
    """One run there for one run here, however often it is resumed."""

    def __init__(self, hook: WandB, run: RunFacts) -> None:
        self._run = wandb.init(  # pyright: ignore[reportAttributeAccessIssue]
            project=hook.project, name=run.name, id=identity(run.folder), resume="allow", config=dict(run.config),
            dir=str(run.folder), mode=hook.mode, save_code=False,
        )  # fmt: skip

    def on_step(self, record: StepRecord) -> None:
        self._run.log(record.scalars(), step=record.step)

    def on_eval(self, record: EvalRecord) -> None:
        self._run.log(record.scalars(), step=record.step)

    def close(self) -> None:
        self._run.finish()


def identity(folder: Path) -> str:
    """The run's name on their side, made once and kept in its folder."""
    kept = folder / "wandb" / "id"
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        write_atomic(kept, uuid.uuid4().hex)
    return kept.read_text()

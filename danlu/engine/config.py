"""How a run trains: length, optimiser, precision, memory, saving and evaluation."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from danlu.core.devices import Precision
from danlu.core.parts import Config
from danlu.engine.optimizers.adamw import AdamW
from danlu.engine.optimizers.base import Optimizer, optimizers
from danlu.engine.parallel.base import Parallel, parallels
from danlu.engine.parallel.ddp import DDP
from danlu.engine.schedules.base import Schedule, schedules
from danlu.engine.schedules.constant import Constant
from danlu.engine.schedules.cosine import Cosine
from danlu.engine.schedules.warmup import Warmup


class SaveConfig(Config):
    """When checkpoints are written, and how many are kept."""

    every_steps: PositiveInt = 100
    """optimiser steps between checkpoints; the last step is always saved"""
    limit: PositiveInt | None = 2
    """checkpoints to keep besides the best and pinned ones; null keeps all"""


class EvaluateConfig(Config):
    """When held-out loss is measured, and what follows from it."""

    every_steps: PositiveInt | None = None
    """optimiser steps between measurements; null measures before the first and after the last step only"""
    keep_best: bool = False
    """the final weights are those of the lowest held-out loss, not the last ones"""
    patience: PositiveInt | None = None
    """stop after this many measurements without a lower loss"""


class RanksConfig(Config):
    """How several processes of a run wait for each other."""

    hang_seconds: PositiveFloat = 600.0
    """a rank that does not get on for so long is named, and the run ends"""
    check: bool = True
    """compare code, recipe, data and packages of all ranks before the first sum, and see that all share the folder"""


class EngineConfig(Config):
    """How a run trains."""

    steps: PositiveInt | None = None
    """optimiser steps; null trains for `epochs` instead"""
    epochs: PositiveInt = 1
    """times every row is seen, when `steps` is null"""
    optimizer: Annotated[Optimizer, optimizers] = AdamW()
    """how gradients become updates"""
    schedule: Annotated[Schedule, schedules] = Cosine()
    """how the learning rate changes over the run"""
    max_grad_norm: NonNegativeFloat | None = 1.0
    """gradients are scaled down to this L2 norm; null leaves them"""
    precision: Precision = "auto"
    """of matrix products; what learns is always kept in fp32"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where to train"""
    parallel: Annotated[Parallel, parallels] = DDP()
    """how several processes share the run"""
    gradient_checkpointing: Literal["none", "full", "auto"] | Annotated[NonNegativeInt, Field(strict=True)] = "none"
    """recompute blocks in the backward pass to save memory: none, full, how many, or auto: as many as it takes"""
    offload_activations: bool = False
    """keep what the backward pass needs in the host's memory meanwhile; a GPU copies while it computes"""
    mlp_chunk: Literal["auto"] | PositiveInt | None = None
    """tokens that an MLP takes at a time, recomputed backwards, for very long rows; auto is the model's width"""
    compile: Literal["auto"] | bool = "auto"
    """let torch's compiler fuse each block: on, off, or auto, when the run is long enough to win back the time"""
    on_nonfinite: Literal["stop", "skip", "rollback"] = "stop"
    """when a loss or gradient is not finite: stop, skip that step, or go back to the last checkpoint past that data"""
    seed: int = 42
    """of the data order and of everything random in a step"""
    save: SaveConfig = SaveConfig()
    """checkpoints"""
    evaluate: EvaluateConfig = EvaluateConfig()
    """held-out loss"""
    ranks: RanksConfig = RanksConfig()
    """several processes"""

    @model_validator(mode="after")
    def _some_optimizers_take_no_schedule(self) -> Self:
        if not self.optimizer.takes_schedule and not isinstance(self.schedule, (Constant, Warmup)):
            raise ValueError(
                f"optimizer {optimizers.name_of(self.optimizer)} averages instead of lowering its rate; "
                "say schedule: {name: constant, warmup: 0.03}"
            )
        return self

    @model_validator(mode="after")
    def _what_is_dealt_out_learns_by_rows(self) -> Self:
        why = self.parallel.needs_rows
        if why is None:
            return self
        names = parallels.name_of(self.parallel), optimizers.name_of(self.optimizer)
        if not self.optimizer.by_rows:
            raise ValueError(
                f"parallel {names[0]} {why}, and optimizer {names[1]} needs whole ones; "
                "say parallel: ddp, or optimizer: adamw, lion, sgd or schedule_free"
            )
        if self.offload_activations:
            raise ValueError(
                f"offload_activations with parallel {names[0]}: what is gathered of weights would be moved too; "
                "say gradient_checkpointing: full"
            )
        return self

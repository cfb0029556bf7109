"""What changes while a run trains: weights, optimiser and progress, and how they go to a checkpoint and come back."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from danlu.engine.checkpoint import Checkpoint, Checkpoints
from danlu.engine.config import EngineConfig
from danlu.engine.offload import Offload
from danlu.engine.optimizer_state import optimizer_state, restore_optimizer
from danlu.engine.optimizers.base import set_lr
from danlu.engine.progress import Progress
from danlu.engine.updates import updates_of
from danlu.models.masters import Masters
from danlu.objectives.base import Models, together

log = logging.getLogger(__name__)

FIRST_LOSS_SCALE = 2.0**4
"""losses are sums over thousands of tokens, which alone lifts fp16 gradients as a scale of 2^16 lifts those of means"""


class Training:
    """The state of a run. `lr_scale` gives each parameter's share of the learning rate by name."""

    def __init__(
        self, config: EngineConfig, models: Models, dtype: torch.dtype, num_steps: int, lr_scale: Callable[[str], float]
    ) -> None:
        self.config, self.models, self.num_steps = config, models, num_steps
        self.masters = Masters(together(models), dtype)
        groups = config.optimizer.groups(self.masters.parameters.items(), lr_scale)
        self.optimizer = config.optimizer.build(groups)
        self.updates = updates_of(self.optimizer, self.masters)
        self.kept: AbstractContextManager[None] = nullcontext()
        """what is done to what a forward keeps"""
        device = next(models["policy"].parameters()).device
        if config.offload_activations and device.type == "cpu":
            log.info("engine.offload_activations: a processor's memory is the host's; nothing is moved")
        elif config.offload_activations:
            self.kept = Offload(together(models).state_dict().values(), device)
        self.names = {parameter: name for name, parameter in self.masters.parameters.items()}
        self.scales_loss = dtype == torch.float16
        self.progress = Progress(loss_scale=FIRST_LOSS_SCALE if self.scales_loss else 1.0)

    @property
    def finished(self) -> bool:
        """Whether every step is done."""
        return self.progress.step >= self.num_steps

    def update_weights(self, factor: Tensor) -> float:
        """One update with the gradients that the masters hold, times a factor []; returns the learning rate."""
        lr = self.config.schedule.lr(self.config.optimizer.lr, self.progress.step, self.num_steps)
        set_lr(self.optimizer, lr)
        self.updates.update(factor)
        return lr

    def results(self) -> dict[str, Tensor]:
        """fp32 values of what the run has learned, by name; for most optimisers, the masters."""
        others = self.config.optimizer.results(self.optimizer)
        return self.masters.state() | {self.names[parameter]: value for parameter, value in others.items()}

    def measured(self) -> AbstractContextManager[None]:
        """Inside, the models compute with the results."""
        others = self.config.optimizer.results(self.optimizer)
        return self.masters.showing({self.names[parameter]: value for parameter, value in others.items()})

    def save(
        self, checkpoints: Checkpoints, write_weights: Callable[[Path], None], *, best: bool = False
    ) -> Path | None:
        """Write everything that a resumed run needs, and the weights once more as other tools read them."""
        moments, structure = optimizer_state(self.optimizer, self.names)
        return checkpoints.save(
            self.progress.step,
            {"masters": self.masters.state(), "optimizer": moments},
            {"optimizer_structure": structure, "progress": self.progress.to_json()},
            [write_weights],
            best=best,
        )

    def take(self, checkpoint: Checkpoint) -> None:
        """The weights and the optimiser's state of a checkpoint."""
        self.masters.load(checkpoint.tensors("masters"))
        restore_optimizer(
            self.optimizer, self.names, checkpoint.tensors("optimizer"), checkpoint.state("optimizer_structure")
        )
        self.config.optimizer.resumed(self.optimizer)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Become what was saved."""
        self.take(checkpoint)
        self.progress = Progress(**checkpoint.state("progress"))

    def shrink_loss_scale(self) -> bool:
        """After an overflow of fp16 gradients: halve the scale; False when it is not the scale's fault any more."""
        if not self.scales_loss or self.progress.loss_scale <= 1.0:
            return False
        self.progress.loss_scale /= 2
        self.progress.steps_since_scale = 0
        return True

    def grow_loss_scale(self) -> None:
        """After 2,000 good steps, try twice the scale."""
        self.progress.steps_since_scale += 1
        if self.scales_loss and self.progress.steps_since_scale >= 2000:
            self.progress.loss_scale *= 2
            self.progress.steps_since_scale = 0

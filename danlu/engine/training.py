"""What changes while a run trains: weights, optimiser and progress, and how they go to a checkpoint and come back."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from danlu.core.ranks import Ranks
from danlu.engine.checkpoint import Checkpoints
from danlu.engine.checkpoint_folder import Checkpoint, Content, Writer
from danlu.engine.config import EngineConfig
from danlu.engine.offload import Offload
from danlu.engine.optimizer_state import optimizer_state, restore_optimizer
from danlu.engine.optimizers.base import set_lr
from danlu.engine.progress import Progress
from danlu.engine.updates import updates_of
from danlu.objectives.base import Models, together

log = logging.getLogger(__name__)

FIRST_LOSS_SCALE = 2.0**4
"""losses are sums over thousands of tokens, which alone lifts fp16 gradients as a scale of 2^16 lifts those of means"""


class Training:
    """The state of a run. `lr_scale` gives each parameter's share of the learning rate by name."""

    def __init__(
        self,
        config: EngineConfig,
        models: Models,
        dtype: torch.dtype,
        num_steps: int,
        lr_scale: Callable[[str], float],
        ranks: Ranks | None = None,
    ) -> None:
        self.config, self.models, self.num_steps = config, models, num_steps
        self.ranks = ranks or Ranks()
        parallel = config.parallel.among(self.ranks)
        parallel.deal(models, dtype, self.ranks)
        self.masters = parallel.masters(models, dtype, self.ranks)
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

    def wholes(self, *, everything: bool) -> dict[str, Tensor]:
        """The same on the leading process where rows are dealt out; `everything`: with what does not learn of those."""
        return self.masters.whole(self.results(), everything=everything)

    def measured(self) -> AbstractContextManager[None]:
        """Inside, the models compute with the results."""
        others = self.config.optimizer.results(self.optimizer)
        return self.masters.showing({self.names[parameter]: value for parameter, value in others.items()})

    def save(self, checkpoints: Checkpoints, write_weights: Writer, *, best: bool = False) -> Path | None:
        """Write everything that a resumed run needs, and the weights once more as other tools read them."""
        moments, structure = optimizer_state(self.optimizer, self.names)
        groups = {"masters": self.masters.state(), "optimizer": moments}
        if self.ranks.count > 1:  # of no rows a process may have nothing to say, but all must say it alike
            groups["optimizer"] |= self._moments()
        dealt = {name: self._bounds(tensors) for name, tensors in groups.items()}
        content = Content(
            {name: leaving(tensors, dealt[name]) for name, tensors in groups.items()},
            {"optimizer_structure": structure, "progress": self.progress.to_json()},
            {name: {key: groups[name][key] for key in bounds} for name, bounds in dealt.items() if bounds},
            {name: bounds for name, bounds in dealt.items() if bounds},
            [write_weights],
        )
        return checkpoints.save(self.progress.step, content, best=best)

    def take(self, checkpoint: Checkpoint) -> None:
        """The weights and the optimiser's state of a checkpoint, however many processes have written it."""
        self.masters.load(checkpoint.tensors("masters", self._own_rows))
        moments = checkpoint.tensors("optimizer", self._own_rows)
        restore_optimizer(self.optimizer, self.names, moments, checkpoint.state("optimizer_structure"))
        self.config.optimizer.resumed(self.optimizer)

    def _moments(self) -> dict[str, Tensor]:
        """What the optimiser keeps for each row of a weight, by its own names."""
        found = {}
        for name, master in self.masters.parameters.items():
            for key, value in self.optimizer.state.get(master, {}).items():
                if isinstance(value, Tensor) and value.shape == master.shape and self.masters.rows(name, 0):
                    found[f"{name}.{key}"] = value
        return found

    def _bounds(self, tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
        """Of tensors that are rows of weights: where those of each process begin, and the last one's end."""
        found = {}
        for key, value in tensors.items():
            name = self._weight(key)
            if name is None or value.shape != self.masters.parameters[name].shape:
                continue
            rows = [self.masters.rows(name, rank) for rank in range(self.ranks.count)]
            if rows[0] is not None:
                found[key] = [0, *(after for _, after in rows if after is not None)]  # type: ignore[misc]
        return found

    def _own_rows(self, key: str, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """Which rows of a saved tensor are this process's."""
        name = self._weight(key)
        if name is None or shape != tuple(self.masters.shape(name)):
            return None
        return self.masters.rows(name, self.ranks.rank)

    def _weight(self, key: str) -> str | None:
        """The weight that a tensor in a checkpoint is, or belongs to."""
        return next((name for name in (key, key.rpartition(".")[0]) if name in self.masters.parameters), None)

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


def leaving(tensors: Mapping[str, Tensor], out: Mapping[str, Any]) -> dict[str, Tensor]:
    """All but some."""
    return {key: value for key, value in tensors.items() if key not in out}

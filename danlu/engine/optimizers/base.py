"""What every optimiser answers, and which parameters share their settings."""

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn
from torch.optim import Optimizer as TorchOptimizer

from danlu.core.parts import Folder, Part

Groups = list[dict[str, Any]]
Beta = Annotated[float, Field(ge=0, lt=1)]

# Llama's `norm.weight` and `input_layernorm.weight`, GPT-2's `ln_f.weight`, Mamba's `A_log`: never decayed
UNDECAYED = re.compile(r"(^|\.)(\w*norm\w*|ln|ln_\w+)\.weight$|(^|[._])bias$|(^|\.)A_log$", re.IGNORECASE)


class Optimizer(Part):
    """How gradients become updates."""

    takes_schedule: ClassVar[bool] = True
    """whether the rate may fall after the warm-up"""
    by_rows: ClassVar[bool] = True
    """whether some rows of a weight may be updated without the others, as processes do that have dealt them out"""

    lr: NonNegativeFloat = 1e-4
    """the peak learning rate"""
    weight_decay: NonNegativeFloat = 0.0
    """how strongly weights are pulled to zero; biases and norms never are"""

    @property
    def bytes_per_weight(self) -> float:
        """State that is kept for each weight that learns; Adam's is two fp32 moments."""
        return 8.0

    def state_bytes(self, name: str, parameter: Tensor) -> float:
        """State that is kept for one parameter of the device's memory."""
        return self.bytes_per_weight * parameter.numel()

    def groups(
        self, named_parameters: Iterable[tuple[str, nn.Parameter]], lr_scale: Callable[[str], float] = lambda name: 1.0
    ) -> Groups:
        """Parameters that learn, by learning rate and decay, in an order that does not depend on theirs."""
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in named_parameters:
            if parameter.requires_grad:
                groups.setdefault((lr_scale(name), decays(name, parameter)), []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": self.lr * scale,
                "lr_scale": scale,
                "weight_decay": self.weight_decay if decayed else 0.0,
            }
            for (scale, decayed), parameters in sorted(groups.items(), key=lambda group: group[0])
        ]

    def build(self, groups: Groups) -> TorchOptimizer:
        """The torch optimiser over these groups."""
        raise NotImplementedError

    def check(self, device: torch.device) -> None:
        """Raise a `SetupError` where it cannot work."""

    def results(self, optimizer: TorchOptimizer) -> dict[nn.Parameter, Tensor]:
        """The values to measure and to keep of those parameters whose own are only good to learn from."""
        return {}

    def resumed(self, optimizer: TorchOptimizer) -> None:
        """Put the states that came from a checkpoint where this optimiser wants them."""


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay may touch a parameter: matrices yes; biases, norms and every other vector no."""
    return parameter.ndim > 1 and not UNDECAYED.search(name)


def set_lr(optimizer: TorchOptimizer, lr: float) -> None:
    """Give each group its learning rate, scaled as `groups` says."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


optimizers = Folder("danlu.engine.optimizers", Optimizer)

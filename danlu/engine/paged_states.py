"""Optimisers of bitsandbytes, whose states may lie in memory that a GPU's driver moves to the host and back."""

import torch
from torch import Tensor
from torch.optim import Optimizer as TorchOptimizer

from danlu.core.errors import SetupError
from danlu.engine.optimizers.base import Optimizer

PAGED = ("state1", "state2")


class PagedOptimizer(Optimizer):
    """An optimiser whose states can be paged."""

    paged: bool = False
    """keep the states where the GPU's driver moves them to the host when the GPU is full; needs a CUDA GPU"""

    def state_bytes(self, name: str, parameter: Tensor) -> float:
        """None where the states are paged: they make room for whatever else needs it."""
        return 0.0 if self.paged else super().state_bytes(name, parameter)

    def check(self, device: torch.device) -> None:
        """Pages are CUDA's."""
        if self.paged and device.type != "cuda":
            raise SetupError(
                f"engine.optimizer.paged: states are paged on a CUDA GPU, and this run is on {device.type}"
            )

    def resumed(self, optimizer: TorchOptimizer) -> None:
        """Into pages again."""
        for parameter, state in optimizer.state.items() if self.paged else ():
            for name in PAGED:
                if name in state:
                    page = optimizer.get_state_buffer(parameter, dtype=state[name].dtype)  # type: ignore[attr-defined]
                    page.copy_(state[name])
                    state[name] = page

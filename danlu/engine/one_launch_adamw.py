"""torch's AdamW on a GPU with everything around an update in the same launch: scaling, clipping, rounding."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from danlu.engine.optimizers.base import Groups
from danlu.engine.soon import Soon
from danlu.models.kernels.adamw import AdamWUpdate, Slot


class OneLaunchAdamW(AdamW):
    """Holds what torch's own holds, by the same names, so that a run goes on with either.

    `copies` are the weights that a model computes with, by their masters. `factor` [] scales all gradients; where it is
    NaN, the step changes nothing and is not counted.
    """

    def __init__(self, groups: Groups, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, betas=betas, eps=eps)
        self.copies: dict[nn.Parameter, nn.Parameter] = {}
        self.factor: Tensor | None = None
        self._updates: dict[torch.dtype, AdamWUpdate] = {}
        self._betas, self._eps = betas, eps

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One update of every parameter that has a gradient."""
        assert closure is None
        groups = [(group, parameter) for group in self.param_groups for parameter in group["params"]]
        learning = [(group, parameter) for group, parameter in groups if parameter.grad is not None]
        steps = [self._state(parameter)["step"] for _, parameter in learning]
        if not steps:
            return
        bad = None if self.factor is None else Soon([self.factor])
        torch._foreach_add_(steps, 1)
        numbers = torch.stack(steps).tolist()
        slots = [self._slot(*each, int(number)) for each, number in zip(learning, numbers, strict=True)]
        factor = slots[0].value.new_ones(()) if self.factor is None else self.factor
        for dtype in {slot.gradient.dtype for slot in slots}:
            update = self._updates.setdefault(dtype, AdamWUpdate(self._betas, self._eps))
            update([slot for slot in slots if slot.gradient.dtype == dtype], factor)
        if bad is not None and math.isnan(bad.read()[0]):
            torch._foreach_sub_(steps, 1)

    def _slot(self, group: dict[str, Any], parameter: nn.Parameter, step: int) -> Slot:
        state, copy = self.state[parameter], self.copies.get(parameter)
        assert parameter.grad is not None
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        return Slot(parameter, parameter.grad, mean, square, copy, step, group["lr"], group["weight_decay"])

    def _state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state

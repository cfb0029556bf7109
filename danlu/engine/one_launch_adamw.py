"""torch's AdamW on a GPU with everything around an update in the same launch: scaling, clipping, rounding."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from danlu.engine.optimizers.base import Groups
from danlu.engine.soon import Soon
from danlu.models.kernels.adamw import AdamWUpdate, Rates, Slot


class OneLaunchAdamW(AdamW):
    """Holds what torch's own holds, by the same names, so that a run goes on with either.

    `copies` are the weights that a model computes with, by their masters. `factor` [] scales all gradients; where it is
    NaN, the step changes nothing and is not counted.
    """

    def __init__(self, groups: Groups, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, betas=betas, eps=eps)
        self.copies: dict[nn.Parameter, nn.Parameter] = {}
        self.factor: Tensor | None = None
        self._updates: dict[tuple[int, torch.dtype], AdamWUpdate] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One update of every parameter that has a gradient."""
        assert closure is None
        counted: list[Tensor] = []
        factor = None if self.factor is None else Soon([self.factor])
        for number, group in enumerate(self.param_groups):
            rates = Rates(group["lr"], group["weight_decay"], group["betas"], group["eps"])
            learning = [parameter for parameter in group["params"] if parameter.grad is not None]
            for dtype in {parameter.grad.dtype for parameter in learning}:
                slots = list(self._slots(parameter for parameter in learning if parameter.grad.dtype == dtype))
                scale = slots[0].value.new_ones(()) if self.factor is None else self.factor
                self._updates.setdefault((number, dtype), AdamWUpdate())(slots, rates, scale)
            counted += [self.state[parameter]["step"] for parameter in learning]
        if counted and factor is not None and math.isnan(factor.read()[0]):
            torch._foreach_sub_(counted, 1)

    def _slots(self, parameters: Iterable[nn.Parameter]) -> Iterable[Slot]:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state |= {
                    "step": torch.tensor(0.0),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
            state["step"] += 1
            assert parameter.grad is not None
            copy = self.copies.get(parameter)
            yield Slot(parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"], copy, int(state["step"]))

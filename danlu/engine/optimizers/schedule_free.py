"""AdamW that averages its weights instead of lowering its rate: https://arxiv.org/abs/2405.15682"""

from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeFloat, PositiveFloat
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn
from torch.optim import Optimizer as TorchOptimizer

from danlu.engine.optimizers.base import Beta, Groups, Optimizer


class ScheduleFree(Optimizer):
    """AdamW whose result is a mean of its weights, good at every step: no need to know how long a run will be.

    It learns at y, between the mean x and the fast z; x is what is measured and saved.
    """

    takes_schedule: ClassVar[bool] = False
    """the averaging takes its place"""

    betas: tuple[Annotated[float, Field(gt=0, lt=1)], Beta] = (0.9, 0.999)
    """how near to the mean it learns, and how slowly the mean of squared gradients forgets"""
    eps: PositiveFloat = 1e-8
    """added to the root of the squares"""
    power: NonNegativeFloat = 0.0
    """the mean weighs step t by t to this power"""

    def build(self, groups: Groups) -> TorchOptimizer:
        optimizer = AdamWScheduleFree(groups, betas=self.betas, eps=self.eps, r=self.power)
        optimizer.train()
        return optimizer

    def results(self, optimizer: TorchOptimizer) -> dict[nn.Parameter, Tensor]:
        """x = y + (z - y) (1 - 1 / b1). Never by the optimiser's own `eval`, whose way back to y loses bits."""
        back = 1 - 1 / self.betas[0]
        learning = [(y, optimizer.state[y]) for group in optimizer.param_groups for y in group["params"]]
        return {y: y.detach().lerp(state["z"], back) for y, state in learning if "z" in state}

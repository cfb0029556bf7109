"""Adafactor, which keeps one number for each row and column of a matrix: https://arxiv.org/abs/1804.04235"""

from math import prod
from typing import Annotated, ClassVar

from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.optim import Optimizer as TorchOptimizer
from transformers.optimization import Adafactor as TorchAdafactor

from danlu.engine.optimizers.base import Groups, Optimizer


class Adafactor(Optimizer):
    """Adam without momentum whose squares are factored: nearly no state; the rate is the schedule's alone."""

    by_rows: ClassVar[bool] = False

    eps: tuple[PositiveFloat, PositiveFloat] = (1e-30, 1e-3)
    """added to squared gradients, and the least root mean square of weights that `scale_parameter` scales by"""
    clip_threshold: PositiveFloat = 1.0
    """largest root mean square of an update"""
    decay: Annotated[float, Field(lt=0)] = -0.8
    """exponent of the step at which squares are forgotten"""
    scale_parameter: bool = False
    """scale the rate by the root mean square of each tensor"""

    def state_bytes(self, name: str, parameter: Tensor) -> float:
        """A number for each row and column of a matrix."""
        *many, rows, columns = parameter.shape if parameter.ndim > 1 else (parameter.numel(), 0)
        return 4.0 * prod(many) * (rows + columns)

    def build(self, groups: Groups) -> TorchOptimizer:
        return TorchAdafactor(
            groups,
            eps=self.eps,
            clip_threshold=self.clip_threshold,
            decay_rate=self.decay,
            scale_parameter=self.scale_parameter,
            relative_step=False,
        )

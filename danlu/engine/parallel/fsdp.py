"""Everything is dealt out, and each block's weights are together only while it computes: https://arxiv.org/abs/2304.11277"""

from typing import ClassVar

from danlu.engine.parallel._sharded import Sharded
from danlu.engine.parallel.base import Stage


class FSDP(Sharded):
    """Weights, gradients and optimiser states are dealt out."""

    stage: ClassVar[Stage] = "zero3"

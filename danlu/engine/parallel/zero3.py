"""The third stage of ZeRO by its own name; it is what `fsdp` does: https://arxiv.org/abs/1910.02054"""

from typing import ClassVar

from danlu.engine.parallel._sharded import Sharded
from danlu.engine.parallel.base import Stage


class Zero3(Sharded):
    """Weights, gradients and optimiser states are dealt out."""

    stage: ClassVar[Stage] = "zero3"

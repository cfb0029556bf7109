"""The first stage of ZeRO: only what the optimiser keeps is dealt out while a step lasts: https://arxiv.org/abs/1910.02054"""

from typing import ClassVar

from danlu.engine.parallel._sharded import Sharded
from danlu.engine.parallel.base import Stage


class Zero1(Sharded):
    """Optimiser states are dealt out; weights are gathered, and gradients summed, once a step."""

    stage: ClassVar[Stage] = "zero1"
    gathered: ClassVar[bool] = True
    sums_once: ClassVar[bool] = True

"""The second stage of ZeRO: weights stay together during a step, the rest is dealt out: https://arxiv.org/abs/1910.02054"""

from typing import ClassVar

from danlu.engine.parallel._sharded import Sharded
from danlu.engine.parallel.base import Stage


class Zero2(Sharded):
    """Gradients and optimiser states are dealt out; weights are gathered once a step."""

    stage: ClassVar[Stage] = "zero2"
    gathered: ClassVar[bool] = True

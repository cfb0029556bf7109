"""Every process has the whole model and its own packs; gradients are summed once a step: https://arxiv.org/abs/2006.15704"""

from danlu.engine.parallel.base import Parallel


class DDP(Parallel):
    """Each process holds everything."""

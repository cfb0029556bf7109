"""Muon for the matrices, AdamW for the rest: https://kellerjordan.github.io/posts/muon

Steps are scaled so that a rate for AdamW is one for Muon too: https://arxiv.org/abs/2502.16982
"""

import re
from collections.abc import Callable, Iterable
from itertools import chain
from typing import ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.optim import AdamW as TorchAdamW
from torch.optim import Muon as TorchMuon
from torch.optim import Optimizer as TorchOptimizer

from danlu.engine.optimizers.base import Beta, Groups, Optimizer

TABLES = re.compile(r"(^|\.)(\w*embed\w*|wte|wpe|lm_head|embed_out)(\.|$)")
"""tables of embeddings and output layers: two-dimensional, but no maps from one space to another"""


class Muon(Optimizer):
    """Steps whose singular values are all alike, for matrices; AdamW at the same rate for tables, norms and biases."""

    by_rows: ClassVar[bool] = False

    momentum: Beta = 0.95
    """how slowly the mean of a matrix's gradient forgets"""
    nesterov: bool = True
    """look ahead along the momentum"""
    iterations: PositiveInt = 5
    """of Newton and Schulz towards equal singular values"""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """AdamW's: how slowly the means of the gradient and of its square forget"""
    eps: PositiveFloat = 1e-8
    """AdamW's: added to the root of the squares"""

    def state_bytes(self, name: str, parameter: Tensor) -> float:
        """One mean for the matrices, two for the rest."""
        return (4.0 if is_map(name, parameter) else 8.0) * parameter.numel()

    def groups(
        self, named_parameters: Iterable[tuple[str, nn.Parameter]], lr_scale: Callable[[str], float] = lambda name: 1.0
    ) -> Groups:
        """Those of the matrices, marked, and those of the rest."""
        named = list(named_parameters)
        matrices = [(name, each) for name, each in named if is_map(name, each)]
        names = {name for name, _ in matrices}
        rest = [(name, each) for name, each in named if name not in names]
        return [
            {**group, "is_muon": is_muon}
            for is_muon, members in ((True, matrices), (False, rest))
            for group in super(Muon, self).groups(members, lr_scale)
        ]

    def build(self, groups: Groups) -> TorchOptimizer:
        matrices, rest = ([group for group in groups if group["is_muon"] is wanted] for wanted in (True, False))
        both: list[TorchOptimizer] = []
        if matrices:
            both.append(
                TorchMuon(
                    matrices,
                    momentum=self.momentum,
                    nesterov=self.nesterov,
                    ns_steps=self.iterations,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        if rest:
            both.append(TorchAdamW(rest, betas=self.betas, eps=self.eps, fused=True))
        return Both(both)


def is_map(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a matrix from one space to another, which tables are not."""
    return parameter.ndim == 2 and not TABLES.search(name)


class Both(TorchOptimizer):
    """Several optimisers over other parameters, as one."""

    def __init__(self, parts: list[TorchOptimizer]) -> None:
        super().__init__(list(chain(*(part.param_groups for part in parts))), {})
        self.parts = parts
        for part in parts:
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update by each."""
        for part in self.parts:
            part.step()

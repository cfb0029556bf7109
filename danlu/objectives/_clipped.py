"""Clipped policy gradients over answers that the policy wrote. S: segments of a pack, T: its tokens.

The ratio of a token is its probability now over that as it was drawn: https://arxiv.org/abs/1707.06347
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from danlu.data.packing import Pack
from danlu.objectives._answers import ADVANTAGES, CORRECTION, LOGPS, spread, told
from danlu.objectives._compared import sizes_of, sums_of
from danlu.objectives._rolled import Rolled
from danlu.objectives._rolling import DRIFT, Rolling
from danlu.objectives.base import Loss, Models, Words

Metrics = dict[str, tuple[Tensor | float, float]]
Clip = Annotated[float, Field(gt=0, lt=1)]


class Clipped(Rolled):
    """-min(ratio A, clipped ratio A) of each token, A its advantage."""

    clip_low: Clip = 0.2
    """how far below 1 a ratio counts"""
    clip_high: Annotated[float, Field(gt=0)] = 0.2
    """how far above 1 a ratio counts"""

    def begin(self, models: Models, words: Words) -> Rolling:
        """Open the judges and the writer."""
        return Rolling(self, models, words)

    def loss(self, models: Models, pack: Pack) -> Loss:
        """Summed; what it is divided by is each objective's own."""
        return self.loss_of(models["policy"].logprobs(pack, temperature=self.temperature), pack)

    def loss_of(self, logps_T: Tensor, pack: Pack) -> Loss:
        """The same where log-probabilities are known."""
        sampled_T, advantages_T = told(pack, LOGPS), told(pack, ADVANTAGES)
        drawn_T = logps_T.detach() if sampled_T is None else sampled_T
        advantages_T = torch.zeros_like(drawn_T) if advantages_T is None else advantages_T
        log_ratios_T = self.log_ratios((logps_T - drawn_T) * pack.weights, pack)
        losses_T = self.losses(log_ratios_T, advantages_T, logps_T)
        correction_T = told(pack, CORRECTION)
        if correction_T is not None:
            losses_T = losses_T * correction_T
        losses_T, metrics = self.held(losses_T, logps_T, log_ratios_T, pack)
        num_tokens = float(pack.weights.sum())
        metrics["entropy"] = (-(logps_T.detach() * pack.weights).sum(), num_tokens)
        if sampled_T is not None:
            ratios_T = log_ratios_T.detach().exp()
            low = (ratios_T < 1 - self.clip_low) & (advantages_T < 0)
            high = (ratios_T > 1 + self.clip_high) & (advantages_T > 0)
            metrics["clipped"] = (((low | high) * pack.weights).sum(), num_tokens)
            metrics[DRIFT] = (((ratios_T - 1 - log_ratios_T.detach()) * pack.weights).sum(), num_tokens)
        total, count = self.summed(losses_T * pack.weights, pack)
        return Loss(total, count, metrics)

    def held(self, losses_T: Tensor, logps_T: Tensor, log_ratios_T: Tensor, pack: Pack) -> tuple[Tensor, Metrics]:
        """[T] the losses with whatever else holds the policy back, and what is told of that."""
        return losses_T, {}

    def log_ratios(self, log_ratios_T: Tensor, pack: Pack) -> Tensor:
        """[T] the logarithm of what each token's advantage is multiplied by."""
        return log_ratios_T

    def losses(self, log_ratios: Tensor, advantages: Tensor, logps: Tensor) -> Tensor:
        """[T] each token's loss."""
        ratios = log_ratios.exp()
        clipped = ratios.clamp(1 - self.clip_low, 1 + self.clip_high)
        return -torch.minimum(ratios * advantages, clipped * advantages)

    def summed(self, losses_T: Tensor, pack: Pack) -> tuple[Tensor, float]:
        """A sum and what it is over: here tokens, each counting the same."""
        return losses_T.sum(), float(pack.weights.sum())


def answer_means(losses_T: Tensor, pack: Pack) -> tuple[Tensor, float]:
    """Each answer counts the same: the mean of its tokens."""
    return (sums_of(losses_T, pack) / sizes_of(pack)).sum(), len(pack.segments)


def answer_ratios(log_ratios_T: Tensor, pack: Pack) -> Tensor:
    """[T] the whole answer's, at each of its tokens."""
    return spread(sums_of(log_ratios_T, pack), pack)

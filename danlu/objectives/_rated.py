"""Objectives over single answers that are good or bad, measured from a point that all answers of a step decide.

S: segments of a pack. A pair counts as a good answer and a bad one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar, Self

import torch
from pydantic import NonNegativeFloat, model_validator
from torch import Tensor

from danlu.data.loader import Step
from danlu.data.packing import Pack
from danlu.models.policy import Policy
from danlu.objectives._compared import facts_of, sums_of
from danlu.objectives._referenced import Referenced
from danlu.objectives.base import Loss, Models
from danlu.samples import PreferencePair, Rating

POINT = "point"
"""the fact of a segment that says what its reward is measured from"""


class Rated(Referenced):
    """A loss of each answer, by its reward and whether it is good."""

    learns_from = (Rating, PreferencePair)
    compares_steps: ClassVar[bool] = True

    good_weight: NonNegativeFloat = 1.0
    """what good answers count"""
    bad_weight: NonNegativeFloat = 1.0
    """what bad answers count"""

    @model_validator(mode="after")
    def _some_answers_count(self) -> Self:
        if not self.good_weight + self.bad_weight:
            raise ValueError("good_weight and bad_weight are both 0, which leaves nothing to learn")
        return self

    def point(self, policy: Policy, packs: Sequence[Pack]) -> float:
        """What the rewards of these packs' answers are measured from."""
        raise NotImplementedError

    def losses(self, rewards: Tensor, points: Tensor, signs: Tensor) -> Tensor:
        """[S] the loss of each answer; signs are 1 of good answers and -1 of bad ones."""
        raise NotImplementedError

    def steps(self, models: Models, loader: Iterable[Step]) -> Iterator[Step]:
        """Each step with its point: the same on every rank, and however its packs are cut later."""
        for step in loader:
            yield replace(step, packs=self.pointed(models["policy"], step.packs))

    def measure(self, models: Models, pack: Pack) -> Loss:
        """Held-out packs have a point each."""
        return self.loss(models, *self.pointed(models["policy"], [pack]))

    @torch.no_grad()
    def pointed(self, policy: Policy, packs: Sequence[Pack]) -> list[Pack]:
        """The packs, whose segments know their point."""
        training = policy.training
        # a stream gives a rank its own packs and none in the places of others; then the point is of its own
        point = self.point(policy.eval(), [pack for pack in packs if pack is not None])
        policy.train(training)
        return [pack and with_point(pack, point) for pack in packs]

    def loss(self, models: Models, pack: Pack) -> Loss:
        """Summed over answers, which are what is counted."""
        policy = models["policy"]
        reference_S = self.reference_logps(policy, pack)
        rewards_S = self.beta * (sums_of(policy.logprobs(pack), pack) - reference_S)
        good_S, num_good = goodness(pack), sum(marks(pack))
        losses_S = self.losses(rewards_S, facts_of(pack, POINT), 2 * good_S - 1)
        losses_S = losses_S * torch.where(good_S > 0, self.good_weight, self.bad_weight)
        rewards = rewards_S.detach()
        right_S = (rewards > facts_of(pack, POINT)) == (good_S > 0)
        metrics: dict[str, tuple[Tensor | float, float]] = {
            "rewards/good": ((rewards * good_S).sum(), num_good),
            "rewards/bad": ((rewards * (1 - good_S)).sum(), len(right_S) - num_good),
            "accuracy": (right_S.sum(), len(right_S)),
        }
        return Loss(losses_S.sum(), len(right_S), metrics)


def with_point(pack: Pack, point: float) -> Pack:
    """A pack whose segments know what their rewards are measured from."""
    return replace(pack, segments=[replace(one, facts=one.facts | {POINT: point}) for one in pack.segments])


def goodness(pack: Pack) -> Tensor:
    """[S] 1 of good answers, 0 of bad ones; of a pair, the better one is good."""
    return torch.tensor(marks(pack)).to(pack.input_ids.device)


def marks(pack: Pack) -> list[float]:
    """The same as plain numbers."""
    return [float(segment.facts.get("good", segment.rank == 0)) for segment in pack.segments]

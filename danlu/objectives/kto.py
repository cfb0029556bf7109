"""Kahneman-Tversky Optimization, of single answers that are good or bad: https://arxiv.org/abs/2402.01306"""

from collections.abc import Sequence
from typing import Self

import numpy as np
from pydantic import model_validator
from torch import Tensor

from danlu.data.packing import IGNORED, Pack, best_fit
from danlu.models.policy import Policy
from danlu.objectives._compared import sums_of
from danlu.objectives._rated import Rated

Row = tuple[np.ndarray, np.ndarray]
"""ids[n], trained[n]"""


class KTO(Rated):
    """Rewards are measured from how far the policy is from its reference, estimated with answers to other prompts."""

    @model_validator(mode="after")
    def _others_answers_are_not_known_before(self) -> Self:
        if self.precomputes:
            raise ValueError(
                "reference: precomputed is of the rows' own answers, and kto asks for answers to other prompts; "
                "say beginning or base"
            )
        return self

    def point(self, policy: Policy, packs: Sequence[Pack]) -> float:
        """beta times the divergence, at least 0: each prompt with the answer of the one before it."""
        others = packed([row for pack in packs for row in rows_of(pack)], max(pack.num_tokens for pack in packs))
        total = 0.0
        for pack in others:
            pack = pack.to(policy.device)
            reference_S = self.computed_logps(policy, pack)
            total += float((sums_of(policy.logprobs(pack), pack) - reference_S).sum())
        return self.beta * max(0.0, total / sum(len(pack.segments) for pack in others))

    def losses(self, rewards: Tensor, points: Tensor, signs: Tensor) -> Tensor:
        """[S]"""
        return 1 - (signs * (rewards - points)).sigmoid()


def rows_of(pack: Pack) -> list[tuple[Row, Row]]:
    """Each segment's prompt and answer; the answer begins with the first token that is trained."""
    parts = zip(pack.input_ids.cpu().split(pack.lengths), pack.targets.cpu().split(pack.lengths), strict=True)
    return [cut_at_answer(ids.numpy(), targets.numpy()) for ids, targets in parts]


def cut_at_answer(ids: np.ndarray, targets: np.ndarray) -> tuple[Row, Row]:
    """Before and from the first trained token."""
    trained = np.concatenate([[False], targets[:-1] != IGNORED])
    start = int(np.argmax(trained))
    return (ids[:start], trained[:start]), (ids[start:], trained[start:])


def packed(rows: list[tuple[Row, Row]], capacity: int) -> list[Pack]:
    """Each prompt with the answer before it, in packs."""
    answers = [answer for _, answer in rows]
    pairs = zip(rows, [answers[-1], *answers[:-1]], strict=True)
    mixed = [(np.concatenate([p[0], a[0]]), np.concatenate([p[1], a[1]])) for (p, _), a in pairs]
    return [Pack.of([mixed[n] for n in fitted]) for fitted in best_fit([len(ids) for ids, _ in mixed], capacity)]

"""Answers to one prompt go into one pack where they fit."""

import pytest

from danlu.models.kernels.shared_prefix import shared_in
from danlu.objectives._answers import Row, packs_of


def row(number: int, prompt: int, answer: int) -> Row:
    return Row([5 + number] * prompt, [3] * answer, "a", "a.jsonl", number)


@pytest.mark.parametrize("order", [1, -1])
def test_answers_to_one_prompt_stay_together(order):
    rows = [row(number % 3, 20, 4 + number // 3) for number in range(9)][::order]
    packs = packs_of(rows, 80)
    assert len(packs) == 3
    assert all(len({segment.row for segment in pack.segments}) == 1 for pack in packs)
    for pack in packs:
        shared = shared_in(pack)
        assert shared is not None
        assert pack.num_tokens - len(shared.firsts_U) >= 40


def test_a_group_that_is_too_large_is_parted():
    rows = [row(0, 20, 4) for _ in range(5)]
    packs = packs_of(rows, 60)
    assert sorted(pack.num_tokens for pack in packs) == [24, 48, 48]

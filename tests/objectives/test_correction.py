"""Answers that others have drawn: weights are those of truncated importance sampling; a ratio of 1 changes no bit."""

import math

import pytest
import torch
from pydantic import ValidationError

from danlu.objectives._answers import CORRECTION, LOGPS, Row, packs_of
from danlu.objectives._correction import Correction
from tests.objectives.conftest import gradients
from tests.objectives.test_rolled import answered, objective, shifted

NOW = [[-1.0, -2.0, -0.5], [-3.0], [-1.0, -1.0]]
DRAWN = [[-1.5, -1.5, -0.5], [-1.0], [-2.0, -2.5]]


def rows_of(logps: list[list[float]] = NOW) -> list[Row]:
    return [Row([5], [9] * len(some), "", "", n, told={LOGPS: some}) for n, some in enumerate(logps)]


def weights(**settings) -> tuple[list[list[float]], dict[str, float]]:
    rows = rows_of()
    told = Correction(**settings).correct(rows, DRAWN)
    return [row.told[CORRECTION] for row in rows], told


def test_each_token_counts_by_its_ratio_up_to_the_cap():
    found, told = weights(cap=2.0)
    e = math.e
    assert found[0] == pytest.approx([e**0.5, e**-0.5, 1.0], rel=1e-12)
    assert found[1] == pytest.approx([e**-2], rel=1e-12)
    assert found[2] == [2.0, 2.0]
    assert told == {"staleness": pytest.approx((0.5 + 0.5 + 0 + 2 + 1 + 1.5) / 6), "capped": 2 / 6}


def test_an_answer_counts_by_the_ratio_of_all_its_tokens():
    found, told = weights(cap=5.0, level="answer")
    assert found[0] == [1.0, 1.0, 1.0]
    assert found[1] == pytest.approx([math.e**-2], rel=1e-12)
    assert found[2] == [5.0, 5.0]
    assert told["capped"] == 2 / 6


def test_answers_out_of_bounds_teach_nothing():
    found, told = weights(cap=100.0, level="answer", mask_above=9.0)
    assert found[0] == [1.0, 1.0, 1.0]
    assert found[1] == pytest.approx([math.e**-2])
    assert found[2] == [0.0, 0.0]
    assert told["masked"] == 1 / 3
    low, _ = weights(mask_above=7.0)  # the second one is below 1/7
    assert low[1] == [0.0]
    with pytest.raises(ValidationError):
        Correction(mask_above=1.0)


def test_what_nobody_knows_is_not_corrected():
    rows = rows_of()
    told = Correction().correct(rows, [None, [math.nan], [-1.0, math.nan]])
    assert [row.told[CORRECTION] for row in rows] == [[1.0] * 3, [1.0], [1.0] * 2]
    assert told == {"staleness": 0.0, "capped": 0.0}


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "cispo", "rloo", "reinforce_plus_plus"])
def test_a_ratio_of_one_changes_no_bit(name):
    losses = []
    for corrects in (False, True):
        rows, policy = answered({}, name)
        if corrects:
            Correction().correct(rows, [row.told[LOGPS] for row in rows])
        loss = objective(name).loss({"policy": policy}, packs_of(shifted(rows), 1000)[0])
        losses.append((loss.total.detach().clone(), gradients(policy.model, loss.total)))
    (plain, slopes), (corrected, others) = losses
    assert torch.equal(plain, corrected)
    assert all(torch.equal(slope, others[key]) for key, slope in slopes.items())


def test_a_plan_needs_no_correction():
    rows, policy = answered({}, "grpo")
    for row in rows:
        row.told.clear()
    assert objective("grpo").loss({"policy": policy}, packs_of(rows, 1000)[0]).total == 0

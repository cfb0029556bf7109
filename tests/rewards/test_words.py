"""Rewards by rule: exact answers, patterns and lengths, on answers that people and models really write."""

import pytest
from pydantic import ValidationError

from danlu.core.errors import RewardError
from danlu.rewards import rewards
from tests.rewards.conftest import answer


def of(court, name: str, *answers, **settings) -> list[float]:
    return rewards[name](**settings).open(court)(answers)


@pytest.mark.parametrize(
    ("settings", "expected", "text", "reward"),
    [
        ({}, "42", " 42\n", 1.0),
        ({}, "42", "42.", 0.0),
        ({}, "42", "", 0.0),
        ({}, "", "", 1.0),
        ({}, "Paris", "paris", 0.0),
        ({"case": False}, "Paris", "PARIS", 1.0),
        ({"numbers": True}, "1,000", "1000.0", 1.0),
        ({"numbers": True}, "1,000", "about 1000", 0.0),
        ({"take": "#### *(.+)", "numbers": True}, "so it is\n#### 18", "9 + 9\n#### 17\nno:\n#### 18.0", 1.0),
        ({"take": "#### *(.+)"}, "so it is\n#### 18", "18", 0.0),
        ({"take": r"\d+"}, "12 and 18", "18", 1.0),
        ({"right": 2.0, "wrong": -1.0}, "a", "b", -1.0),
    ],
)
def test_an_answer_is_compared_with_the_rows_own(court, settings, expected, text, reward):
    assert of(court, "exact", answer(text, expected), **settings) == [reward]


def test_a_row_without_an_answer_cannot_be_compared(court):
    with pytest.raises(RewardError, match=r"rows.jsonl:7 has no answer of its own"):
        of(court, "exact", answer("a"))
    with pytest.raises(RewardError, match="finds nothing in the row's own answer, rows.jsonl:7"):
        of(court, "exact", answer("1", "one"), take=r"\d")


@pytest.mark.parametrize(
    ("settings", "text", "reward"),
    [
        ({"pattern": "<b>.*</b>"}, "so <b>it</b> is", 1.0),
        ({"pattern": "<b>.*</b>", "whole": True}, "so <b>it</b> is", 0.0),
        ({"pattern": "<b>.*</b>", "whole": True}, "<b>it</b>", 1.0),
        ({"pattern": "sorry", "found": -1.0, "missing": 0.5}, "", 0.5),
        ({"pattern": "sorry", "found": -1.0}, "sorry", -1.0),
    ],
)
def test_a_pattern_is_looked_for(court, settings, text, reward):
    assert of(court, "regex", answer(text), **settings) == [reward]


def test_a_wrong_pattern_is_told_before_anything_runs():
    for name, key in (("regex", "pattern"), ("exact", "take")):
        with pytest.raises(ValidationError, match="not a pattern"):
            rewards[name](**{key: "(a"})


def test_a_pattern_that_never_ends_is_stopped(court, monkeypatch):
    monkeypatch.setattr("danlu.rewards._words.PATIENCE_SECONDS", 0.05)
    with pytest.raises(RewardError, match="more than a second on the answer 'a"):
        of(court, "regex", answer("a" * 40 + "b"), pattern="(a|a)*$|(a|aa)+$", whole=True)


def test_a_length_is_good_inside_and_worse_outside(court):
    some = [answer("", ids=[0] * count) for count in (0, 1, 3, 5, 9, 10, 12, 14, 20)]
    assert of(court, "length", *some, least=3, most=10, slack=4) == [-0.75, -0.5, 0, 0, 0, 0, -0.5, -1, -1]
    assert of(court, "length", *some[-3:], most=12) == [0, -1, -1]
    with pytest.raises(ValidationError, match="least 5 is more than most 4"):
        rewards["length"](least=5, most=4)

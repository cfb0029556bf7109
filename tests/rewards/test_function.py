"""A user's own function: allowed by the recipe only, and every way it can fail names the row."""

import math
from typing import Annotated

import pytest

from danlu.core.config import load
from danlu.core.errors import RewardError, UserError
from danlu.core.parts import Config
from danlu.rewards import Reward, rewards
from danlu.rewards.base import judged
from tests.rewards.conftest import answer

CODE = """
def ones(answer): return answer.text.count("one") + (answer.expected is None)
def breaks(answer): return 1 / len(answer.text)
def nothing(answer): return None
def words(answer): return "good"
def nan(answer): return float("nan")
"""


class Recipe(Config):
    """A recipe."""

    reward: Annotated[Reward, rewards]
    allow_code: bool = False


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "rewards_of_mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def opened(court, name: str):
    tree = {"reward": {"name": "function", "function": f"rewards_of_mine:{name}"}, "allow_code": True}
    return load(Recipe, tree).reward.open(court)


def test_it_is_asked_for_each_answer(court, here):
    judge = opened(court, "ones")
    assert judged("ones", judge, [answer("one one"), answer("", "x")]) == [3.0, 0.0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("breaks", "reward rewards_of_mine:breaks failed on the answer '' to rows.jsonl:7: ZeroDivisionError"),
        ("nothing", "reward mine gave None to the answer '' to rows.jsonl:7; a reward is a finite number"),
        ("words", "reward mine gave 'good'"),
        ("nan", "reward mine gave nan"),
    ],
)
def test_what_is_no_reward_names_the_row(court, here, name, words):
    with pytest.raises(RewardError, match=words):
        judged("mine", opened(court, name), [answer("")])


def test_a_number_for_each_and_nothing_else():
    with pytest.raises(RewardError, match="1 rewards for 2 answers"):
        judged("mine", lambda answers: [1.0], [answer("a"), answer("b")])
    with pytest.raises(RewardError, match=f"gave {math.inf}"):
        judged("mine", lambda answers: [math.inf], [answer("a")])


@pytest.mark.parametrize(
    ("function", "allowed", "words"),
    [
        ("rewards_of_mine:ones", False, "it runs only when the recipe says `allow_code: true`"),
        ("rewards_of_mine", True, "a function is written my_file:my_reward"),
        ("rewards_of_mine:one", True, "rewards_of_mine has no function 'one'"),
        ("no_such_file:one", True, "no module 'no_such_file' in"),
    ],
)
def test_a_function_that_cannot_run_is_told_before_training(here, function, allowed, words):
    with pytest.raises(UserError, match=words):
        load(Recipe, {"reward": {"name": "function", "function": function}, "allow_code": allowed})

"""Pairs, ratings and prompts in every shape."""

import pytest

from danlu.data.formats import formats
from danlu.data.formats.base import Unreadable
from danlu.samples import Message, PreferencePair, Prompt, Rating
from tests.data.formats.test_recognise import read_all

Q, GOOD, BAD = Message("user", "q"), Message("assistant", "good", train=True), Message("assistant", "bad", train=True)
SAID_GOOD, SAID_BAD = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}
ASKED = {"role": "user", "content": "q"}
EARLIER = [Message("user", "q0"), Message("assistant", "a0")]

PAIRS = [
    ("chosen_rejected", {"prompt": "q", "selected": "good", "rejected": "bad"}, [Q]),
    ("chosen_rejected", {"prompt": "q", "chosen": "good", "rejected": "bad"}, [Q]),
    (
        "chosen_rejected",
        {"prompt": "q", "chosen": "good", "rejected": "bad", "system": "S"},
        [Message("system", "S"), Q],
    ),
    ("chosen_rejected", {"prompt": [ASKED], "chosen": [SAID_GOOD], "rejected": [SAID_BAD]}, [Q]),
    ("chosen_rejected", {"chosen": [ASKED, SAID_GOOD], "rejected": [ASKED, SAID_BAD]}, [Q]),
    ("chosen_rejected", {"prompt": "q", "chosen": [ASKED, SAID_GOOD], "rejected": [ASKED, SAID_BAD]}, [Q]),
    (
        "chosen_rejected",
        {
            "conversations": [
                {"from": "human", "value": "q0"},
                {"from": "gpt", "value": "a0"},
                {"from": "human", "value": "q"},
            ],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        [*EARLIER, Q],
    ),
    (
        "hh_rlhf",
        {
            "chosen": "\n\nHuman: q0\n\nAssistant: a0\n\nHuman: q\n\nAssistant: good",
            "rejected": "\n\nHuman: q0\n\nAssistant: a0\n\nHuman: q\n\nAssistant: bad",
        },
        [*EARLIER, Q],
    ),
    (
        "hh_rlhf",
        {"prompt": "\n\nHuman: q0\n\nAssistant: a0\n\nHuman: q\n\nAssistant:", "chosen": " good", "rejected": " bad"},
        [*EARLIER, Q],
    ),
    (
        "hh_rlhf",
        {
            "prompt": "\n\nHuman: q\n\nAssistant:",
            "chosen": "\n\nHuman: q\n\nAssistant: good",
            "rejected": "\n\nHuman: q\n\nAssistant: bad",
        },
        [Q],
    ),
    (
        "alpaca_ranked",
        {"instruction": "q", "input": "", "output": ["good", "bad"], "history": [["q0", "a0"]]},
        [*EARLIER, Q],
    ),
    ("alpaca_ranked", {"instruction": "q", "output": ["good", "bad", "worse", "worst"]}, [Q]),
]


@pytest.mark.parametrize(("name", "row", "prompt"), PAIRS)
def test_a_row_becomes_the_pair_that_was_meant(name, row, prompt):
    assert formats[name]().read(row) == PreferencePair(prompt, [GOOD], [BAD])


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("alpaca_ranked", {"instruction": "q", "output": ["only"]}, "fewer than two answers"),
        ("alpaca_ranked", {"instruction": "q", "output": []}, "fewer than two answers"),
        ("alpaca_ranked", {"instruction": "q", "output": ["a", None]}, "an answer is no text"),
        ("alpaca_ranked", {"instruction": "q", "output": ["a", " "]}, "an empty reply"),
        ("alpaca_ranked", {"instruction": "q", "output": ["same", "same", "other"]}, "both replies are the same"),
        ("chosen_rejected", {"prompt": "q", "chosen": "a", "rejected": None}, "no 'rejected'"),
        ("chosen_rejected", {"prompt": None, "chosen": "a", "rejected": "b"}, "'instruction' or 'conversations'"),
        ("chosen_rejected", {"prompt": "q", "chosen": 3, "rejected": "b"}, "'chosen' is int, not text"),
        ("chosen_rejected", {"prompt": "q", "chosen": [ASKED], "rejected": [ASKED, SAID_BAD]}, "not the assistant's"),
        ("hh_rlhf", {"prompt": "\n\nHuman: q", "chosen": "a", "rejected": "b"}, "does not end with Assistant:"),
        ("rated", {"messages": [ASKED], "label": True}, "no answer to judge"),
        ("rated", {"messages": [ASKED, SAID_GOOD], "label": None}, "'label' is not true or false"),
        ("prompts", {"prompt": ""}, "'prompt' is empty"),
        ("prompts", {"turns": ["q", 3]}, "'turns' is not a list of questions"),
        ("prompts", {"prompt": [ASKED, SAID_GOOD]}, "waits for no reply"),
    ],
)
def test_a_row_of_no_use_says_why(name, row, reason):
    with pytest.raises(Unreadable, match=reason):
        formats[name]().read(row)


def test_rows_of_one_answer_are_dropped_and_counted(rows_file):
    outputs = [["good", "bad"], ["only"], ["good", "bad", "worse", "worst"]]
    samples, report = read_all(rows_file([{"instruction": "q", "output": one} for one in outputs]), (PreferencePair,))
    assert [(one.chosen[0].content, one.rejected[0].content) for one in samples] == [("good", "bad")] * 2
    assert {why: (one.count, one.first[-1]) for why, one in report.dropped.items()} == {
        "fewer than two answers": (1, "2")
    }


def test_replies_begin_where_the_two_chats_part():
    shared = [ASKED, {"role": "assistant", "content": "a0"}]
    better, worse = [*shared, ASKED, SAID_GOOD], [*shared, ASKED, SAID_BAD]
    pair = formats["chosen_rejected"]().read({"chosen": better, "rejected": worse})
    assert pair == PreferencePair([Q, Message("assistant", "a0"), Q], [GOOD], [BAD])


def test_a_longer_chat_may_part_before_its_last_answer():
    row = {
        "chosen": "\n\nHuman: q\n\nAssistant: good\n\nHuman: r\n\nAssistant: more",
        "rejected": "\n\nHuman: q\n\nAssistant: bad",
    }
    pair = formats["hh_rlhf"]().read(row)
    more = [Message("user", "r"), Message("assistant", "more", train=True)]
    assert pair == PreferencePair([Q], [GOOD, *more], [BAD])


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASKED, SAID_GOOD], "label": True},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "good"}], "label": 1},
        {"prompt": "q", "completion": "good", "label": True},
        {"prompt": [ASKED], "completion": [SAID_GOOD], "label": True},
        {"instruction": "q", "input": "", "output": "good", "label": True},
    ],
)
def test_a_chat_with_a_label_is_a_rating(row):
    assert formats["rated"]().read(row) == Rating([Q, GOOD], True)
    assert formats["rated"]().read(row | {"label": False}) == Rating([Q, GOOD], False)


def test_only_the_last_answer_is_rated():
    row = {"messages": [ASKED, SAID_BAD, ASKED, SAID_GOOD], "label": True}
    assert [message.train for message in formats["rated"]().read(row).messages] == [False, False, False, True]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "q"}, Prompt([Q])),
        (
            {"prompt": [ASKED, SAID_BAD, ASKED], "system": "S"},
            Prompt([Message("system", "S"), Q, Message("assistant", "bad"), Q]),
        ),
        ({"Instruction": "q", "Skill": "Math"}, Prompt([Q])),
        ({"instruction": "q"}, Prompt([Q])),
        ({"turns": ["q", "more"], "category": "writing"}, Prompt([Q], [Message("user", "more")])),
    ],
)
def test_a_question_alone_is_a_prompt(row, prompt):
    assert formats["prompts"]().read(row) == prompt

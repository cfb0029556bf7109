"""Chats of messages: whoever's words for the roles, with or without tools, and those that go otherwise."""

import pytest

from danlu.data.formats import formats
from danlu.data.formats.base import Unreadable
from danlu.samples import Message
from tests.data.formats.test_recognise import read_all

MESSAGES = formats["messages"]
CALL = {"type": "function", "function": {"name": "map", "arguments": {"of": "here"}}}


def openai(*said):
    """A row of (role, content) messages."""
    return {"messages": [{"role": role, "content": content} for role, content in said]}


def roles_and_words(messages):
    return [(message.role, message.content) for message in messages]


def test_three_exchanges_are_three_answers_to_learn():
    said = [("human", "q1"), ("gpt", "a1"), ("human", "q2"), ("gpt", "a2"), ("human", "q3"), ("gpt", "a3")]
    chat = MESSAGES().read({"conversations": [{"from": who, "value": words} for who, words in said]})
    assert [message.content for message in chat.messages if message.train] == ["a1", "a2", "a3"]
    assert [message.content for message in chat.messages if not message.train] == ["q1", "q2", "q3"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "an empty conversation"),
        ({"messages": None}, "an empty conversation"),
        ({"messages": 3}, "the messages are int, not a list"),
        ({"messages": [3]}, "a message is int, not a mapping"),
        (openai(("wizard", "x")), "unknown role 'wizard'"),
        (openai((None, "x")), "unknown role None"),
        (openai(("user", 3)), "holds int, not text"),
        (openai(("assistant", None)), "holds NoneType, not text"),
        (openai(("user", [{"type": "image_url", "image_url": {}}])), "holds 'image_url'; only text is read"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, "a tool call has no name"),
        ({"messages": [{"role": "assistant", "tool_calls": 3}]}, "'tool_calls' is not a list"),
        (openai(("user", "q")) | {"tools": "{"}, "'tools' is not JSON"),
    ],
)
def test_a_row_of_no_use_says_why(row, reason):
    with pytest.raises(Unreadable, match=reason):
        MESSAGES().read(row)


def test_a_turn_may_ask_not_to_be_trained():
    answers = [{"weight": 0}, {"train": False}, {"weight": 1}, {"weight": None}]
    row = {"messages": [{"role": "assistant", "content": "a", **asked} for asked in answers]}
    assert [message.train for message in MESSAGES().read(row).messages] == [False, False, True, True]


def test_parts_of_text_are_one_text():
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    assert MESSAGES().read(openai(("user", parts))).messages[0].content == "one two"


@pytest.mark.parametrize(
    "call",
    [
        {"tool_calls": [{"id": "c1", "type": "function", "function": {"name": "map", "arguments": '{"of": "here"}'}}]},
        {"tool_calls": [{"id": "c1", "function": {"name": "map", "arguments": {"of": "here"}}}]},
    ],
)
def test_a_message_may_only_call_a_tool(call):
    row = {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": None, **call},
            {"role": "tool", "content": "a map", "tool_call_id": "c1"},
            {"role": "assistant", "content": "a"},
        ],
        "tools": [{"type": "function", "function": {"name": "map"}}],
    }
    chat = MESSAGES().read(row)
    assert chat.messages[1] == Message("assistant", "", True, {"tool_calls": [{"id": "c1", **CALL}]})
    assert chat.messages[2] == Message("tool", "a map", facts={"tool_call_id": "c1"})
    assert chat.facts == {"tools": row["tools"]}


def test_the_older_words_for_tools_mean_the_same():
    call = '{"name": "map", "arguments": {"of": "here"}}'
    sharegpt = {
        "conversations": [
            {"from": "human", "value": "q"},
            {"from": "function_call", "value": call},
            {"from": "observation", "value": "a map"},
            {"from": "gpt", "value": "a"},
        ],
        "tools": '[{"name": "map"}]',
    }
    openai_once = {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": None, "function_call": {"name": "map", "arguments": '{"of": "here"}'}},
            {"role": "function", "content": "a map"},
            {"role": "assistant", "content": "a"},
        ],
        "tools": [{"name": "map"}],
    }
    expected = [
        Message("user", "q"),
        Message("assistant", "", True, {"tool_calls": [CALL]}),
        Message("tool", "a map"),
        Message("assistant", "a", True),
    ]
    assert MESSAGES().read(sharegpt).messages == expected
    assert MESSAGES().read(openai_once).messages == expected
    assert MESSAGES().read(sharegpt).facts == MESSAGES().read(openai_once).facts == {"tools": [{"name": "map"}]}


def test_a_call_that_is_no_json_stays_words():
    row = {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": "map(here)"}]}
    assert MESSAGES().read(row).messages[1] == Message("assistant", "map(here)", True)


def test_other_words_for_the_keys_and_roles_are_settings():
    row = {"talk": [{"who": "Student", "says": "q"}, {"who": "Teacher", "says": "a"}, {"who": "user", "says": "q"}]}
    settings = {"list": "talk", "role": "who", "content": "says", "roles": {"Student": "user", "Teacher": "assistant"}}
    chat = MESSAGES(**settings).read(row)
    assert roles_and_words(chat.messages) == [("user", "q"), ("assistant", "a"), ("user", "q")]
    with pytest.raises(ValueError, match="teacher"):
        MESSAGES(roles={"Teacher": "teacher"})


def test_a_system_prompt_beside_the_list_comes_first_unless_the_list_has_one():
    beside = openai(("user", "q"), ("assistant", "a")) | {"system": "S"}
    inside = openai(("system", "T"), ("user", "q")) | {"system": "S"}
    assert roles_and_words(MESSAGES().read(beside).messages)[0] == ("system", "S")
    assert roles_and_words(MESSAGES().read(inside).messages) == [("system", "T"), ("user", "q")]


def test_chats_that_go_otherwise_are_mended_and_told_and_nobody_speaks_for_the_other(rows_file):
    rows = [
        openai(("assistant", "hello"), ("user", "q"), ("assistant", "a")),
        openai(("system", "S"), ("assistant", "hello"), ("assistant", "hi"), ("user", "q"), ("assistant", "a")),
        openai(("user", "q"), ("assistant", "a"), ("user", "more"), ("user", "now")),
        openai(("user", "q"), ("assistant", ""), ("user", "r"), ("assistant", "a")),
        openai(("user", "q"), ("assistant", "a"), ("tool", "x")),
        openai(("user", "q")),
        openai(),
        openai(("assistant", "a")),
        openai(("user", "q"), ("assistant", " ")),
        openai(("system", "S")),
    ]
    samples, report = read_all(rows_file(rows))
    asked = [("user", "q"), ("assistant", "a")]
    assert [roles_and_words(one.messages) for one in samples] == [
        asked,
        [("system", "S"), *asked],
        asked,
        [("user", "q"), ("assistant", ""), ("user", "r"), ("assistant", "a")],
        asked,
    ]
    assert [message.train for message in samples[3].messages] == [False, False, False, True]
    assert {what: (found.count, found.first.rpartition(":")[2]) for what, found in report.changed.items()} == {
        "an assistant's turn before any question was taken off": (2, "1"),
        "a last question without an answer was taken off": (2, "3"),
        "an empty answer is not trained": (1, "4"),
    }
    assert {what: (found.count, found.first.rpartition(":")[2]) for what, found in report.dropped.items()} == {
        "no answer to learn from": (2, "6"),
        "an empty conversation": (1, "7"),
        "no question": (1, "8"),
        "an empty answer": (1, "9"),
    }

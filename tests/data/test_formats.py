"""Each shape of row is known by its keys alone, and becomes the sample that was meant."""

import pytest

from danlu.core.errors import DataError
from danlu.data.formats import formats
from danlu.data.formats.base import Unreadable
from danlu.data.recognise import format_of
from danlu.data.sources import Source, labels, listed
from danlu.samples import Conversation, Document, Message, PreferencePair

USER, ANSWER = Message("user", "q"), Message("assistant", "a", train=True)
SHAPES = [
    ("alpaca", {"instruction": "q", "input": "", "output": "a"}, [USER, ANSWER]),
    ("alpaca", {"instruction": "q", "input": "i", "output": "a"}, [Message("user", "q\ni"), ANSWER]),
    (
        "alpaca",
        {"instruction": "q", "output": "a", "history": [["q0", "a0"]], "system": "S"},
        [Message("system", "S"), Message("user", "q0"), Message("assistant", "a0", train=True), USER, ANSWER],
    ),
    (
        "messages",
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        [USER, ANSWER],
    ),
    ("messages", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, [USER, ANSWER]),
    ("input_target", {"input": "q", "target": "a"}, [USER, ANSWER]),
    ("input_target", [{"input": "q", "target": "a"}, {"input": "q", "target": "a"}], [USER, ANSWER, USER, ANSWER]),
    ("question_answer", {"question": "q", "answer": "a"}, [USER, ANSWER]),
]


@pytest.mark.parametrize(("name", "row", "messages"), SHAPES)
def test_a_row_becomes_the_chat_that_was_meant(name, row, messages):
    fitting = [other for other in formats if formats[other].fits(row) and formats[other].gives is Conversation]
    assert fitting == [name]
    assert formats[name]().read(row).messages == messages


def test_text_rows_become_documents():
    assert formats["text"]().read({"text": "words"}) == Document("words")
    assert formats["text"]().read({"title": "T", "content": "words"}) == Document("T words")


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("alpaca", {"instruction": "q", "input": "", "output": ""}, "'output' is empty"),
        ("alpaca", {"instruction": "", "input": "", "output": "a"}, "'instruction' is empty"),
        ("alpaca", {"instruction": "q", "output": "a", "history": [["q"]]}, "'history' is not a list"),
        ("messages", {"messages": []}, "an empty conversation"),
        ("messages", {"messages": [{"role": "wizard", "content": "x"}]}, "unknown role 'wizard'"),
        ("messages", {"messages": [{"role": "user", "content": 3}]}, "holds int, not text"),
        ("input_target", {"input": "q", "target": 3}, "'target' is int, not text"),
        ("text", {"text": "  "}, "a blank text"),
    ],
)
def test_a_row_of_no_use_says_why(name, row, reason):
    with pytest.raises(Unreadable, match=reason):
        formats[name]().read(row)


def test_a_turn_may_ask_not_to_be_trained():
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}]}
    assert not formats["messages"]().read(row).messages[1].train


def test_tools_reach_the_template():
    row = {
        "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
        "tools": '[{"name": "t"}]',
    }
    assert formats["messages"]().read(row).facts == {"tools": [{"name": "t"}]}


def test_the_format_is_known_by_the_rows_and_not_by_the_path(rows_file):
    path = rows_file(
        [{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}], "alpaca_data.jsonl"
    )
    assert formats.name_of(format_of(Source(path=str(path)), (Conversation,))) == "messages"


def test_rows_of_no_known_shape_name_their_keys_and_the_shapes(rows_file):
    path = rows_file([{"frage": "q", "antwort": "a"}])
    with pytest.raises(
        DataError, match=r"rows\.jsonl:1: a row of keys frage, antwort fits no format(.|\n)*alpaca: \{instruction"
    ):
        format_of(Source(path=str(path)), (Conversation,))


def test_rows_for_another_objective_are_refused_in_words(rows_file):
    path = str(rows_file([{"text": "words"}]))
    with pytest.raises(DataError, match="gives Document; this objective learns from Conversation"):
        format_of(Source(path=path), (Conversation,))
    with pytest.raises(DataError, match="learns from PreferencePair"):
        format_of(Source(path=path, format="text"), (PreferencePair,))


def test_rows_of_two_shapes_ask_for_a_choice(rows_file):
    path = rows_file([{"instruction": "q", "output": "a", "messages": [{"role": "user", "content": "q"}]}])
    with pytest.raises(DataError, match="alpaca and messages; say which with format: alpaca"):
        format_of(Source(path=str(path)), (Conversation,))


def test_an_empty_file_is_an_error(rows_file):
    with pytest.raises(DataError, match="no rows in it"):
        format_of(Source(path=str(rows_file([]))), (Conversation,))


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("x/a.jsonl", ["a"]),
        (["x/a.jsonl", "y/a.jsonl.zst"], ["a", "a-2"]),
        ({"path": "x/a.jsonl", "name": "mine"}, ["mine"]),
        ({"one": "x/a.jsonl", "two": {"path": "y/a.jsonl.zst", "max_rows": 3}}, ["one", "two"]),
    ],
)
def test_sources_are_written_in_any_of_four_ways(given, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("x/a.jsonl", "y/a.jsonl.zst"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).touch()
    assert labels([Source(**one) for one in listed(given)]) == names

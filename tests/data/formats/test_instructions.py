"""Questions and answers under every name become the chat that was meant."""

import json

import pytest

from danlu.data.formats import formats
from danlu.data.formats.base import Unreadable
from danlu.data.reading import samples_of
from danlu.data.report import SourceReport
from danlu.data.sources import Source
from danlu.samples import Conversation, Message
from tests.data.formats.test_recognise import read_all

USER, ANSWER = Message("user", "q"), Message("assistant", "a", train=True)
EARLIER = [Message("user", "q0"), Message("assistant", "a0", train=True)]
SHAPES = [
    ("alpaca", {"instruction": "q", "input": "", "output": "a"}, [USER, ANSWER]),
    ("alpaca", {"instruction": "q", "output": "a"}, [USER, ANSWER]),
    ("alpaca", {"instruction": "q", "input": "i", "output": "a"}, [Message("user", "q\ni"), ANSWER]),
    ("alpaca", {"instruction": "", "input": "q", "output": "a"}, [USER, ANSWER]),
    (
        "alpaca",
        {"instruction": "q", "output": "a", "history": [["q0", "a0"]], "system": "S"},
        [Message("system", "S"), *EARLIER, USER, ANSWER],
    ),
    (
        "belle_chat",
        {"instruction": "Human: q0\nAssistant: a0\nHuman: q\nAssistant:", "output": "a"},
        [*EARLIER, USER, ANSWER],
    ),
    ("dolly", {"instruction": "q", "context": "c", "response": "a"}, [Message("user", "q\nc"), ANSWER]),
    ("input_target", {"input": "q", "target": "a"}, [USER, ANSWER]),
    ("input_target", {"instruction": "i", "input": "q", "target": "a"}, [Message("user", "i q"), ANSWER]),
    ("input_target", [{"input": "q", "target": "a"}, {"input": "q", "target": "a"}], [USER, ANSWER, USER, ANSWER]),
    ("question_answer", {"question": "q", "answer": "a"}, [USER, ANSWER]),
    ("flan", {"inputs": "q", "targets": "a"}, [USER, ANSWER]),
    ("context_target", {"context": "q", "target": "a"}, [USER, ANSWER]),
    ("user_assistant", {"user": "q", "assistant": "a", "system": "S"}, [Message("system", "S"), USER, ANSWER]),
    ("prompt_completion", {"prompt": "q", "completion": "a<|endoftext|>"}, [USER, ANSWER]),
    (
        "prompt_completion",
        {
            "prompt": [
                {"role": "user", "content": "q0"},
                {"role": "assistant", "content": "a0"},
                {"role": "user", "content": "q"},
            ],
            "completion": [{"role": "assistant", "content": "a"}],
        },
        [Message("user", "q0"), Message("assistant", "a0"), USER, ANSWER],
    ),
    (
        "multiple_choice",
        {"passage": "p", "question": "q", "options": ["(A)x", "(B)y"], "label": "B"},
        [Message("user", "p\nq\n(A)x\n(B)y"), Message("assistant", "B", train=True)],
    ),
    ("turns", {"conversations": ["q0", "a0", "q", "a"]}, [*EARLIER, USER, ANSWER]),
    ("turns", {"data": ["q", "a"]}, [USER, ANSWER]),
]


@pytest.mark.parametrize(("name", "row", "messages"), SHAPES)
def test_a_row_becomes_the_chat_that_was_meant(name, row, messages):
    assert formats[name]().read(row).messages == messages


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("alpaca", {"instruction": "q", "input": "", "output": ""}, "'output' is empty"),
        ("alpaca", {"instruction": "", "input": "", "output": "a"}, "'instruction' is empty"),
        ("alpaca", {"instruction": "q", "output": "a", "history": [["q"]]}, "'history' is not a list"),
        ("alpaca", {"instruction": "q", "output": "a", "history": 3}, "'history' is not a list"),
        ("alpaca", {"instruction": "q", "output": "a", "system": 3}, "'system' is int, not text"),
        ("dolly", {"instruction": "q", "context": 3, "response": "a"}, "'context' is int, not text"),
        ("input_target", {"input": "q", "target": 3}, "'target' is int, not text"),
        ("input_target", [], "an empty conversation"),
        ("self_instruct", {"instruction": "q", "instances": []}, "'instances' is not a list"),
        ("prompt_completion", {"prompt": "q", "completion": "<|endoftext|>"}, "'completion' is empty"),
        ("multiple_choice", {"question": "q", "options": [1], "label": "A"}, "'options' is not a list of texts"),
        ("multiple_choice", {"question": "q", "options": ["(A)x"], "label": None}, "no 'label'"),
        ("turns", {"conversations": ["q", 3]}, "not a list of texts"),
        ("turns", {"conversations": []}, "an empty conversation"),
        ("belle_chat", {"instruction": "Hm.\nHuman: q\nAssistant:", "output": "a"}, "does not begin with Human"),
    ],
)
def test_a_row_of_no_use_says_why(name, row, reason):
    with pytest.raises(Unreadable, match=reason):
        formats[name]().read(row)


def test_history_and_the_current_turn_are_that_many_exchanges():
    history = [["q1", "a1"], ["q2", "a2"]]
    chat = formats["alpaca"]().read({"instruction": "q3", "input": "", "output": "a3", "history": history})
    assert [(message.content, message.train) for message in chat.messages] == [
        ("q1", False),
        ("a1", True),
        ("q2", False),
        ("a2", True),
        ("q3", False),
        ("a3", True),
    ]


def test_raw_and_flattened_turns_give_the_same_chat():
    said = ["q1", "a1", "q2", "a2"]
    flat = {"instruction": "q2", "input": "", "output": "a2", "history": [["q1", "a1"]]}
    assert formats["turns"]().read({"conversations": said}) == formats["alpaca"]().read(flat)


def test_only_a_speakers_name_at_a_turns_start_begins_a_turn():
    row = {"instruction": "Human: who said Human: first?\nAssistant: I, an Assistant: me.\nHuman: q\nAssistant:"}
    chat = formats["belle_chat"]().read({**row, "output": "a"})
    assert [message.content for message in chat.messages] == [
        "who said Human: first?",
        "I, an Assistant: me.",
        "q",
        "a",
    ]
    assert [message.train for message in chat.messages] == [False, True, False, True]


def test_an_instruction_about_humans_is_an_instruction():
    row = {"instruction": "Human: Hello\nGo on with this chat.", "output": "Assistant: Hi"}
    assert not formats["belle_chat"].fits(row)


def test_belle_rows_that_go_on_without_speakers_are_refused_or_read_by_name(rows_file):
    """An Alpaca file may hold a chat in its instruction; a file of such chats is another format."""
    chat, plain = {"instruction": "Human: q\nAssistant:", "output": "a"}, {"instruction": "q", "output": "a"}
    samples, _ = read_all(rows_file([plain, chat]))
    assert [one.messages[0].content for one in samples] == ["q", "Human: q\nAssistant:"]
    samples, _ = read_all(rows_file([chat, chat]))
    assert [one.messages[0].content for one in samples] == ["q", "q"]


def test_exchanges_are_one_more_than_the_history_and_an_odd_tail_is_told(rows_file):
    samples, report = read_all(
        rows_file([{"data": ["q1", "a1", "q2", "a2"]}, {"data": ["q1", "a1", "q2"]}, {"data": ["q"]}])
    )
    assert [[message.content for message in one.messages] for one in samples] == [
        ["q1", "a1", "q2", "a2"],
        ["q1", "a1"],
    ]
    assert {what: found.first[-1] for what, found in report.changed.items()} == {
        "a last question without an answer was taken off": "2"
    }
    assert {what: found.first[-1] for what, found in report.dropped.items()} == {"no answer to learn from": "3"}


def test_each_instance_of_a_seed_task_is_a_chat():
    row = {"instruction": "q", "instances": [{"input": "", "output": "a"}, {"input": "i", "output": "b"}]}
    chats = formats["self_instruct"]().read(row)
    assert [[message.content for message in chat.messages] for chat in chats] == [["q", "a"], ["q\ni", "b"]]


def test_several_samples_of_a_row_share_its_place_and_its_count(loaded, rows_file):
    row = {"instruction": "q", "instances": [{"input": "", "output": "a"}, {"input": "i", "output": "b"}]}
    data = loaded(sources={"seeds": str(rows_file([row, row]))})
    report = data.report.sources["seeds"]
    assert (report.rows_in, report.rows_out, report.format) == (2, 4, "self_instruct")
    assert [data.sets[0].place(n) for n in range(4)] == [(0, 1), (0, 1), (0, 2), (0, 2)]


def test_a_line_separator_inside_a_value_is_no_end_of_a_row(tmp_path):
    rows = [{"instruction": "one\u2028two\u2029three", "input": "", "output": "a\u2028b"}] * 3
    for name, text in {
        "lines.json": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        "list.json": json.dumps(rows, ensure_ascii=False),
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        samples, _ = read_all(tmp_path / name)
        assert [one.messages[0].content for one in samples] == ["one\u2028two\u2029three"] * 3


def test_rows_in_are_rows_read_where_the_input_is_empty(rows_file):
    rows = [{"instruction": f"q{n}", "input": "", "output": "a"} for n in range(9)]
    assert len(read_all(rows_file(rows))[0]) == 9


def test_the_words_between_instruction_and_input_are_a_setting():
    source = Source(path="x.jsonl", format={"name": "alpaca", "joined_by": ""})
    row = {"instruction": "q", "input": "i", "output": "a"}
    [chat] = samples_of(source, source.format, (0, 1), row, SourceReport())
    assert isinstance(chat, Conversation)
    assert chat.messages[0].content == "qi"

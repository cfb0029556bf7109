"""Whatever a row holds, it is a sample or it is dropped for a reason."""

from hypothesis import given, settings
from hypothesis import strategies as st

from danlu.data.formats import formats
from danlu.data.formats.base import Unreadable
from danlu.data.tidy import tidy
from danlu.samples import Conversation, Sample
from tests.data.formats.rows import ROWS

KEYS = sorted({key for rows in ROWS.values() for row in rows for key in (row if isinstance(row, dict) else row[0])})
WORDS = ["", " ", "q", "Human: q\nAssistant:", "\n\nHuman: q\n\nAssistant: a", "ready_for_export", "\ud800"]
LEAVES = st.none() | st.booleans() | st.integers(0, 3) | st.floats(0, 1) | st.sampled_from(WORDS)
INNER = ["role", "content", "from", "value", "text", "replies", "tool_calls", "function", "arguments", "name", "input"]
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*INNER, "output"]), inner, max_size=4),
    max_leaves=8,
)
EACH = [(name, row) for name, rows in ROWS.items() for row in rows]


def broken(row, data):
    """A good row of which one value, somewhere inside, is another."""
    if isinstance(row, dict) and row and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(row)))
        return row | {key: broken(row[key], data)}
    if isinstance(row, list) and row and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(row) - 1))
        return [*row[:at], broken(row[at], data), *row[at + 1 :]]
    return data.draw(VALUES)


def check(name, row):
    """Read a row as one format; nothing but a reason may stop it."""
    kind = formats[name]
    assert kind.fits(row) in (True, False)
    if not isinstance(row, dict | list):
        return
    try:
        samples = kind().samples(row) if kind.fits(row) else []
    except Unreadable:
        return
    for sample in samples:
        assert isinstance(sample, Sample)
        try:
            tidy(sample, "S")
        except Unreadable:
            continue
        if isinstance(sample, Conversation):
            assert [message.role for message in sample.messages].index("assistant") > 0
            assert any(message.train and message.role == "assistant" for message in sample.messages)
            assert sample.messages[-1].role == "assistant"


@settings(deadline=None)
@given(st.sampled_from(EACH), st.data())
def test_a_row_with_something_odd_in_it_is_read_or_says_why(named, data):
    name, row = named
    check(name, broken(row, data))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4) | VALUES)
def test_any_row_is_read_or_says_why(row):
    for name in formats:
        check(name, row)

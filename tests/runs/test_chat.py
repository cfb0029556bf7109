import pytest

from danlu.core.errors import UserError
from danlu.generate.base import GenerationConfig
from danlu.runs.chat import Talk, chat, converse, without_control
from danlu.samples import Message


class Echo:
    """Answers with what it was told, word by word."""

    def __init__(self, breaks_after=None, error=KeyboardInterrupt):
        self.chats, self.breaks_after, self.error = [], breaks_after, error

    def stream(self, chat, config):
        self.chats.append(list(chat))
        for n, word in enumerate(chat[-1].content.split()):
            if n == self.breaks_after:
                raise self.error("stop")
            yield f"{word} "


def talk(*lines, model=None, system=None):
    """A talk of these lines, then the end of the input."""
    model = model or Echo()
    said = iter(lines)

    def ask(prompt):
        try:
            return next(said)
        except StopIteration:
            raise EOFError from None

    converse(Talk(model, system, GenerationConfig()), ask)
    return model


def test_history_is_kept_cleared_and_left(capsys):
    model = talk("one", "two", "clear", "three", "exit", "four", system="be kind")
    assert [len(chat) for chat in model.chats] == [2, 4, 2]
    assert model.chats[1] == [
        Message("system", "be kind"),
        Message("user", "one"),
        Message("assistant", "one "),
        Message("user", "two"),
    ]
    out = capsys.readouterr().out
    assert "History has been removed." in out
    assert "Assistant: three" in out
    assert "four" not in out


def test_empty_lines_are_not_asked():
    assert talk("", "   ").chats == []


def test_an_interrupt_stops_the_answer_and_not_the_talk(capsys):
    model = Echo(breaks_after=2)
    talk("a b c d", "e", model=model)
    assert "Assistant: a b  [stopped]" in capsys.readouterr().out
    assert model.chats[1][1] == Message("assistant", "a b ")


def test_an_answer_that_cannot_be_given_is_said_and_forgotten(capsys):
    model = Echo(breaks_after=0, error=UserError)
    talk("too long", "again", model=model)
    assert "[stop]" in capsys.readouterr().out
    assert len(model.chats[1]) == 1


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("a\rb\x08\x9b2J", "ab2J"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("\u202egnp.exe", "gnp.exe"),
        ("丹🔥", "丹🔥"),
    ],
)
def test_control_characters_are_not_shown(written, shown):
    assert "".join(without_control([written])) == shown
    assert "\x1b" not in "".join(without_control(list(written)))


def test_a_script_gets_the_answer_and_nothing_else(smollm2, capsys):
    chat(smollm2, "What is the capital of France?", config=GenerationConfig(max_tokens=16))
    assert capsys.readouterr().out == "The capital of France is Paris.\n"


def test_a_system_prompt_is_heard(tiny, capsys):
    config = GenerationConfig(max_tokens=8)
    chat(tiny("llama"), "hi", config=config)
    without = capsys.readouterr().out
    chat(tiny("llama"), "hi", system="You are a helpful assistant.", config=config)
    assert without != capsys.readouterr().out

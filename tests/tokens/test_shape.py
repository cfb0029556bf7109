"""A chat written by its shape is what Jinja writes, and a template that looks into the words is left to Jinja."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment, TemplateError

from danlu.models.builtin.tiny_tokenizer import tiny_tokenizer
from danlu.samples import Message
from danlu.tokens.opaque import looks
from danlu.tokens.templates import templates
from danlu.tokens.templates.base import Scribe

SCRIBES = [templates[name]().scribe(tiny_tokenizer()) for name in templates if name != "jinja"]
said = st.sampled_from(["", " ", "a", " b ", "c\n", "{{ d }}", "<|im_end|>", "\uf8f30\uf8f4", "</think>x"]) | st.text()
chats = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant", "tool"]), said), min_size=1, max_size=5
)


def written(write, *given):
    try:
        return write(*given)
    except TemplateError as error:
        return str(error)


@given(chats=st.lists(chats, min_size=1, max_size=3), invite=st.booleans())
def test_every_template_writes_what_jinja_writes(chats, invite):
    for scribe in SCRIBES:
        for chat in chats:
            mine = written(lambda: scribe.write(chat, invite=invite))  # noqa: B023
            assert mine == written(scribe._render, chat, invite)


def body(inner: str) -> str:
    return "{% for message in messages %}" + inner + "{% endfor %}"


@pytest.mark.parametrize(
    ("jinja", "want"),
    [
        (body("{{ message['role'] + message['content'] ~ eos }}"), "never"),
        (body("{{ message.content | trim }}"), "at the ends"),
        (body("{{ message.content.strip() }}"), "at the ends"),
        (body("{% set c = message.content %}{{ c }}"), "never"),
        ("{% set all = messages[1:] %}" + body("{{ message.content }}").replace("in messages", "in all"), "never"),
        ("{{ messages[0]['content'] if messages[0].role == 'system' else 'none' }}", "never"),
        (body("{% if message.content and not loop.last %}x{% endif %}{{ message.content }}"), "never"),
        (body("{{ message.content is string and message.content }}"), "never"),
        ("{{ messages | length }}", "never"),
        (body("{{ message.content.strip('x') }}"), "inside"),
        (body("{{ message.content.split('x')[0] }}"), "inside"),
        (body("{{ message.content | upper }}"), "inside"),
        (body("{{ message.content[0] }}"), "inside"),
        (body("{% if 'x' in message.content %}x{% endif %}"), "inside"),
        (body("{% if message['content'] == 'x' %}x{% endif %}"), "inside"),
        (body("{% set c = message.content %}{% if c == 'x' %}x{% endif %}"), "inside"),
        (body("{% if c == 'x' %}x{% endif %}{% set c = message.content %}"), "inside"),
        ("{% set ns = namespace(c='') %}" + body("{% set ns.c = message.content %}") + "{{ ns.c | upper }}", "inside"),
        (body("{{ message }}"), "inside"),
        (body("{{ message.get('content') }}"), "inside"),
        (body("{% for key in message %}{{ message[key] }}{% endfor %}"), "inside"),
        (body("{{ loop.previtem.content }}"), "inside"),
        (body("{% for letter in message.content %}{{ letter }}{% endfor %}"), "inside"),
        (body("{% filter upper %}{{ message.content }}{% endfilter %}"), "inside"),
        (body("{% set c %}{{ message.content }}{% endset %}{{ c | upper }}"), "inside"),
        ("{% macro m(x) %}{{ x | upper }}{% endmacro %}" + body("{{ m(message.content) }}"), "inside"),
        ("{% for m in messages if m.content == 'x' %}{{ m.content }}{% endfor %}", "inside"),
        ("{{ messages | tojson }}", "inside"),
        ("{{ messages[0] == messages[1] }}", "inside"),
        ("{{ messages | map(attribute='content') | join }}", "inside"),
    ],
)
def test_how_far_a_template_looks_into_the_words(jinja, want):
    assert looks(Environment().parse(jinja)) == want


def test_a_shape_is_learnt_once():
    scribe = Scribe(body("<{{ message.role }}>{{ message.content }}"), {})
    first = [scribe.write([Message("user", words)]) for words in ("a", "b", "")]
    assert first == ["<user>a", "<user>b", "<user>"]
    assert len(scribe._shapes.known) == 2

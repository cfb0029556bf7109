"""Baichuan chat: reserved tokens instead of words."""

from danlu.tokens.templates.base import Template


class Baichuan(Template):
    """Baichuan chat: <reserved_102> before a question, <reserved_103> before an answer."""

    jinja = (
        "{% for message in messages %}{% set content = message['content'] %}"
        "{% if message['role'] == 'system' %}{{ content }}"
        "{% elif message['role'] == 'user' %}{{ '<reserved_102>' + content + '<reserved_103>' }}"
        "{% else %}{{ content + eos_token }}{% endif %}"
        "{% endfor %}"
    )

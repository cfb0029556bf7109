"""Ziya: <human> and <bot>."""

from danlu.tokens.templates._turns import turns
from danlu.tokens.templates.base import Template


class Ziya(Template):
    """Ziya: <human> and <bot>."""

    jinja = turns("<human>:{{ content }}\n<bot>:", separator="\n")

"""Vicuna 1.1: USER and ASSISTANT on one line."""

from danlu.tokens.templates._turns import POLITE, turns
from danlu.tokens.templates.base import Template


class Vicuna(Template):
    """Vicuna 1.1: USER and ASSISTANT on one line."""

    jinja = turns("USER: {{ content }} ASSISTANT: ", system=POLITE)

"""Aquila: Human and Assistant, parted by ###."""

from danlu.tokens.templates._turns import POLITE, turns
from danlu.tokens.templates.base import Template


class Aquila(Template):
    """Aquila: Human and Assistant, parted by ###."""

    jinja = turns(
        "Human: {{ content }}###Assistant: ",
        separator="###",
        system=POLITE.replace("user", "human"),
    )

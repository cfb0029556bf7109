"""BELLE: Human and Belle."""

from danlu.tokens.templates._turns import turns
from danlu.tokens.templates.base import Template


class Belle(Template):
    """BELLE: Human and Belle."""

    jinja = turns("Human: {{ content }}\n\nBelle: ", separator="\n\n")

"""BiLLa: Human and Assistant, without a system prompt of its own."""

from danlu.tokens.templates._turns import turns
from danlu.tokens.templates.base import Template


class Billa(Template):
    """BiLLa: Human and Assistant, without a system prompt of its own."""

    jinja = turns("Human: {{ content }}\nAssistant: ", separator="\n")

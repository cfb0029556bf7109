"""Human and Assistant, for models without special tokens."""

from danlu.tokens.templates._turns import POLITE, turns
from danlu.tokens.templates.base import Template


class Default(Template):
    """Human and Assistant, for models without special tokens."""

    jinja = turns("Human: {{ content }}\nAssistant: ", separator="\n", system=POLITE)

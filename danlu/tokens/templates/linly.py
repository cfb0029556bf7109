"""Linly: User and Bot."""

from danlu.tokens.templates._turns import turns
from danlu.tokens.templates.base import Template


class Linly(Template):
    """Linly: User and Bot."""

    jinja = turns("User: {{ content }}\nBot: ", separator="\n")

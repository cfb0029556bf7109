"""The question as it is, without any marker."""

from danlu.tokens.templates._turns import turns
from danlu.tokens.templates.base import Template


class Vanilla(Template):
    """The question as it is, without any marker."""

    jinja = turns("{{ content }}", prefix="")

"""Rows of {context, target}: all that was said before, and what is to be said next."""

from danlu.data.formats._pair import Pair


class ContextTarget(Pair):
    """A context and what follows it."""

    shape = "{context, target}"
    asks, answers = "context", "target"

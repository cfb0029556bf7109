"""Rows of {inputs, targets}, as the FLAN collection has them: https://github.com/google-research/FLAN"""

from danlu.data.formats._pair import Pair


class Flan(Pair):
    """A task and what solves it."""

    shape = "{inputs, targets}"
    asks, answers = "inputs", "targets"

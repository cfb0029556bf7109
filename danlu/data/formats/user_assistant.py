"""Rows of {user, assistant}: one exchange."""

from danlu.data.formats._pair import Pair


class UserAssistant(Pair):
    """What a user said and what the assistant answered."""

    shape = "{user, assistant}"
    asks, answers = "user", "assistant"

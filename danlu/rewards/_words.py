"""Rewards that look for a pattern in an answer's words."""

import regex
from pydantic_core import PydanticCustomError

from danlu.core.errors import RewardError
from danlu.rewards.base import Answer, shown

PATIENCE_SECONDS = 1.0
"""a pattern may take exponential time over words that somebody else wrote"""


def compiled(pattern: str) -> str:
    """The pattern, if it is one."""
    try:
        regex.compile(pattern)
    except regex.error as error:
        raise PydanticCustomError("pattern", "not a pattern: {error}", {"error": str(error)}) from error
    return pattern


def matches(pattern: str, text: str, answer: Answer, *, whole: bool = False) -> "list[regex.Match[str]]":
    """Every match, or the one of the whole text; a `RewardError` where it takes too long."""
    try:
        if whole:
            found = regex.fullmatch(pattern, text, timeout=PATIENCE_SECONDS)
            return [found] if found else []
        return list(regex.finditer(pattern, text, timeout=PATIENCE_SECONDS))
    except TimeoutError as error:
        raise RewardError(f"the pattern {pattern!r} takes more than a second on {shown(answer)}") from error

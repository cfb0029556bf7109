"""The row's own answer, word for word, or as far as a pattern takes it out of both."""

from typing import Annotated

from pydantic import AfterValidator

from danlu.core.errors import RewardError
from danlu.rewards._words import compiled, matches
from danlu.rewards.base import Answer, Court, Judge, Reward


class Exact(Reward):
    """One number for the expected answer and another for everything else; blanks around an answer do not count."""

    take: Annotated[str, AfterValidator(compiled)] | None = None
    """a pattern: of both answers its last match is compared, or that match's first group; an answer without is wrong"""
    numbers: bool = False
    """1,000 and 1000.0 are equal"""
    case: bool = True
    """capital letters are other letters"""
    right: float = 1.0
    """what the expected answer is worth"""
    wrong: float = 0.0
    """what any other answer is worth"""

    def open(self, court: Court) -> Judge:
        """Nothing has to be loaded."""
        return lambda answers: [self.judge(answer) for answer in answers]

    def judge(self, answer: Answer) -> float:
        """One answer."""
        if answer.expected is None:
            raise RewardError(
                f"reward exact: the row {answer.where} has no answer of its own to compare with; give rows with one"
            )
        expected = self.taken(answer.expected, answer)
        if expected is None:
            raise RewardError(f"reward exact: take {self.take!r} finds nothing in the row's own answer, {answer.where}")
        return self.right if self.taken(answer.text, answer) == expected else self.wrong

    def taken(self, text: str, answer: Answer) -> str | float | None:
        """What of a text is compared."""
        if self.take is not None:
            found = matches(self.take, text, answer)
            if not found:
                return None
            text = (found[-1][1] if found[-1].re.groups else found[-1][0]) or ""
        text = text.strip() if self.case else text.strip().casefold()
        return number_of(text) if self.numbers else text


def number_of(text: str) -> str | float:
    """A number where it is one, with or without commas between thousands; else the text."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return text

"""Rows of {instruction, input, output: [better, worse, …]}: answers in order, the best first."""

from typing import Any, Literal

from danlu.data.formats._replies import preferred
from danlu.data.formats.alpaca import prompt_of
from danlu.data.formats.base import Format, Unreadable, answer
from danlu.samples import PreferencePair


class AlpacaRanked(Format):
    """The first two answers to an instruction are a pair, or all of them are compared."""

    gives = PreferencePair
    shape = "{instruction, input?, output: [better, worse, …], history?, system?}"

    joined_by: str = "\n"
    """what stands between instruction and input"""
    answers: Literal["two", "all"] = "two"
    """which are compared: the first two, or each with every worse one"""

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        return isinstance(row, dict) and "instruction" in row and isinstance(row.get("output"), list)

    def read(self, row: dict[str, Any]) -> PreferencePair:
        """The prompt with its first and second answer."""
        ranked = row["output"] if isinstance(row["output"], list) else []
        if len(ranked) < 2:
            raise Unreadable("fewer than two answers")
        compared = ranked if self.answers == "all" else ranked[:2]
        if not all(isinstance(said, str) for said in compared):
            raise Unreadable("an answer is no text")
        pair = preferred(prompt_of(row, self.joined_by), [answer(ranked[0])], [answer(ranked[1])])
        if len(set(compared)) < len(compared):
            raise Unreadable("two of the answers are the same")
        if not all(said.strip() for said in compared):
            raise Unreadable("an empty reply")
        pair.worse = [[answer(said)] for said in compared[2:]]
        return pair

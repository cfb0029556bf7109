"""Rows of {question, answer}, as GSM8K has them: https://github.com/openai/grade-school-math"""

from typing import Any

from danlu.data.formats._pair import Pair


class QuestionAnswer(Pair):
    """A question and its answer."""

    shape = "{question, answer}"
    asks, answers = "question", "answer"

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape; a question with choices is no plain question."""
        return super().fits(row) and not {"options", "choices", "A"} & row.keys()

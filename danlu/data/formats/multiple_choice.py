"""Questions with choices, as AGIEval's Gaokao papers have them: https://github.com/ruixiangcui/AGIEval"""

from typing import Any

from danlu.data.formats.base import Format, Unreadable, answer, is_lesson, system_of, text_of
from danlu.samples import Conversation, Message


class MultipleChoice(Format):
    """A question under its passage, the choices below it, and the letter that is right."""

    gives = Conversation
    shape = "{question, options: ['(A)…', …], label, passage?}"

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        return is_lesson(row) and {"question", "options", "label"} <= row.keys()

    def read(self, row: dict[str, Any]) -> Conversation:
        """The question as it would be asked, and its answer."""
        options = row["options"]
        if not isinstance(options, list) or not options or not all(isinstance(option, str) for option in options):
            raise Unreadable("'options' is not a list of texts")
        lines = [text_of(row, "passage", optional=True), text_of(row, "question"), *options]
        question = Message("user", "\n".join(filter(None, lines)))
        return Conversation([*system_of(row), question, answer(text_of(row, "label"))])

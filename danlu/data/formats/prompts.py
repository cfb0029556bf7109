"""Questions that wait for an answer: {prompt}, WizardLM's {Instruction}, MT-bench's {turns}"""

from typing import Any

from danlu.data.formats._chat import begun, chat_of
from danlu.data.formats.base import Format, Unreadable, system_of, text_of
from danlu.samples import Message, Prompt

ASKS = ("prompt", "Instruction", "instruction", "question", "turns")
ANSWERED = {"completion", "output", "response", "answer", "label", "instances", "chosen", "selected", "rejected"}


class Prompts(Format):
    """A question; where a row has several, the later ones follow the model's replies."""

    gives = Prompt
    shape = "{prompt}, {instruction}, {question} or {turns: [question, …]}, without an answer"

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        if not isinstance(row, dict) or ANSWERED & row.keys():
            return False
        return any(key in row and not isinstance(row[key], dict) for key in ASKS)

    def read(self, row: dict[str, Any]) -> Prompt:
        """The chat up to the first reply, and what is asked after it."""
        key = next((key for key in ASKS if row.get(key) is not None), None)
        if key is None:
            raise Unreadable("no question")
        if not isinstance(row[key], list):
            return Prompt([*system_of(row), Message("user", text_of(row, key))])
        if key == "turns":
            first, *later = questions(row["turns"])
            return Prompt([*system_of(row), first], later)
        messages = chat_of(row[key])
        if messages[-1].role not in ("user", "tool"):
            raise Unreadable("the chat waits for no reply")
        for message in messages:
            message.train = False
        return Prompt(begun(system_of(row), messages))


def questions(turns: list[Any]) -> list[Message]:
    """What the user says, turn by turn."""
    if not turns or not all(isinstance(said, str) and said.strip() for said in turns):
        raise Unreadable("'turns' is not a list of questions")
    return [Message("user", said) for said in turns]

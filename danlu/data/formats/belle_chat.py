"""BELLE's chats: `Human:` and `Assistant:` inside the instruction: https://github.com/LianjiaTech/BELLE"""

import re
from typing import Any

from danlu.data.formats._tagged import turns_of
from danlu.data.formats.alpaca import Alpaca
from danlu.data.formats.base import Unreadable, answer, system_of, text_of
from danlu.samples import Conversation

INVITED = re.compile(r"\A\s*Human[:：].*\bAssistant[:：]\s*\Z", re.DOTALL)


class BelleChat(Alpaca):
    """All earlier turns in the instruction, which ends by inviting the output."""

    shape = "{instruction: 'Human: …\\nAssistant: …\\nHuman: …\\nAssistant:', output}"

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        if not super().fits(row) or row.get("input") or row.get("history"):
            return False
        said = row["instruction"]
        return isinstance(said, str) and INVITED.match(said) is not None

    def read(self, row: dict[str, Any]) -> Conversation:
        """The turns of the instruction, and the output as the last answer."""
        *turns, invitation = turns_of(text_of(row, "instruction"), r"\n\s*")
        if invitation.role != "assistant" or invitation.content:
            raise Unreadable("'instruction' does not end with Assistant:")
        for turn in turns:
            turn.train = turn.role == "assistant"
        return Conversation([*system_of(row), *turns, answer(text_of(row, "output"))])

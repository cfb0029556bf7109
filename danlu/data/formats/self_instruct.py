"""Self-Instruct's seed tasks, which hold several instances: https://github.com/yizhongw/self-instruct"""

from typing import Any

from danlu.data.formats.base import Format, Unreadable, answer, asked, is_lesson, text_of
from danlu.samples import Conversation


class SelfInstruct(Format):
    """One instruction and its instances; each instance becomes a chat."""

    gives = Conversation
    shape = "{instruction, instances: [{input, output}]}"

    joined_by: str = "\n"
    """what stands between instruction and input"""

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        return is_lesson(row) and {"instruction", "instances"} <= row.keys()

    def read(self, row: dict[str, Any]) -> list[Conversation]:
        """A question and its answer for each instance."""
        instances = row["instances"]
        if not isinstance(instances, list) or not instances or not all(isinstance(one, dict) for one in instances):
            raise Unreadable("'instances' is not a list of {input, output}")
        instruction = {"instruction": row["instruction"]}
        return [
            Conversation(
                [asked(one | instruction, "instruction", "input", self.joined_by), answer(text_of(one, "output"))]
            )
            for one in instances
        ]

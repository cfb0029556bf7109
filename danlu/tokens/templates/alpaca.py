"""Stanford Alpaca: https://github.com/tatsu-lab/stanford_alpaca"""

from danlu.tokens.templates._turns import turns
from danlu.tokens.templates.base import Template


class Alpaca(Template):
    """Stanford Alpaca: ### Instruction and ### Response."""

    jinja = turns(
        "### Instruction:\n{{ content }}\n\n### Response:\n",
        separator="\n\n",
        system="Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.",
    )

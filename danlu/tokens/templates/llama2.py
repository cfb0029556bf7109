"""Llama 2 chat: https://arxiv.org/abs/2307.09288"""

from danlu.tokens.templates._turns import turns
from danlu.tokens.templates.base import Template

SAFETY = (
    "You are a helpful, respectful and honest assistant. "
    "Always answer as helpfully as possible, while being safe.  "
    "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
    "Please ensure that your responses are socially unbiased and positive in nature.\n\n"
    "If a question does not make any sense, or is not factually coherent, "
    "explain why instead of answering something not correct. "
    "If you don't know the answer to a question, please don't share false information."
)

PROMPT = "[INST] {% if not told.turn and system %}<<SYS>>\n{{ system }}\n<</SYS>>\n\n{% endif %}{{ content }} [/INST] "


class Llama2(Template):
    """Llama 2 chat: [INST] and [/INST], the system prompt inside the first question."""

    jinja = turns(PROMPT, prefix="", system=SAFETY)

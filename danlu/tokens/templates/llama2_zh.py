"""Chinese LLaMA 2 Alpaca: Llama 2's markers with its own system prompt."""

from danlu.tokens.templates._turns import turns
from danlu.tokens.templates.base import Template
from danlu.tokens.templates.llama2 import PROMPT


class Llama2Chinese(Template):
    """Llama 2's markers with a system prompt in English and Chinese."""

    jinja = turns(PROMPT, prefix="", system="You are a helpful assistant. 你是一个乐于助人的助手。")

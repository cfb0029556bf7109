"""Zephyr: https://huggingface.co/HuggingFaceH4/zephyr-7b-beta"""

from danlu.tokens.templates.base import Template


class Zephyr(Template):
    """Zephyr: <|system|>, <|user|>, <|assistant|>, each turn ended by eos."""

    jinja = (
        "{% for message in messages %}"
        "{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    )

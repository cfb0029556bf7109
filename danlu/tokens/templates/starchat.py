"""StarChat: https://huggingface.co/HuggingFaceH4/starchat-beta"""

from danlu.tokens.templates.base import Template


class StarChat(Template):
    """StarChat: <|system|>, <|user|>, <|assistant|>, each turn ended by <|end|>."""

    jinja = (
        "{% if messages[0]['role'] != 'system' %}{{ '<|system|>\n<|end|>\n' }}{% endif %}"
        "{% for message in messages %}"
        "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    )

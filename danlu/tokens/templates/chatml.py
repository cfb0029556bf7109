"""ChatML, spoken by Qwen, Yi, SmolLM and many others."""

from danlu.tokens.templates.base import Template


class ChatML(Template):
    """ChatML: <|im_start|> and <|im_end|>."""

    jinja = (
        "{% if messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )

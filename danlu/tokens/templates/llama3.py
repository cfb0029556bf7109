"""Llama 3: https://www.llama.com/docs/model-cards-and-prompt-formats/meta-llama-3/"""

from danlu.tokens.templates.base import Template


class Llama3(Template):
    """Llama 3: a header for every turn, <|eot_id|> at its end."""

    jinja = (
        "{{ bos_token }}{% for message in messages %}"
        "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
        "{{ message['content'] | trim + '<|eot_id|>' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    )

"""Gemma: https://ai.google.dev/gemma/docs/core/prompt-structure"""

from danlu.tokens.templates.base import Template


class Gemma(Template):
    """Gemma: <start_of_turn> and <end_of_turn>; the assistant is called model."""

    jinja = (
        "{{ bos_token }}{% set told = namespace(system='') %}{% for message in messages %}"
        "{% if message['role'] == 'system' %}{% set told.system = message['content'] + '\n\n' %}"
        "{% else %}"
        "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
        "{{ told.system + message['content'] | trim + '<end_of_turn>\n' }}{% set told.system = '' %}"
        "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    )

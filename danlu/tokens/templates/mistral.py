"""Mistral Instruct."""

from danlu.tokens.templates.base import Template


class Mistral(Template):
    """Mistral Instruct: [INST] and [/INST], one bos, the system prompt before the first question."""

    jinja = (
        "{{ bos_token }}{% set told = namespace(system='') %}{% for message in messages %}"
        "{% if message['role'] == 'system' %}{% set told.system = message['content'] + '\n\n' %}"
        "{% elif message['role'] == 'user' %}"
        "{{ '[INST] ' + told.system + message['content'] + ' [/INST]' }}{% set told.system = '' %}"
        "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
        "{% else %}{{ raise_exception('this template knows no role ' + message['role']) }}{% endif %}"
        "{% endfor %}"
    )

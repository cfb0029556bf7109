"""InternLM 1: https://huggingface.co/internlm/internlm-chat-7b"""

from danlu.tokens.templates.base import Template


class Intern(Template):
    """InternLM 1: <|User|> and <|Bot|>, <eoh> after a question, <eoa> after an answer."""

    jinja = (
        "{% for message in messages %}{% set content = message['content'] %}"
        "{% if message['role'] == 'system' %}{{ bos_token + content + '\n' if content else '' }}"
        "{% elif message['role'] == 'user' %}"
        "{% if loop.first or messages[loop.index0 - 1]['role'] != 'system' %}{{ bos_token }}{% endif %}"
        "{{ '<|User|>:' + content + '<eoh>\n<|Bot|>:' }}"
        "{% else %}{{ content + '<eoa>\n' }}{% endif %}"
        "{% endfor %}"
    )

"""ChatGLM2: https://huggingface.co/THUDM/chatglm2-6b"""

from danlu.tokens.templates.base import Template


class ChatGLM2(Template):
    """ChatGLM2: numbered rounds of a question and an answer."""

    jinja = (
        "{% set told = namespace(system='', turn=0) %}"
        "{% for message in messages %}{% set content = message['content'] %}"
        "{% if message['role'] == 'system' %}{% set told.system = content %}"
        "{% elif message['role'] == 'user' %}"
        "{{ '\n\n' if told.turn else '[gMASK]sop' + told.system + '\n\n' }}"
        "{% set told.turn = told.turn + 1 %}"
        # Rounds begin with 1, as in ChatGLM2's own code; LLM-Genie began with 0, which the model never saw.
        "{{ '[Round ' ~ told.turn ~ ']\n\n问：' + content + '\n\n答：' }}"
        "{% else %}{{ content + eos_token }}{% endif %}"
        "{% endfor %}"
    )

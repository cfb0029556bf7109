"""Templates made of a prefix, a prompt and a separator, written as Jinja."""

POLITE = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def turns(prompt: str, *, prefix: str = "{{ system }}", separator: str = "", system: str = "") -> str:
    """bos, prefix, prompt, answer, eos, separator, bos, prompt, answer, eos …; `content` is what the user says."""
    return (
        f"{{% set told = namespace(system={system!r}, turn=0) %}}"
        "{% for message in messages %}"
        "{% set content = message['content'] %}"
        "{% if message['role'] == 'system' %}{% set told.system = content %}"
        "{% elif message['role'] == 'user' %}"
        "{% set system = told.system %}"
        f"{{% if told.turn %}}{{{{ {separator!r} }}}}{{% endif %}}"
        "{{ bos_token }}"
        f"{{% if not told.turn and system %}}{prefix}{{{{ {separator!r} }}}}{{% endif %}}"
        f"{prompt}"
        "{% set told.turn = told.turn + 1 %}"
        "{% elif message['role'] == 'assistant' %}{{ content + eos_token }}"
        "{% else %}{{ raise_exception('this template knows no role ' + message['role']) }}{% endif %}"
        "{% endfor %}"
    )

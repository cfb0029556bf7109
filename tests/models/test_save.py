import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from danlu.core.errors import UserError
from danlu.models import save
from danlu.models.adapters.lora import Lora
from danlu.models.load import load_model
from danlu.models.merge import merge
from danlu.models.merge_proof import merge_adapter
from danlu.models.save import save_tokenizer, save_weights
from danlu.tokens.templates import templates
from danlu.tokens.tokenizer import load_tokenizer

IDS = torch.arange(3, 43)[None]


def learned(model, **settings):
    torch.manual_seed(0)
    wrapped = Lora(rank=4, **settings).apply(model)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return wrapped.eval()


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def test_large_models_are_cut_into_shards(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(save, "SHARD", "200KB")
    model = load_model(tiny("llama"))
    save_weights(model, tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert torch.equal(logits(model), logits(AutoModelForCausalLM.from_pretrained(tmp_path)))
    assert torch.equal(logits(model), logits(load_model(tmp_path)))


def test_the_tokenizer_goes_with_the_template_it_was_trained_on(tiny, tmp_path):
    tokenizer = load_tokenizer(tiny("llama"))
    before = tokenizer.chat_template
    template = templates["zephyr"]()
    save_tokenizer(tokenizer, template, tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.chat_template == template.jinja_text(tokenizer) != before == tokenizer.chat_template
    assert again.pad_token_id == tokenizer.pad_token_id
    assert tokenizer.eos_token_id in json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"]


@pytest.mark.parametrize("settings", [{}, {"dora": True}, {"rslora": True}, {"embeddings": True}])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_a_merged_model_is_model_and_adapter(architecture, settings, tiny):
    model = learned(load_model(tiny(architecture)), **settings)
    before = logits(model)
    merged = merge(model)
    assert torch.allclose(logits(merged), before, atol=1e-5)
    tied = merged.get_output_embeddings().weight is merged.get_input_embeddings().weight
    assert tied == merged.config.tie_word_embeddings


def test_experts_merge_too(tiny):
    model = learned(load_model(tiny("moe")), experts=True)
    before = logits(model)
    assert torch.allclose(logits(merge(model)), before, atol=1e-5)


def test_a_bfloat16_weight_is_rounded_once(tiny, tmp_path):
    base = load_model(tiny("llama"), torch.bfloat16)
    save_weights(base, tmp_path / "base")
    whole = learned(load_model(tmp_path / "base"))
    Lora().save(whole, tmp_path / "adapter")
    exact = load_model(tmp_path / "adapter", torch.float32)
    wanted = {name: value.bfloat16() for name, value in exact.merge_and_unload().state_dict().items()}
    merged = merge(whole)
    assert merged.dtype == torch.bfloat16
    assert all(torch.equal(value, wanted[name]) for name, value in merged.state_dict().items())
    assert merged.model.rotary_emb.inv_freq.dtype == torch.float32


def test_merging_a_folder_proves_itself(tiny, tmp_path):
    adapter = Lora(rank=4)
    adapter.save(learned(load_model(tiny("llama"))), tmp_path / "adapter")
    done = merge_adapter(str(tmp_path / "adapter"), tmp_path / "merged")
    assert done.max_difference < 1e-5
    assert done.agreement == 1
    plain = AutoModelForCausalLM.from_pretrained(done.folder)
    assert torch.allclose(logits(plain), logits(load_model(tmp_path / "adapter")), atol=1e-5)
    assert AutoTokenizer.from_pretrained(done.folder).chat_template
    rounded = merge_adapter(str(tmp_path / "adapter"), tmp_path / "rounded", dtype=torch.bfloat16)
    assert done.max_difference < rounded.max_difference < 0.05
    assert load_model(tmp_path / "rounded").dtype == torch.bfloat16
    with pytest.raises(UserError, match="already there"):
        merge_adapter(str(tmp_path / "adapter"), tmp_path / "merged")
    with pytest.raises(UserError, match="no adapter to merge"):
        merge_adapter(str(done.folder), tmp_path / "again")


def test_quantized_weights_are_not_merged_into(tiny):
    model = learned(load_model(tiny("llama")))
    model.config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(UserError, match="take the base as it was"):
        merge(model)

"""A quantized base: what is stored in fewer bits, what is refused, and that an adapter beside it comes back."""

import json
import weakref

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from danlu.core.errors import UserError
from danlu.generate.base import GenerationConfig
from danlu.generate.local import Local
from danlu.models import quantized_loading
from danlu.models.adapters import adapters
from danlu.models.adapters.base import trainable_report
from danlu.models.adapters.lora import Lora
from danlu.models.blocks import blocks_of
from danlu.models.load import ModelConfig, build_model, load_model
from danlu.models.merge import merge
from danlu.models.merge_proof import merge_adapter
from danlu.models.quantized_linear import quantized_layers
from danlu.models.save import save_tokenizer
from danlu.samples import Message
from danlu.tokens.templates.own import Own
from danlu.tokens.tokenizer import load_tokenizer
from tests.models.adapters.test_lora import logits, shaken

QUANTIZERS = ["nf4", "int8", "fp8"]
NEAR = {"nf4": 0.3, "int8": 0.05, "fp8": 0.1}


def base(architecture: str, quantizer: str | None, **settings):
    config = ModelConfig(path=f"builtin:tiny-{architecture}", quantizer=quantizer, **settings)
    return build_model(config, torch.float32)


def bytes_of_blocks(model) -> int:
    return sum(value.nbytes for value in blocks_of(model)[1].state_dict().values())


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "phi3", "falcon", "moe"])
def test_every_linear_layer_of_the_blocks_is_stored_in_fewer_bits(architecture, quantizer):
    model, whole = base(architecture, quantizer), base(architecture, None)
    linear = {name for name, m in blocks_of(whole)[1].named_modules() if isinstance(m, torch.nn.Linear)}
    assert {name for name, m in blocks_of(model)[1].named_modules() if m in quantized_layers(model)} == linear
    assert bytes_of_blocks(model) < bytes_of_blocks(whole) * (0.5 if architecture != "moe" else 0.9)
    assert 1e-4 < (logits(model) - logits(whole)).norm() / logits(whole).norm() < NEAR[quantizer]
    for name, layer in blocks_of(model)[1].named_modules():
        if name in linear:
            weight = blocks_of(whole)[1].get_submodule(name).weight
            assert (layer.dense() - weight).norm() < 0.12 * weight.norm()
    assert trainable_report(model).split(" || ")[1] == trainable_report(whole).split(" || ")[1]


def test_each_whole_weight_is_let_go_before_the_next_is_read(monkeypatch):
    """Sizes are those of one layer, however many there are."""
    pack, read = quantized_loading.Pack.convert, []

    def watched(self, input_dict, **given):
        assert not any(tensor() is not None for tensor in read)
        read.extend(weakref.ref(value[0]) for value in input_dict.values())
        return pack(self, input_dict, **given)

    monkeypatch.setattr(quantized_loading.Pack, "convert", watched)
    assert len(quantized_layers(base("llama", "nf4"))) == len(read) == 14


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_an_adapter_beside_it_comes_back_with_it_and_answers(quantizer, tiny, tmp_path):
    model = shaken(Lora(rank=4).apply(base("llama", quantizer)))
    Lora().save(model, tmp_path)
    save_tokenizer(load_tokenizer(tiny("llama")), Own(), tmp_path)
    assert json.loads((tmp_path / "quantizer.json").read_text())["quantizer"]["name"] == quantizer
    again = load_model(tmp_path, torch.float32)
    assert len(quantized_layers(again)) == 14
    assert torch.equal(logits(again.eval()), logits(model))
    local = Local.open(tmp_path)
    [said] = local.answer([[Message("user", "hi")]], GenerationConfig(max_tokens=4))
    assert len(said.ids) == 4
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny("llama")), tmp_path).eval()
    assert (logits(plain) - logits(again)).norm() < 0.5 * logits(plain).norm()  # others read it, over the whole base


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_it_answers_without_an_adapter(quantizer, tiny):
    local = Local(base("llama", quantizer), load_tokenizer(tiny("llama")), Own())
    [said] = local.answer([[Message("user", "hi")]], GenerationConfig(max_tokens=4))
    assert len(said.ids) == 4


def test_merging_is_refused_with_the_reason(tmp_path):
    model = Lora(rank=4).apply(base("llama", "int8"))
    Lora().save(model, tmp_path / "adapter")
    with pytest.raises(UserError, match="merged into whole weights, and these are quantized"):
        merge(model)
    with pytest.raises(UserError, match=r"learned beside quantized weights.*remove .*quantizer\.json"):
        merge_adapter(str(tmp_path / "adapter"), tmp_path / "merged")
    (tmp_path / "adapter/quantizer.json").unlink()
    assert merge_adapter(str(tmp_path / "adapter"), tmp_path / "merged").agreement == 1
    with pytest.raises(UserError, match=r"is an adapter.*adapter\.start"):
        build_model(ModelConfig(path=str(tmp_path / "adapter"), quantizer="int8"))
    with pytest.raises(ValueError, match="merged into whole weights, and `quantizer` leaves none"):
        ModelConfig(path="x", adapters=["y"], quantizer="int8")


def test_an_adapter_goes_on_learning_beside_it(tmp_path):
    model = shaken(Lora(rank=4).apply(base("llama", "fp8")))
    Lora().save(model, tmp_path)
    again = Lora(start=str(tmp_path)).apply(base("llama", "fp8"))
    assert torch.equal(logits(again.eval()), logits(model))
    assert any(parameter.requires_grad for parameter in again.parameters())


@pytest.mark.parametrize("name", ["full", "freeze"])
def test_its_weights_cannot_learn(name):
    with pytest.raises(UserError, match=f"adapter: {name} learns the weights themselves"):
        adapters[name]().apply(base("llama", "int8"))


def test_what_cannot_be_quantized_is_said(tmp_path, tiny):
    with pytest.raises(UserError, match="GPT2LMHeadModel has no linear layers in its blocks to quantize"):
        base("gpt2", "int8")
    for file in tiny("llama").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | {"quantization_config": {"quant_method": "fp8"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="holds quantized weights already"):
        build_model(ModelConfig(path=str(tmp_path), quantizer="int8"))


def test_a_damaged_note_is_named(tmp_path):
    Lora().save(Lora(rank=2).apply(base("llama", "int8")), tmp_path)
    for text in ("{", "[]", '{"quantizer": {"name": "int7"}}', '{"quantizer": {"name": "os:system"}}'):
        (tmp_path / "quantizer.json").write_text(text)
        with pytest.raises(UserError, match=r"quantizer\.json"):
            load_model(tmp_path)

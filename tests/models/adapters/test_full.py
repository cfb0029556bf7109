import pytest
import torch
from transformers import AutoModelForCausalLM

from danlu.core.errors import UserError
from danlu.models.adapters.base import num_weights, trainable_report
from danlu.models.adapters.full import Full
from danlu.models.load import load_model


def test_everything_learns(tiny):
    model = Full().apply(load_model(tiny("llama")))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert trainable_report(model) == "trainable params: 127,296 || all params: 127,296 || trainable%: 100.0000"


def test_masters_are_rounded_once_and_config_says_the_dtype(tiny, tmp_path):
    model = Full().apply(load_model(tiny("qwen2"), torch.bfloat16))
    masters = {name: torch.randn_like(value, dtype=torch.float32) for name, value in model.named_parameters()}
    Full().save(model, tmp_path, masters)
    again, found = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(found.values())
    assert again.config.tie_word_embeddings
    assert again.dtype == torch.bfloat16
    for name, value in again.named_parameters():
        assert torch.equal(value, masters[name].bfloat16())


def test_quantized_weights_are_refused(tiny):
    model = load_model(tiny("llama"))
    model.config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(UserError, match="use `adapter: lora`"):
        Full().apply(model)


def test_four_bit_weights_count_twice():
    class Params4bit(torch.nn.Parameter):
        pass

    packed = Params4bit(torch.zeros(8, dtype=torch.uint8), requires_grad=False)
    assert num_weights(packed) == 16
    assert num_weights(torch.nn.Parameter(torch.zeros(8))) == 8

import re

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, LlamaConfig

from danlu.core.errors import UserError
from danlu.models.adapters.freeze import Freeze
from danlu.models.blocks import blocks_of
from danlu.models.builtin.tiny import ARCHITECTURES
from danlu.models.load import load_model

# what each architecture calls its list of blocks and the feed-forward part of one
PLACES = dict.fromkeys(ARCHITECTURES, ("model.layers", "mlp")) | {
    "falcon": ("transformer.h", "mlp"),
    "bloom": ("transformer.h", "mlp"),
    "gpt2": ("transformer.h", "mlp"),
    "gpt-neox": ("gpt_neox.layers", "mlp"),
}


def learning(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_exactly_the_last_blocks_feed_forward_learns(architecture, tiny):
    model = Freeze(blocks=1, modules=["mlp"]).apply(load_model(tiny(architecture)))
    path, module = PLACES[architecture]
    wanted = {name for name, _ in model.named_parameters() if name.startswith(f"{path}.1.{module}.")}
    assert learning(model) == wanted != set()


def twelve_blocks():
    config = LlamaConfig(vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=12, num_attention_heads=2)
    return AutoModelForCausalLM.from_config(config)


def test_block_1_is_not_block_11():
    def numbers(blocks):
        names = learning(Freeze(blocks=blocks).apply(twelve_blocks()))
        return {int(re.search(r"layers\.(\d+)\.", name)[1]) for name in names}

    assert numbers(-2) == {0, 1}
    assert numbers(3) == {9, 10, 11}


def test_a_module_is_matched_by_whole_components():
    names = learning(Freeze(blocks=1, modules=["mlp.up_proj", "input_layernorm"]).apply(twelve_blocks()))
    assert names == {"model.layers.11.mlp.up_proj.weight", "model.layers.11.input_layernorm.weight"}
    with pytest.raises(UserError, match="did you mean 'up_proj'"):
        Freeze(modules=["up_pro"]).apply(twelve_blocks())
    with pytest.raises(UserError, match=r"known: .*mlp.*self_attn"):
        Freeze(modules=["attention"]).apply(twelve_blocks())


def test_tables_and_norms_outside_the_blocks_learn_when_asked():
    names = learning(Freeze(blocks=1, modules=["mlp"], embeddings=True).apply(twelve_blocks()))
    assert {name for name in names if "layers" not in name} == {"model.embed_tokens.weight", "lm_head.weight"}
    names = learning(Freeze(blocks=1, modules=["mlp"], norm=True).apply(twelve_blocks()))
    assert {name for name in names if "layers" not in name} == {"model.norm.weight"}


def test_impossible_numbers_are_refused():
    with pytest.raises(ValidationError, match="leave nothing to learn"):
        Freeze(blocks=0)
    with pytest.raises(UserError, match="has 12 blocks"):
        Freeze(blocks=13).apply(twelve_blocks())


def test_the_experts_do_not_pass_for_the_blocks(tiny):
    path, blocks = blocks_of(load_model(tiny("mixtral")))
    assert (path, len(blocks)) == ("model.layers", 2)


def test_what_was_learned_is_saved(tiny, tmp_path):
    adapter = Freeze(blocks=1)
    model = adapter.apply(load_model(tiny("gemma3")))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * parameter.requires_grad)
    adapter.save(model, tmp_path)
    ids = torch.arange(20)[None]
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits, model.eval()(ids).logits)

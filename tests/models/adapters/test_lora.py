import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from danlu.core.errors import UserError
from danlu.core.parts import Config
from danlu.models.adapters import Adapter, adapters
from danlu.models.adapters.base import trainable_report
from danlu.models.adapters.lora import Lora
from danlu.models.builtin.tiny import ARCHITECTURES
from danlu.models.load import load_model

IDS = torch.arange(3, 43)[None]


def shaken(model):
    """The model after a step in a random direction."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def reloaded(base, folder):
    """What somebody without Danlu would load."""
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_plain_peft_reads_what_was_learned(architecture, tiny, tmp_path):
    adapter = Lora(rank=4)
    model = shaken(adapter.apply(load_model(tiny(architecture))))
    adapter.save(model, tmp_path)
    assert not torch.equal(logits(model), logits(load_model(tiny(architecture))))
    assert torch.equal(logits(model), logits(reloaded(tiny(architecture), tmp_path)))
    assert torch.equal(logits(model), logits(load_model(tmp_path)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_linear_is_every_linear_layer_but_the_head(architecture, tiny):
    model = Lora(rank=4).apply(load_model(tiny(architecture)))
    inside = {name for name, module in model.get_base_model().named_modules() if hasattr(module, "lora_A")}
    plain = load_model(tiny(architecture))
    kinds = ("Linear", "Conv1D")
    linear = {name for name, module in plain.named_modules() if type(module).__name__.endswith(kinds)} - {"lm_head"}
    assert inside == linear - {"embed_out"} != set()
    assert all(name.endswith("weight") and "lora_" in name for name, p in model.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma", "falcon", "gpt2", "gpt-neox"])
def test_whole_tables_learn_and_stay_tied(architecture, tiny, tmp_path):
    adapter = Lora(rank=4, embeddings=True)
    model = shaken(adapter.apply(load_model(tiny(architecture))))
    tied = model.config.tie_word_embeddings
    tables = [name for name, p in model.named_parameters() if "modules_to_save" in name and p.requires_grad]
    assert len(tables) == (1 if tied else 2)
    adapter.save(model, tmp_path)
    assert torch.equal(logits(model), logits(reloaded(tiny(architecture), tmp_path)))


@pytest.mark.parametrize("settings", [{"rslora": True}, {"dora": True}, {"init": "gaussian"}, {"init": "orthogonal"}])
def test_variants_come_back_too(settings, tiny, tmp_path):
    adapter = Lora(rank=4, **settings)
    model = shaken(adapter.apply(load_model(tiny("qwen3"))))
    adapter.save(model, tmp_path)
    assert torch.equal(logits(model), logits(reloaded(tiny("qwen3"), tmp_path)))


@pytest.mark.parametrize("architecture", ["moe", "mixtral"])
def test_experts_learn_when_asked(architecture, tiny, tmp_path):
    adapter = Lora(rank=2, experts=True)
    model = shaken(adapter.apply(load_model(tiny(architecture))))
    assert any("experts" in name for name, p in model.named_parameters() if p.requires_grad)
    adapter.save(model, tmp_path)
    assert torch.equal(logits(model), logits(reloaded(tiny(architecture), tmp_path)))
    with pytest.raises(UserError, match="no mixture of experts"):
        adapter.apply(load_model(tiny("llama")))


def test_adapter_config_shows_the_settings_given(tiny, tmp_path):
    adapter = Lora(rank=8, alpha=24, dropout=0.1, target="q_proj, v_proj")
    adapter.save(adapter.apply(load_model(tiny("llama"))), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"], config["bias"]) == (8, 24, 0.1, "none")
    assert sorted(config["target_modules"]) == ["q_proj", "v_proj"]
    assert config["base_model_name_or_path"] == str(tiny("llama"))
    assert {path.name for path in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}


def test_adapters_are_float32_beside_bfloat16_weights(tiny):
    model = Lora().apply(load_model(tiny("llama"), torch.bfloat16))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}


def test_a_name_that_matches_nothing_is_an_error(tiny):
    with pytest.raises(UserError, match=r"'q_pro'.*did you mean 'q_proj'"):
        Lora(target=["v_proj", "q_pro"]).apply(load_model(tiny("llama")))
    with pytest.raises(UserError, match=r"known: .*query_key_value"):
        Lora(target=["q_proj"]).apply(load_model(tiny("falcon")))


def test_going_on_with_an_adapter(tiny, tmp_path):
    first = Lora(rank=4, alpha=8)
    model = shaken(first.apply(load_model(tiny("llama"))))
    first.save(model, tmp_path)
    again = Lora(start=str(tmp_path)).apply(load_model(tiny("llama")))
    assert torch.equal(logits(model), logits(again.eval()))
    assert trainable_report(again) == trainable_report(model)
    with pytest.raises(UserError, match=r"adapter\.rank: 8, but .* has 4"):
        Lora(start=str(tmp_path), rank=8).apply(load_model(tiny("llama")))


def test_the_second_matrix_learns_faster():
    names = ["x.lora_A.default.weight", "x.lora_B.default.weight"]
    assert Lora(plus_ratio=16).lr_scales(names) == {names[0]: 1.0, names[1]: 16.0}
    assert set(Lora().lr_scales(names).values()) == {1.0}


def test_masters_take_the_place_of_the_models_own(tiny, tmp_path):
    adapter = Lora(rank=2)
    model = adapter.apply(load_model(tiny("llama")))
    masters = {name: torch.randn_like(p) for name, p in model.named_parameters() if p.requires_grad}
    adapter.save(model, tmp_path, masters)
    again = dict(load_model(tmp_path).named_parameters())
    assert all(torch.equal(again[name], value) for name, value in masters.items())


def test_parts_are_chosen_by_name():
    assert {"full", "freeze", "lora"} <= set(adapters)

    class Run(Config):
        adapter: Adapter

    assert adapters["lora"] is Lora
    assert Lora().rank == 16

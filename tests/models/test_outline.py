"""An outline is the model that will be trained, in everything but its values."""

import pytest
import torch

from danlu.engine.planner.live import Live
from danlu.models.adapters.freeze import Freeze
from danlu.models.adapters.full import Full
from danlu.models.adapters.lora import Lora
from danlu.models.builtin.tiny import ARCHITECTURES
from danlu.models.load import ModelConfig, build_model
from danlu.models.outline import Outline, adapted, outline
from danlu.models.policy import Policy

ADAPTERS = [Full(), Freeze(blocks=1), Lora(), Lora(init="orthogonal", embeddings=True), Lora(dora=True)]


def shapes(model):
    return {name: (each.shape, each.dtype, each.requires_grad) for name, each in model.named_parameters()}


@pytest.mark.parametrize("adapter", ADAPTERS, ids=repr)
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "moe"])
def test_every_weight_is_there_and_learns_as_it_will(architecture, adapter):
    config = ModelConfig(path=f"builtin:tiny-{architecture}")
    sketched = adapted(outline(config), adapter)
    assert shapes(sketched) == shapes(adapter.apply(build_model(config)))
    assert all(each.is_meta for each in sketched.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_knows_which_models_keep_segments_apart(architecture):
    config = ModelConfig(path=f"builtin:tiny-{architecture}")
    with Live():
        sketched = Outline(adapted(outline(config), Full()))
    assert sketched.packed == Policy(build_model(config)).packed


def test_no_weights_need_be_there(tmp_path, tiny):
    (tmp_path / "config.json").write_bytes((tiny("llama") / "config.json").read_bytes())
    assert shapes(outline(ModelConfig(path=str(tmp_path)))) == shapes(build_model(ModelConfig(path=str(tiny("llama")))))


def test_an_adapter_that_goes_on_is_sketched_from_its_configuration(tmp_path, tiny):
    model = Lora(rank=3, target="q_proj").apply(build_model(ModelConfig(path=str(tiny("llama")))))
    Lora().save(model, tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    sketched = adapted(outline(ModelConfig(path=str(tiny("llama")))), Lora(start=str(tmp_path)))
    assert shapes(sketched) == shapes(model)


def test_an_adapters_folder_is_sketched_as_its_base(tmp_path, tiny):
    model = Lora(rank=3).apply(build_model(ModelConfig(path=str(tiny("llama")))))
    Lora().save(model, tmp_path)
    assert outline(ModelConfig(path=str(tmp_path))).num_parameters() == model.get_base_model().num_parameters() - sum(
        each.numel() for name, each in model.named_parameters() if "lora" in name
    )
    assert torch.get_default_device().type == "cpu"

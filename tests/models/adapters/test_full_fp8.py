"""Products in fp8: refused where they cannot be done, and the layers that get them."""

import sys

import pytest
import torch

from danlu.core.config import load, read_tree
from danlu.core.errors import SetupError, UserError
from danlu.engine.config import EngineConfig
from danlu.engine.engine import Engine
from danlu.models.load import ModelConfig, load_model
from danlu.runs.recipe import find
from danlu.runs.train_run import TrainRun


def test_without_its_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    monkeypatch.delitem(sys.modules, "danlu.models.adapters.full_fp8", raising=False)
    with pytest.raises(UserError, match="'full_fp8' needs the package 'torchao.*: pip install"):
        load(TrainRun, read_tree(find("sft_full")), ["data.sources=x", "adapter=full_fp8"])


def test_without_a_gpu_it_is_refused_before_a_model_is_loaded(monkeypatch):
    module = pytest.importorskip("danlu.models.adapters.full_fp8", exc_type=ModuleNotFoundError)
    builder = Engine(EngineConfig(device="cpu")).builder(ModelConfig(path="/nowhere"), module.FullFP8())
    with pytest.raises(SetupError, match="full_fp8 multiplies in fp8 on a GPU, and this run is on cpu"):
        builder.policy()


@pytest.mark.parametrize("scaling", ["tensorwise", "rowwise"])
def test_the_layers_of_the_blocks_multiply_in_fp8_and_keep_their_weights(scaling, tiny, tmp_path, monkeypatch):
    module = pytest.importorskip("danlu.models.adapters.full_fp8", exc_type=ModuleNotFoundError)
    adapter = module.FullFP8(scaling=scaling)
    config = adapter.config()
    object.__setattr__(config, "emulate", True)  # the same numbers on a processor
    monkeypatch.setattr(module.FullFP8, "config", lambda self: config)
    whole = load_model(tiny("llama"))
    model = adapter.apply(load_model(tiny("llama")))
    found = {name for name, layer in model.named_modules() if type(layer).__name__ == "Float8Linear"}
    assert len(found) == 14
    assert dict(model.named_parameters()).keys() == dict(whole.named_parameters()).keys()
    ids = torch.arange(3, 35)[None]
    near, exact = model(ids).logits, whole(ids).logits
    assert 1e-4 < (near - exact).norm() / exact.norm() < 0.1
    near.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    adapter.save(model, tmp_path)
    assert torch.equal(load_model(tmp_path)(ids).logits, exact)

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from peft import PeftModel
from safetensors.torch import load_file, save_file

from danlu.core.errors import UserError
from danlu.models import resolve as resolving
from danlu.models.adapters.lora import Lora
from danlu.models.load import ModelConfig, RopeScaling, build_model, load_model
from danlu.models.resolve import resolve

IDS = torch.arange(3, 43)[None]


@pytest.fixture
def copied(tiny, tmp_path):
    """A tiny Llama's folder to spoil."""
    return shutil.copytree(tiny("llama"), tmp_path / "model")


@pytest.fixture
def adapter(tiny, tmp_path):
    """The folder of an adapter that does something."""
    return learned(load_model(tiny("llama")), tmp_path / "adapter", seed=0)


def learned(model, folder, seed):
    torch.manual_seed(seed)
    wrapped = Lora(rank=4).apply(model)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    Lora(rank=4).save(wrapped, folder)
    return folder


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def test_a_folder_loads_in_the_dtype_asked_for(tiny):
    assert load_model(resolve(tiny("llama"))).dtype == torch.float32
    assert load_model(resolve("builtin:tiny-llama"), torch.bfloat16).dtype == torch.bfloat16


def test_a_run_is_its_artifact(tiny, tmp_path):
    shutil.copytree(tiny("llama"), tmp_path / "run/final")
    (tmp_path / "run/run.yaml").touch()
    assert resolve(tmp_path / "run") == tmp_path / "run/final"


def test_an_unfinished_run_names_its_newest_checkpoint(tmp_path):
    for name in ("step-000002", "step-000010", "step-000011.bad"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    (tmp_path / "run.yaml").touch()
    with pytest.raises(UserError, match=r"has not finished.*step-000010"):
        resolve(tmp_path)


def test_a_checkpoint_is_the_model_in_it(tiny, tmp_path):
    shutil.copytree(tiny("llama"), tmp_path / "step-000001/policy")
    shutil.copytree(tiny("llama"), tmp_path / "step-000001/critic")
    assert resolve(tmp_path / "step-000001") == tmp_path / "step-000001/policy"


def test_an_adapter_brings_its_base(tiny, adapter):
    model = load_model(resolve(adapter))
    assert isinstance(model, PeftModel)
    assert not torch.equal(logits(model), logits(load_model(tiny("llama"))))


def test_an_adapter_finds_a_builtin_base_of_another_machine(adapter):
    config = adapter / "adapter_config.json"
    elsewhere = json.loads(config.read_text())["base_model_name_or_path"].replace("/root", "/home/somebody")
    edit(config, base_model_name_or_path=f"/nowhere{elsewhere}")
    assert isinstance(load_model(adapter), PeftModel)


def test_chained_adapters_are_merged_left_to_right(tiny, adapter, tmp_path):
    base = load_model(tiny("llama"))
    one = PeftModel.from_pretrained(base, adapter).merge_and_unload()
    second = learned(one, tmp_path / "second", seed=1)
    wanted = PeftModel.from_pretrained(load_model(tiny("llama")), adapter).merge_and_unload()
    wanted = PeftModel.from_pretrained(wanted, second).merge_and_unload()
    config = ModelConfig(path=str(tiny("llama")), adapters=[str(adapter), str(second)])
    assert torch.allclose(logits(build_model(config)), logits(wanted), atol=1e-6)


def test_a_model_to_train_has_its_adapter_merged(tiny, adapter):
    model = build_model(ModelConfig(path=str(adapter)))
    assert not isinstance(model, PeftModel)
    assert torch.allclose(logits(model), logits(load_model(adapter)), atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn"])
def test_stretched_positions_are_saved_and_longer_texts_accepted(kind, tiny, tmp_path):
    model = load_model(tiny("llama"), rope_scaling=RopeScaling(kind=kind, factor=4))
    long = torch.randint(3, 500, (1, 600))
    assert model(long).logits.isfinite().all()
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())["rope_parameters"]
    assert (saved["rope_type"], saved["factor"]) == (kind, 4.0)
    again = load_model(tmp_path)
    assert torch.equal(again(long).logits, model(long).logits)


def test_only_a_single_rotary_embedding_is_stretched(tiny):
    for architecture in ("gpt2", "bloom", "gemma3"):
        with pytest.raises(UserError, match="no single rotary embedding"):
            load_model(tiny(architecture), rope_scaling=RopeScaling())


def test_wrong_paths_say_what_to_type(tmp_path, monkeypatch):
    (tmp_path / "model-a").mkdir()
    with pytest.raises(UserError, match="did you mean 'model-a'"):
        resolve(tmp_path / "model-b")
    with pytest.raises(UserError, match="an empty folder"):
        resolve(tmp_path / "model-a")
    (tmp_path / "model.gguf").touch()
    with pytest.raises(UserError, match="found a file"):
        resolve(tmp_path / "model.gguf")

    def offline(*args, **kwargs):
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(resolving, "snapshot_download", offline)
    with pytest.raises(UserError, match=r"hf download Qwen/Qwen3-0.6B"):
        resolve("Qwen/Qwen3-0.6B")


def test_what_is_no_language_model_is_said(copied):
    edit(copied / "config.json", model_type="lama")
    with pytest.raises(UserError, match=r"'lama' is no language model.*did you mean 'llama'"):
        load_model(copied)
    (copied / "config.json").write_text("{")
    with pytest.raises(UserError, match="not readable as JSON"):
        load_model(copied)


def test_a_missing_weight_is_named(copied):
    weights = load_file(copied / "model.safetensors")
    weights["model.layers.1.mlp.upp.weight"] = weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights are missing \(model\.layers\.1\.mlp\.up_proj\.weight\).*mlp\.upp"):
        load_model(copied)


def test_a_damaged_file_or_another_shape_is_a_users_error(copied):
    edit(copied / "config.json", hidden_size=32)
    with pytest.raises(UserError, match="model"):
        load_model(copied)
    (copied / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(UserError, match="model"):
        load_model(copied)


class Bomb:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (os.mkdir, (self.marker,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_refused_unread(name, copied, tmp_path):
    (copied / "model.safetensors").unlink()
    torch.save(Bomb(tmp_path / "marker"), copied / name)
    with pytest.raises(UserError, match=rf"pickled.*{name}"):
        load_model(copied)
    assert not (tmp_path / "marker").exists()


def test_a_pickled_adapter_is_refused_unread(adapter, tmp_path):
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(Bomb(tmp_path / "marker"), adapter / "adapter_model.bin")
    with pytest.raises(UserError, match="pickled"):
        load_model(adapter)
    assert not (tmp_path / "marker").exists()


def test_a_folders_own_code_is_refused_without_a_question(copied, tmp_path):
    edit(copied / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"})
    (copied / "evil.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    script = f"from pathlib import Path; from danlu.models.load import load_model; load_model(Path({str(copied)!r}))"
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "UserError" in ended.stderr
    assert "auto_map" in ended.stderr
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation_internal", "_attn_implementation"])
def test_kernels_from_the_hub_are_refused(key, copied):
    edit(copied / "config.json", text_config={key: "evil/kernels"})
    with pytest.raises(UserError, match=r"evil/kernels.*never fetched"):
        load_model(copied)


def test_an_adapter_may_name_no_package(adapter):
    edit(adapter / "adapter_config.json", megatron_config={"a": 1}, megatron_core="evil")
    with pytest.raises(UserError, match="megatron_config"):
        load_model(adapter)

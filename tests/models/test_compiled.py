"""Blocks are compiled in the first step, once for all of them and for packs of every length, and kept on disk."""

from functools import partial, partialmethod

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from transformers import AutoConfig, AutoModelForCausalLM

from danlu.core.config import validate
from danlu.data.packing import Pack
from danlu.engine.config import EngineConfig
from danlu.models import compiled
from danlu.models.adapters.full import Full
from danlu.models.adapters.lora import Lora
from danlu.models.policy import Policy

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's compiler looks at what it warns about
FIRST = [[6, 1, 19, 9], [7, 5]]
LATER = [[64], [3] * 20, [33, 31], [2], [100, 30, 1], [16] * 8, [8]]


@pytest.fixture(autouse=True)
def _forget(monkeypatch, tmp_path):
    monkeypatch.setenv(compiled.PLACE, "")  # so that it is put back as it was
    monkeypatch.delenv(compiled.PLACE)
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path))
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def policy_of(kind: str = "llama", adapter: Full | Lora | None = None, layers: int = 10) -> Policy:
    torch.manual_seed(0)
    window = {"sliding_window": 16} if kind == "gemma2" else {}
    config = AutoConfig.for_model(
        kind, vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, pad_token_id=0, **window,
    )  # fmt: skip
    return Policy((adapter or Full()).apply(AutoModelForCausalLM.from_config(config))).train()


def learn(policy: Policy, lengths: list[int]) -> None:
    draw = np.random.default_rng(sum(lengths))
    pack = Pack.of([(draw.integers(3, 128, n), np.ones(n, bool)) for n in lengths])
    (-policy.logprobs(pack).sum()).backward()
    policy.zero_grad()


def without_code(monkeypatch, **changed) -> None:
    """What is traced again is the same whatever is made of it; making nothing takes a tenth of the time."""
    own = nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", partialmethod(lambda self, **given: own(self, **given | {"backend": "eager"} | changed))
    )


@pytest.mark.parametrize(
    ("kind", "adapter", "recomputed"),
    [
        ("llama", Full(), False),
        pytest.param("gemma2", Full(), True, marks=pytest.mark.slow),  # two kinds of layers
        pytest.param("qwen3", Lora(rank=2), True, marks=pytest.mark.slow),
    ],
)
def test_nothing_is_compiled_after_the_second_step(monkeypatch, kind, adapter, recomputed):
    without_code(monkeypatch)
    policy = policy_of(kind, adapter)
    if recomputed:
        policy.recompute(None)
    policy.compile_blocks()
    for lengths in FIRST:
        learn(policy, lengths)
    graphs = counters["stats"]["unique_graphs"]
    assert 0 < graphs < 10  # fewer than there are blocks: one for all, in a few pieces
    with torch.compiler.set_stance("fail_on_recompile"):
        for lengths in LATER:
            learn(policy, lengths)
    assert counters["stats"]["unique_graphs"] == graphs


def test_that_would_be_seen(monkeypatch):
    without_code(monkeypatch, dynamic=False)
    policy = policy_of(layers=1)
    policy.compile_blocks()
    learn(policy, FIRST[0])
    with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError, match="recompil"):
        learn(policy, LATER[0])


@pytest.mark.slow
def test_what_was_compiled_is_found_again_on_disk(tmp_path):
    def run() -> tuple[int, int]:
        torch._dynamo.reset()
        counters.clear()
        policy = policy_of(layers=2)
        policy.compile_blocks()
        learn(policy, FIRST[0])
        return counters["inductor"]["fxgraph_cache_miss"], counters["inductor"]["fxgraph_cache_hit"]

    missed, _ = run()
    assert missed
    assert any((tmp_path / "compiled").rglob("*.py"))
    again, hits = run()
    assert not again
    assert hits or counters["aot_autograd"]["autograd_cache_hit"]


def test_the_folder_of_the_environment_wins(monkeypatch, tmp_path):
    monkeypatch.setattr(nn.Module, "compile", lambda self, **given: None)
    compiled.compile_blocks([nn.Linear(1, 1)])
    assert compiled.os.environ[compiled.PLACE] == str(tmp_path / "compiled")
    monkeypatch.setenv(compiled.PLACE, "/elsewhere")
    compiled.compile_blocks([nn.Linear(1, 1)])
    assert compiled.os.environ[compiled.PLACE] == "/elsewhere"


@pytest.mark.parametrize(("written", "means"), [("auto", "auto"), ("off", False), ("on", True), (False, False)])
def test_the_compiler_is_auto_on_or_off(written, means):
    read = partial(validate, EngineConfig, origin="recipe.yaml")
    assert read({"compile": written}).compile == means

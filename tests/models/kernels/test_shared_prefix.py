"""Answers to one prompt: it is read once, and all is as if each answer had been read with a prompt of its own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from danlu.data.packing import Pack, Segment
from danlu.models import policy as module
from danlu.models.adapters.full import Full
from danlu.models.adapters.lora import Lora
from danlu.models.builtin.tiny import ARCHITECTURES
from danlu.models.fused_block import fuse_blocks
from danlu.models.kernels.shared_prefix import SHORTEST, shared_in
from danlu.models.load import ModelConfig, build_model
from danlu.models.policy import Policy

QUICK = ["llama", "gemma2", "gpt2", "moe"]
EVERY = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ARCHITECTURES]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NEAR = {"rtol": 1e-2, "atol": 2e-2} if DEVICE.type == "cuda" else {"rtol": 1e-4, "atol": 2e-6}
"""a GPU's tiles multiply fp32 as tf32"""
ROWS = [(30, [5, 9]), (12, [1, 20, 4]), (17, [6]), (3, [7, 7])]
"""tokens of a prompt, and of each of its answers; the last prompt is too short to be worth it"""


def pack_of(rows=ROWS, vocabulary=400) -> Pack:
    draw = np.random.default_rng(5)
    streams, segments = [], []
    for row, (prompt, answers) in enumerate(rows):
        first = draw.integers(3, vocabulary, prompt)
        for rank, count in enumerate(answers):
            ids = np.concatenate([first, [3 + rank], draw.integers(3, vocabulary, count - 1)])
            streams.append((ids, np.arange(len(ids)) >= prompt))
            segments.append(Segment("a", "a.jsonl", row, rank=rank))
    return Pack.of(streams, segments)


def policy_of(name="llama", adapter=None, *, fused=False) -> Policy:
    torch.manual_seed(3)
    model = build_model(ModelConfig(path=f"builtin:tiny-{name}"), torch.float32)
    policy = Policy((adapter or Full()).apply(model).to(DEVICE))
    for key, parameter in policy.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.1)
    assert not fused or fuse_blocks(policy.inner)
    return policy.eval()


def read(policy, pack) -> list[torch.Tensor]:
    logps = policy.logprobs(pack.to(DEVICE))
    learning = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    d = torch.linspace(-1, 1, pack.num_tokens, device=DEVICE)
    return [logps, *torch.autograd.grad(logps, learning, d, allow_unused=True)]


def check(policy, pack, monkeypatch):
    ran = []
    stream = policy._stream
    monkeypatch.setattr(policy, "_stream", lambda ids, *rest: ran.append(len(ids)) or stream(ids, *rest))
    found = read(policy, pack)
    monkeypatch.setattr(module, "shared_in", lambda pack: None)
    expected = read(policy, pack)
    assert ran == [pack.num_tokens - 30 - 2 * 12, pack.num_tokens]
    for one, other in zip(found, expected, strict=True):
        if one is not None or other is not None:
            torch.testing.assert_close(one, other, **NEAR)


@pytest.mark.parametrize("name", EVERY)
def test_a_policy_gives_the_same_and_learns_the_same(name, monkeypatch):
    policy = policy_of(name)
    if policy.packed:
        check(policy, pack_of(), monkeypatch)


@pytest.mark.parametrize("adapter", [Full(), Lora(rank=4)])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_so_does_one_node_for_a_block(name, adapter, monkeypatch):
    check(policy_of(name, adapter, fused=True), pack_of(), monkeypatch)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type == "cpu", reason="needs a CUDA device")
@pytest.mark.parametrize("fused", [False, True])
def test_so_does_a_gpus_own_attention(fused, monkeypatch):
    """In bf16, by cuDNN or torch's flash kernel."""
    policy = policy_of("llama", Lora(rank=4))
    policy = Policy(policy.model.to(torch.bfloat16)).eval()
    assert not fused or fuse_blocks(policy.inner)
    found = read(policy, pack_of())
    monkeypatch.setattr(module, "shared_in", lambda pack: None)
    for one, other in zip(found, read(policy, pack_of()), strict=True):
        if one is not None:
            assert (one - other).float().norm() <= 0.03 * other.float().norm()


def test_recomputed_blocks_learn_the_same(monkeypatch):
    policy = policy_of("llama", Lora(rank=4)).train()
    policy.recompute(None)
    check(policy, pack_of(), monkeypatch)


def test_an_answers_own_noise_is_not_shared(monkeypatch):
    policy, lengths = policy_of().train(), []
    stream = policy._stream
    monkeypatch.setattr(policy, "_stream", lambda ids, *rest: lengths.append(len(ids)) or stream(ids, *rest))
    policy.likelihood(pack_of().to(DEVICE), embedding_noise=5.0)
    assert lengths == [pack_of().num_tokens]


def test_rows_of_one_answer_share_nothing():
    assert shared_in(pack_of([(30, [5]), (30, [5])])) is None
    assert shared_in(pack_of([(SHORTEST - 1, [5, 6])])) is None
    assert shared_in(pack_of([(SHORTEST, [5, 6])])) is not None


@given(
    st.lists(st.tuples(st.integers(1, 40), st.lists(st.integers(1, 9), min_size=1, max_size=4)), min_size=1, max_size=5)
)
def test_every_token_is_there_once_and_gradients_are_summed_over_all_its_places(rows):
    pack = pack_of(rows, vocabulary=6)  # answers begin alike by chance too
    shared = shared_in(pack)
    if shared is None:
        return
    ids, positions = pack.input_ids, pack.positions
    assert torch.equal(ids[shared.firsts_U][shared.places_T], ids)
    assert torch.equal(positions[shared.firsts_U][shared.places_T], positions)
    d = torch.randn(pack.num_tokens, 3, dtype=torch.float64)
    expected = torch.zeros(len(shared.firsts_U), 3, dtype=torch.float64).index_add(0, shared.places_T, d)
    torch.testing.assert_close(shared.sums(d.float()), expected.float(), rtol=1e-5, atol=1e-5)
    for places, among in shared.again:
        assert len(set(among.tolist())) == len(among)
        assert torch.equal(shared.places_T[places], among)

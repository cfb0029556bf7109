"""The fused output layer says what float64 cross-entropy says, gradients too, and never holds a batch's logits."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from torch.utils._python_dispatch import TorchDispatchMode

from danlu.models.kernels import linear_logprob as kernel
from danlu.models.kernels.linear_logprob import Shape, linear_logprob, plain_linear_logprob

N, H, V = 13, 8, 23
SHAPES = [Shape(), Shape(scale=0.25), Shape(softcap=2.0), Shape(scale=1.7, softcap=3.0)]


def draw(*sizes: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def inputs(learns: str, *, bias: bool, tokens: int = N, vocabulary: int = V) -> tuple[Tensor, Tensor, Tensor | None]:
    """Leaves, of which those named in `learns` (h, w, b) want a gradient."""
    hidden, weight = draw(tokens, H, seed=1), draw(vocabulary, H, seed=2)
    offset = draw(vocabulary, seed=3) if bias else None
    for name, leaf in zip("hwb", (hidden, weight, offset), strict=True):
        if leaf is not None:
            leaf.requires_grad_(name in learns)
    return hidden, weight, offset


def chosen(tokens: int = N, vocabulary: int = V) -> Tensor:
    return torch.randint(vocabulary, (tokens,), generator=torch.Generator().manual_seed(4))


def reference(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, shape: Shape
) -> tuple[Tensor, Tensor, Tensor]:
    """By torch's own functions in float64. The mean log-probability is read off a smoothed cross-entropy."""
    logits = linear(hidden.double(), weight.double(), None if bias is None else bias.double()) * shape.scale
    if shape.softcap is not None:
        logits = torch.tanh(logits / shape.softcap) * shape.softcap
    logp = -cross_entropy(logits, targets, reduction="none")
    average = -cross_entropy(logits, targets, reduction="none", label_smoothing=1.0)
    return logp, logits.exp().sum(-1).log(), average


def gradients(outputs: tuple[Tensor, ...], leaves: list[Tensor], upstream: list[Tensor]) -> tuple[Tensor, ...]:
    total = sum((out.double() * up).sum() for out, up in zip(outputs, upstream, strict=True))
    return torch.autograd.grad(total, leaves)


@pytest.fixture(params=[(1, 0), (1, 4), (5, 3), (5, N), (N, 0), (1000, 1000)], ids="{0[0]}-at-once-{0[1]}-kept".format)
def chunk(request, monkeypatch):
    """Borders of chunks anywhere, and room to keep the probabilities of none, some or all tokens."""
    at_once, kept = request.param
    monkeypatch.setitem(kernel.CHUNK_BYTES, "cpu", 4 * V * at_once)
    monkeypatch.setitem(kernel.KEPT_BYTES, "cpu", 4 * V * kept)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("learns", ["h", "w", "hw", "hwb", "b"])
def test_values_and_gradients_are_those_of_float64_cross_entropy(learns, bias, shape):
    hidden, weight, offset = inputs(learns, bias=bias)
    targets, upstream = chosen(), [draw(N, seed=seed, dtype=torch.float64) for seed in (5, 6, 7)]
    found = linear_logprob(hidden, weight, offset, targets, shape)
    expected = reference(hidden, weight, offset, targets, shape)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    leaves = [leaf for leaf in (hidden, weight, offset) if leaf is not None and leaf.requires_grad]
    if not leaves:
        return
    for ours, theirs in zip(gradients(found, leaves, upstream), gradients(expected, leaves, upstream), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("only", range(3), ids=["logp", "logsumexp", "average"])
@pytest.mark.parametrize("learns", ["h", "hw"])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[3]], ids=str)
def test_each_output_has_its_own_gradient(only, learns, shape):
    hidden, weight, _ = inputs(learns, bias=False)
    leaves = [leaf for leaf in (hidden, weight) if leaf.requires_grad]
    up = draw(N, seed=8)
    found = torch.autograd.grad((linear_logprob(hidden, weight, None, chosen(), shape)[only] * up).sum(), leaves)
    exact = torch.autograd.grad((reference(hidden, weight, None, chosen(), shape)[only] * up).sum(), leaves)
    for ours, theirs in zip(found, exact, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_plain_twin_is_float64_cross_entropy_too(shape):
    hidden, weight, bias = inputs("", bias=True)
    found = plain_linear_logprob(hidden, weight, bias, chosen(), shape)
    for ours, theirs in zip(found, reference(hidden, weight, bias, chosen(), shape), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("learns", ["h", "hwb"])
def test_no_tokens_give_no_values_and_no_gradient(learns):
    hidden, weight, bias = inputs(learns, bias=True, tokens=0)
    outputs = linear_logprob(hidden, weight, bias, chosen(0))
    assert [tuple(out.shape) for out in outputs] == [(0,)] * 3
    sum(out.sum() for out in outputs).backward()
    assert hidden.grad.shape == (0, H)
    if "w" in learns:
        assert not weight.grad.any()
        assert not bias.grad.any()


def test_bf16_is_as_near_as_its_inputs_allow():
    hidden, weight, _ = inputs("", bias=False, tokens=64, vocabulary=300)
    hidden, weight = hidden.bfloat16().requires_grad_(), weight.bfloat16()
    targets = chosen(64, 300)
    found, exact = linear_logprob(hidden, weight, None, targets), reference(hidden, weight, None, targets, Shape())
    for ours, theirs in zip(found, exact, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).abs().max() < 0.05
    ours, theirs = (torch.autograd.grad(out[0].sum(), hidden)[0].double() for out in (found, exact))
    assert (ours - theirs).norm() / theirs.norm() < 0.01


def test_huge_logits_do_not_overflow():
    hidden, weight, _ = inputs("hw", bias=False)
    logp, normalizer, average = linear_logprob(hidden * 1e4, weight, None, chosen())
    (logp.sum() + normalizer.sum() + average.sum()).backward()
    for value in (logp, normalizer, average, hidden.grad, weight.grad):
        assert value.isfinite().all()


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, (list, tuple)) else [out]:
            if isinstance(each, Tensor):
                self.numel = max(self.numel, each.numel())
        return out


@pytest.mark.parametrize("learns", ["h", "hw"])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[3]], ids=str)
def test_the_logits_of_a_batch_never_exist(learns, shape, monkeypatch):
    tokens, vocabulary, at_once = 600, 500, 40
    monkeypatch.setitem(kernel.CHUNK_BYTES, "cpu", 4 * vocabulary * at_once)
    monkeypatch.setitem(kernel.KEPT_BYTES, "cpu", 4 * vocabulary * at_once)
    hidden, weight, _ = inputs(learns, bias=False, tokens=tokens, vocabulary=vocabulary)
    with Largest() as seen:
        logp, normalizer, average = linear_logprob(hidden, weight, None, chosen(tokens, vocabulary), shape)
        (logp + normalizer + average).sum().backward()
    assert seen.numel == vocabulary * at_once
    assert vocabulary * at_once * 10 < tokens * vocabulary


def test_the_gradient_of_a_frequent_token_is_summed_in_fp32(monkeypatch):
    """A GPU adds the tokens of a target one by one, and a bf16 sum stands still after 256 of them."""
    add, sums = Tensor.index_add_, []

    def one_by_one(total: Tensor, *args, **kwargs) -> Tensor:
        sums.append(total.dtype)
        return add(total, *args, **kwargs)

    monkeypatch.setattr(Tensor, "index_add_", one_by_one)
    hidden, weight = draw(600, H, dtype=torch.bfloat16), draw(V, H, seed=1, dtype=torch.bfloat16).requires_grad_()
    linear_logprob(hidden, weight, None, torch.zeros(600, dtype=torch.long))[0].sum().backward()
    assert sums == [torch.float32]


def test_without_a_way_back_no_probabilities_are_kept(monkeypatch):
    monkeypatch.setitem(kernel.CHUNK_BYTES, "cpu", 4 * V)
    hidden, weight, _ = inputs("hw", bias=False)
    with torch.no_grad(), Largest() as alone:
        linear_logprob(hidden, weight, None, chosen())
    with Largest() as learning:
        linear_logprob(hidden, weight, None, chosen())
    assert alone.numel < N * V <= learning.numel

"""Attention inside segments is torch's own attention of each segment alone, in values and gradients."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from danlu.models.kernels.segment_attention import (
    LONGEST_BLOCK,
    Segments,
    plain_segment_attention,
    segment_attention,
)

D = 8
MIXTURES = [
    [1],
    [1, 1, 1],
    [5, 5, 5],
    [3, 17, 8, 8, 1, 30],
    [40, 2, 39, 1, 3, 41],
    [LONGEST_BLOCK, LONGEST_BLOCK + 1, 4],
    [LONGEST_BLOCK + 90],
]
HEADS = [(2, 2), (6, 2)]


def qkv(length: int, heads: tuple[int, int], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    draw = torch.Generator().manual_seed(length)
    sizes = [(length, heads[0], D), (length, heads[1], D), (length, heads[1], D)]
    return [torch.randn(*size, generator=draw, dtype=torch.float64).to(dtype).requires_grad_() for size in sizes]


def one_by_one(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], scale: float, window: int | None) -> Tensor:
    """torch's attention of each segment, told by a mask of booleans where it may look."""
    out = []
    for q_s, k_s, v_s in zip(q.split(lengths), k.split(lengths), v.split(lengths), strict=True):
        seen = torch.ones(len(q_s), len(q_s), dtype=torch.bool).tril()
        if window is not None:
            seen &= torch.ones_like(seen).triu(1 - window)
        heads = [x.transpose(0, 1)[None] for x in (q_s, k_s, v_s)]
        out.append(scaled_dot_product_attention(*heads, seen, scale=scale, enable_gqa=True)[0].transpose(0, 1))
    return torch.cat(out)


def all_gradients(out: Tensor, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    up = torch.randn(out.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return torch.autograd.grad(out, leaves, up.to(out.dtype))


@pytest.mark.parametrize("attend", [segment_attention, plain_segment_attention])
@pytest.mark.parametrize("lengths", MIXTURES, ids=str)
@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("window", [None, 4, 600])
def test_it_is_torchs_attention_of_each_segment(attend, lengths, heads, window):
    leaves = qkv(sum(lengths), heads, torch.float32)
    found = attend(*leaves, Segments(lengths), scale=0.3, window=window)
    exact = one_by_one(*(leaf.double() for leaf in leaves), lengths, 0.3, window)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(all_gradients(found, leaves), all_gradients(exact, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("longest_block", [4, 512], ids=["some-alone", "all-in-blocks"])
def test_gradients_are_those_of_finite_differences(window, longest_block):
    lengths = [3, 1, 5]
    segments = Segments(lengths, longest_block=longest_block)
    assert torch.autograd.gradcheck(
        lambda q, k, v: segment_attention(q, k, v, segments, scale=0.5, window=window), qkv(9, (4, 2))
    )


@pytest.mark.parametrize("longest_block", [0, 1, 8, 20, 1000])
def test_it_does_not_matter_which_segments_share_a_block(longest_block):
    lengths = [3, 17, 8, 8, 1, 30]
    leaves = qkv(sum(lengths), (4, 2))
    found = segment_attention(*leaves, Segments(lengths, longest_block=longest_block), scale=0.3)
    torch.testing.assert_close(found, one_by_one(*leaves, lengths, 0.3, None))


def test_no_segment_sees_another():
    lengths = [4, 9, 6]
    leaves = qkv(sum(lengths), (2, 2))
    out = segment_attention(*leaves, Segments(lengths), scale=0.3)
    for gradient in torch.autograd.grad(out[4:13].sum(), leaves):
        assert not gradient[:4].any()
        assert not gradient[13:].any()


def test_no_token_sees_a_later_one():
    leaves = qkv(10, (2, 2))
    out = segment_attention(*leaves, Segments([10]), scale=0.3)
    _, d_k, d_v = torch.autograd.grad(out[3].sum(), leaves)
    assert not d_k[4:].any()
    assert not d_v[4:].any()
    assert d_v[:4].all()


@pytest.mark.parametrize("cap", [2.0, 50.0])
def test_the_plain_attention_caps_scores_as_gemma_does(cap):
    lengths = [3, 6]
    q, k, v = qkv(9, (2, 2))
    found = plain_segment_attention(q, k, v, Segments(lengths), scale=1.5, softcap=cap)
    for a, b in ((0, 3), (3, 9)):
        scores = cap * torch.tanh(torch.einsum("thd,shd->hts", q[a:b], k[a:b]) * 1.5 / cap)
        scores = scores.masked_fill(torch.ones(b - a, b - a, dtype=torch.bool).triu(1), float("-inf"))
        exact = torch.einsum("hts,shd->thd", scores.softmax(-1), v[a:b])
        torch.testing.assert_close(found[a:b], exact, rtol=1e-6, atol=1e-6)


def test_the_plain_attention_drops_probabilities():
    torch.manual_seed(0)
    q, k, _ = qkv(64, (2, 2))
    ones = torch.ones(64, 2, D, dtype=torch.float64)
    out = plain_segment_attention(q, k, ones, Segments([64]), scale=0.3, dropout=0.5)
    assert out.std() > 0.1
    assert abs(out.mean() - 1) < 0.1


@pytest.mark.parametrize("lengths", MIXTURES, ids=str)
def test_every_token_has_one_place_in_a_block_or_a_long_span(lengths):
    segments = Segments(lengths)
    places = torch.cat(
        [block.places for block in segments.blocks] + [torch.arange(a, b) for a, b in segments.long_spans]
    )
    assert places.sort().values.tolist() == list(range(sum(lengths)))
    assert segments.cu_seqlens.diff().tolist() == lengths

"""Bytes are counted from when a tensor without data is made until it is freed."""

import pytest
import torch

from danlu.engine.planner.live import AsIfOn, Live


def meta(*shape):
    return torch.empty(*shape, device="meta")


def test_what_is_freed_counts_no_more_but_for_the_peak():
    with Live() as live:
        kept = meta(100)
        gone = kept * 2
        del gone
        view = kept[:50]
    assert live.now == 400
    assert live.peak == 800
    del view, kept
    assert live.now == 0


def test_what_was_there_before_is_not_counted():
    weight = meta(8, 8)
    with Live([weight]) as live:
        product = meta(4, 8) @ weight.T
    assert live.now == product.numel() * 4


def test_questions_about_values_are_answered():
    with Live():
        assert not (meta(3) > 0).any()
        assert meta(3, 2).nonzero().shape == (6, 2)
        assert float(meta(3).sum()) == 1


def test_as_if_on_a_gpu():
    x = meta(1, 4, 8, 16)
    with AsIfOn("cuda"):
        assert x.is_cuda
        assert x.device.type == "cuda"
        assert torch.arange(3, device=x.device).is_meta
        assert not torch.empty(1).is_cuda
        assert torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True).shape == x.shape
    assert not x.is_cuda


def test_attention_keeps_no_scores():
    x = meta(1, 4, 512, 16).requires_grad_()
    with Live([x]) as live, AsIfOn("cpu"):
        out = torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)
    assert live.now < 3 * out.numel() * 4


def test_kernels_are_passed_over_where_there_is_no_data():
    triton = pytest.importorskip("triton")

    @triton.jit
    def kernel(out):
        pass

    with AsIfOn("cuda"):
        assert kernel[(1,)](meta(3)) is None
    with pytest.raises(Exception):  # noqa: B017 - whatever a machine without a GPU says
        kernel[(1,)](meta(3))


def test_without_data_a_tensor_is_on_the_first_gpu():
    """torch asks for the random state of each device that a recomputed block reads from."""
    outline = torch.empty(2, device="meta")
    with AsIfOn("cuda"):
        assert outline.get_device() == 0
        assert torch.empty(2).get_device() == -1
    assert outline.get_device() == -1

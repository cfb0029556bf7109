"""Weights on a grid: how near, how they learn, and that the grid is where they stay."""

import pytest
import torch
from torch import nn

from danlu.models.fake_quantize import RoundedProduct, fake_quantize, round_weights

CASES = [(4, 32), (4, None), (8, 32), (8, None)]


def drawn(*sizes: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize(("bits", "group"), CASES)
def test_each_weight_moves_by_half_a_step_at_most(bits, group):
    weight = drawn(16, 96)
    found = fake_quantize(weight, bits, group)
    grouped = weight.view(-1, group or 96)
    step = grouped.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    codes = found.view_as(grouped) / step
    assert ((found.view_as(grouped) - grouped).abs() <= 0.5001 * step).all()
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-4)
    assert codes.round().unique().numel() <= 2**bits - 1
    error = (found - weight).norm() / weight.norm()
    assert error < {(4, 32): 0.12, (4, None): 0.2, (8, 32): 0.008, (8, None): 0.012}[bits, group]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("bits", "group"), CASES)
def test_what_is_rounded_stays(bits, group, dtype):
    once = fake_quantize(drawn(16, 96, dtype=dtype), bits, group)
    assert torch.equal(fake_quantize(once, bits, group), once) or dtype == torch.bfloat16
    torch.testing.assert_close(
        fake_quantize(once, bits, group), once, rtol=2**-8, atol=0
    )  # a bf16 scale is a rounded one
    assert not fake_quantize(torch.zeros(2, 32), bits, group).any()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("bits", "group"), CASES)
def test_gradients_go_straight_through(bits, group, bias):
    layer, x = nn.Linear(96, 16, bias=bias), drawn(2, 5, 96, seed=1).requires_grad_()
    plain = nn.Linear(96, 16, bias=bias)
    plain.load_state_dict(layer.state_dict())
    plain.weight.data = fake_quantize(layer.weight, bits, group)
    round_weights(layer, bits, group)
    up = drawn(2, 5, 16, seed=2)
    found, exact = layer(x), plain(x)
    assert torch.equal(found, exact)
    ours, theirs = (torch.autograd.grad(y, [x, *m.parameters()], up) for y, m in ((found, layer), (exact, plain)))
    for one, other in zip(ours, theirs, strict=True):
        assert one.any()
        torch.testing.assert_close(one, other)


def test_nothing_rounded_is_kept_for_the_way_back():
    weight, x = drawn(8, 32).requires_grad_(), drawn(3, 32)
    out = RoundedProduct.apply(x, weight, None, 4, 32)
    assert [saved.data_ptr() for saved in out.grad_fn.saved_tensors] == [x.data_ptr(), weight.data_ptr()]

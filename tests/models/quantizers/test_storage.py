"""What is stored, and how near it is to what was there."""

import bitsandbytes as bnb
import pytest
import torch
from torch import Tensor, nn

from danlu.models.quantizers.base import quantizers

BOUND = {"NF4": 0.12, "Int8": 0.01, "FP8": 0.03}
BITS = {"nf4": 4 + 8 / 64 + 32 / (64 * 256), "int8": 8, "fp8": 8}
# https://arxiv.org/abs/2305.14314, appendix E
BELOW = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
]
ABOVE = [0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
NEAR_0 = [-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725]
NORMAL_FLOAT4 = torch.tensor([*BELOW, *NEAR_0, *ABOVE], dtype=torch.float64)


def relative(found: Tensor, exact: Tensor) -> float:
    return ((found - exact).norm() / exact.norm()).item()


def test_errors_are_bounded(quantizer, linear):
    layer, x = quantizer.layer(linear), torch.randn(200, linear.in_features)
    bound = BOUND[type(quantizer).__name__]
    assert bound / 10 < relative(layer.dense(), linear.weight) < bound
    assert relative(layer(x), linear(x)) < bound


def test_nf4_is_the_nearest_of_sixteen_numbers_in_each_block_of_64(linear):
    flat = linear.weight.double().flatten()
    blocks = nn.functional.pad(flat, (0, -len(flat) % 64)).view(-1, 64)
    largest = blocks.abs().amax(1, keepdim=True)
    nearest = NORMAL_FLOAT4[(blocks[..., None] / largest[..., None] - NORMAL_FLOAT4).abs().argmin(-1)]
    exact = (nearest * largest).flatten()[: len(flat)].view_as(linear.weight).float()
    found = quantizers["nf4"](double_quant=False).layer(linear).dense()
    assert (found - exact).abs().max() < 1e-6 * linear.weight.abs().max()
    twice = quantizers["nf4"]().layer(linear).dense()
    assert 0 < (twice - found).abs().max() < 0.05 * linear.weight.abs().max()


def test_nf4_is_bitsandbytes_own():
    weight = torch.randn(96, 128, generator=torch.Generator().manual_seed(0))
    layer = nn.Linear(128, 96)
    layer.weight.data = weight
    for double in (True, False):
        packed, state = bnb.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=double, blocksize=64)
        found = quantizers["nf4"](double_quant=double).layer(layer)
        assert torch.equal(found.weight, packed)
        assert torch.equal(found.dense(), bnb.functional.dequantize_4bit(packed, state))


def test_int8_rounds_to_half_a_step_and_is_bitsandbytes_own(linear):
    layer = quantizers["int8"]().layer(linear)
    step = linear.weight.abs().amax(1, keepdim=True) / 127
    assert ((layer.dense() - linear.weight).abs() <= 0.501 * step).all()
    codes, _, _ = bnb.functional.int8_vectorwise_quant(linear.weight.half())
    assert ((layer.weight - codes).abs() <= 1).all()  # theirs are of the weights in fp16
    assert (layer.weight == codes).float().mean() > 0.95


def test_fp8_keeps_four_digits_of_all_but_the_smallest(linear):
    layer = quantizers["fp8"]().layer(linear)
    assert torch.equal(layer.float8.float() * layer.scale, layer.dense())
    smallest = linear.weight.abs().amax(1, keepdim=True) * 2**-14
    assert ((layer.dense() - linear.weight).abs() <= linear.weight.abs() * 2**-4 + smallest).all()
    assert layer.float8.float().abs().amax(1).eq(448).all()


def test_a_row_of_zeros_stays_zero(quantizer, linear):
    linear.weight[3] = 0
    found = quantizer.layer(linear).dense()
    assert found.isfinite().all()
    assert not found[3].any() or linear.in_features % 64  # a block may lie over two rows
    linear.weight.zero_()
    assert not quantizer.layer(linear).dense().any()


@pytest.mark.parametrize("name", BITS)
def test_bits_for_each_weight(name):
    layer = quantizers[name]().layer(nn.Linear(1024, 1024, bias=False))
    stored = sum(8 * value.nbytes for value in layer.state_dict().values())
    assert stored / 1024**2 == pytest.approx(BITS[name], rel=0.01)

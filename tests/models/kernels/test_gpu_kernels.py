"""A GPU's kernels against the plain arithmetic that defines them: as they are, or in Triton's interpreter."""

import pytest
import torch

from danlu.models.kernels import float8_product, gated, head_norm, nf4, rms_norm, rotary, row_softmax
from danlu.models.quantizers.base import quantizers

pytest.importorskip("triton")
HAS_GPU = torch.cuda.is_available()
DEVICE = "cuda" if HAS_GPU else "cpu"
MODULES = (rms_norm, gated, rotary, row_softmax, float8_product, nf4, head_norm)
SIZES = [(1, 16), (5, 48), (37, 1000)]


@pytest.fixture(autouse=True)
def launched(monkeypatch):
    """Without a GPU, Triton's interpreter (tests/conftest.py asks for it) runs what a GPU would."""
    monkeypatch.setattr(rms_norm, "SHARES", 7)  # so that some programs have several rows
    monkeypatch.setattr(head_norm, "SHARES", 1)
    for module in MODULES:
        monkeypatch.setattr(module, "runs_kernels", lambda x: True)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


def padded(rows: int, columns: int) -> torch.Tensor:
    """A view whose rows lie farther apart than they are long."""
    return torch.full((rows, columns + 8), 7.0, device=DEVICE)[:, :columns]


def untouched(view: torch.Tensor) -> bool:
    """Whether nothing was written behind a view's rows."""
    rows, columns = view.shape
    behind = torch.as_strided(view, (rows, 8), (columns + 8, 1), view.storage_offset() + columns)
    return bool((behind == 7.0).all())


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_rms_norm(rows, columns):
    x, d_y, beside = (random(rows, columns, seed=n) for n in range(3))
    weight = random(columns, seed=3)
    found, expected = padded(rows, columns), padded(rows, columns)
    inverse = rms_norm.rms_norm(x, weight, 1e-5, found)
    torch.testing.assert_close(inverse, rms_norm.plain_rms_norm(x, weight, 1e-5, expected))
    torch.testing.assert_close(found, expected)
    assert untouched(found)
    for learns in (False, True):
        mine, of_weight = rms_norm.rms_norm_backward(d_y, x, weight, inverse, beside, learns=learns)
        theirs, expected = rms_norm.plain_rms_norm_backward(d_y, x, weight, inverse, beside, learns=learns)
        torch.testing.assert_close(mine, theirs)
        assert learns == (of_weight is not None)
        if learns:
            torch.testing.assert_close(of_weight, expected)


@pytest.mark.parametrize("ranks", [0, 3, 16, 40])
@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_gated(rows, columns, ranks):
    both, d_out = random(rows, 2 * columns), random(rows, columns, seed=1)
    found, expected = padded(rows, columns), padded(rows, columns)
    gated.gated(both, found)
    gated.plain_gated(both, expected)
    torch.testing.assert_close(found, expected)
    assert untouched(found)
    low, a = random(rows, ranks + 2, seed=2)[:, 1 : 1 + ranks], random(ranks, columns, seed=3)
    again = padded(rows, columns)
    torch.testing.assert_close(
        gated.gated_backward(d_out, both, low, a, 0.5, again),
        gated.plain_gated_backward(d_out, both, low, a, 0.5),
        atol=2e-2 if HAS_GPU else 1e-5,  # a GPU's tiles multiply fp32 as tf32
        rtol=1e-2 if HAS_GPU else 1e-5,
    )
    assert torch.equal(again, found)  # to the bit: what learns from it learns from what was there
    assert untouched(again)


@pytest.mark.parametrize("turned", [0, 2, 3])
def test_rotate(turned):
    rows, heads, half = 7, 3, 8
    x, angles = random(rows, heads * 2 * half), random(rows, half, seed=1)
    found, expected = padded(rows, heads * 2 * half), padded(rows, heads * 2 * half)
    for back in (False, True):
        rotary.rotate(x, angles.cos(), angles.sin(), found, turned, back=back)
        rotary.plain_rotate(x, angles.cos(), angles.sin(), expected, turned, back=back)
        torch.testing.assert_close(found, expected)
    assert untouched(found)
    there = x.clone()
    rotary.rotate(there, angles.cos(), angles.sin(), there, turned)
    rotary.rotate(there, angles.cos(), angles.sin(), there, turned, back=True)
    torch.testing.assert_close(there, x)


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize("vocabulary", [5, 4096, 5000])
def test_row_softmax(vocabulary, writes):
    logits, targets = 5 * random(3, vocabulary), torch.tensor([0, vocabulary - 1, 3], device=DEVICE)
    found = torch.empty_like(logits) if writes else None
    expected = torch.empty_like(logits) if writes else None
    mine = row_softmax.row_softmax(logits, targets, found)
    theirs = row_softmax.plain_row_softmax(logits, targets, expected)
    for one, other in zip((*mine, found), (*theirs, expected), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("widest", [float8_product.WIDEST, 16])
@pytest.mark.parametrize("by_column", [True, False])
@pytest.mark.parametrize(("rows", "columns"), [*SIZES, (2, 5000)])
def test_quantize_rows(rows, columns, by_column, widest, monkeypatch):
    monkeypatch.setattr(float8_product, "WIDEST", widest)
    x = padded(rows, columns).copy_(random(rows, columns))
    x[0] = 0  # a row of zeros has a scale too
    factors = random(columns, 1, seed=1).abs() if by_column else None
    if not HAS_GPU:  # the interpreter computes with numpy, which has no 8-bit floats
        monkeypatch.setattr(float8_product, "FLOAT8", torch.float32)
    found, scales = float8_product.quantize_rows(x, factors)
    expected, plain_scales = float8_product.plain_quantize_rows(x, factors)
    torch.testing.assert_close(scales, plain_scales)
    torch.testing.assert_close(found.float(), expected.float(), atol=1e-3, rtol=0.07 if HAS_GPU else 1e-5)


@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize(("outputs", "inputs"), [(3, 64), (5, 192), (70, 320)])
def test_nf4_weights_are_made_dense_in_place(outputs, inputs, double_quant):
    linear = torch.nn.Linear(inputs, outputs, bias=False, device=DEVICE).requires_grad_(False)
    layer = quantizers["nf4"](double_quant=double_quant).layer(linear)
    found = padded(outputs, inputs)
    layer.dense_into(found)
    torch.testing.assert_close(found, layer.dense(), atol=0, rtol=1e-6)
    assert untouched(found)


def test_nf4_blocks_that_cross_rows_are_left_to_the_library():
    linear = torch.nn.Linear(96, 64, bias=False, device=DEVICE).requires_grad_(False)
    layer = quantizers["nf4"]().layer(linear)
    found = padded(64, 96)
    layer.dense_into(found)
    assert torch.equal(found, layer.dense())
    assert untouched(found)


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize(("tokens", "size"), [(1, 16), (37, 24)])
def test_head_norm(tokens, size, learns):
    """Three query heads, two key heads and two that stay."""
    x, d, heads = random(tokens, 7 * size), random(tokens, 7 * size, seed=1), (3, 2)
    weights = random(size, seed=2), random(size, seed=3)
    found, expected = padded(tokens, 7 * size), padded(tokens, 7 * size)
    inverse = head_norm.head_norm(x, *weights, 1e-5, found, heads)
    torch.testing.assert_close(inverse, head_norm.plain_head_norm(x, *weights, 1e-5, expected, heads))
    torch.testing.assert_close(found, expected)
    assert untouched(found)
    assert torch.equal(found[:, 5 * size :], x[:, 5 * size :])
    mine, plain = padded(tokens, 7 * size).copy_(d), d.clone()
    of_weights = head_norm.head_norm_backward(mine, x, *weights, inverse, heads, learns=learns)
    of_plain = head_norm.plain_head_norm_backward(plain, x, *weights, inverse, heads, learns=learns)
    torch.testing.assert_close(mine, plain)
    assert untouched(mine)
    assert torch.equal(mine[:, 5 * size :], d[:, 5 * size :])
    for one, other in zip(of_weights, of_plain, strict=True):
        assert (one is not None) == learns
        if learns:
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)

"""A GPU's kernels against the plain arithmetic that defines them: as they are, or in Triton's interpreter."""

import pytest
import torch

from danlu.models.kernels import float8_product, gated, rms_norm, rotary, row_softmax

pytest.importorskip("triton")
HAS_GPU = torch.cuda.is_available()
DEVICE = "cuda" if HAS_GPU else "cpu"
MODULES = (rms_norm, gated, rotary, row_softmax, float8_product)
SIZES = [(1, 16), (5, 48), (37, 1000)]


@pytest.fixture(autouse=True)
def launched(monkeypatch):
    """Without a GPU, Triton's interpreter (tests/conftest.py asks for it) runs what a GPU would."""
    monkeypatch.setattr(rms_norm, "SHARES", 7)  # so that some programs have several rows
    for module in MODULES:
        monkeypatch.setattr(module, "runs_kernels", lambda x: True)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


VIEW = torch.Tensor.view
KIND = torch.bfloat16 if HAS_GPU else torch.float32


def scaled_product(a, b, scale_a, scale_b, **_: object) -> torch.Tensor:
    """What a GPU's scaled product gives."""
    return (a * scale_a) @ (b * scale_b)


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
    torch.testing.assert_close(
        gated.gated_backward(d_out, both, low, a, 0.5),
        gated.plain_gated_backward(d_out, both, low, a, 0.5),
        atol=2e-2 if HAS_GPU else 1e-5,  # a GPU's tiles multiply fp32 as tf32
        rtol=1e-2 if HAS_GPU else 1e-5,
    )


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


@pytest.mark.parametrize("by_column", [True, False])
@pytest.mark.parametrize(("rows", "columns"), [*SIZES, (2, 5000)])
def test_quantize_rows(rows, columns, by_column, monkeypatch):
    x = padded(rows, columns).copy_(random(rows, columns))
    x[0] = 0  # a row of zeros has a scale too
    factors = random(columns, 1, seed=1).abs() if by_column else None
    if not HAS_GPU:  # the interpreter computes with numpy, which has no 8-bit floats
        monkeypatch.setattr(float8_product, "FLOAT8", torch.float32)
    found, scales = float8_product.quantize_rows(x, factors)
    expected, plain_scales = float8_product.plain_quantize_rows(x, factors)
    torch.testing.assert_close(scales, plain_scales)
    torch.testing.assert_close(found.float(), expected.float(), atol=1e-3, rtol=0.07 if HAS_GPU else 1e-5)


@pytest.mark.parametrize("widest", [float8_product.WIDEST, 16])
def test_products_with_a_rounded_weight(widest, monkeypatch):
    """Near the exact ones, both ways, and always of the weight as it is now; rows longer than a program holds too."""
    monkeypatch.setattr(float8_product, "WIDEST", widest)
    if not HAS_GPU:
        monkeypatch.setattr(float8_product, "FLOAT8", torch.float32)
        monkeypatch.setattr(float8_product.torch, "_scaled_mm", scaled_product)
        monkeypatch.setattr(
            torch.Tensor, "view", lambda x, *shape: x if shape[0] in (torch.uint8, torch.float32) else VIEW(x, *shape)
        )
    weight, x, d_y = random(48, 64), random(32, 64, seed=1).to(KIND), random(32, 48, seed=2).to(KIND)
    weight = weight.to(KIND)
    product = float8_product.RoundedWeight(weight)
    for _ in range(2):
        for found, expected in ((product.forward(x), x @ weight.T), (product.backward(d_y), d_y @ weight)):
            assert found.shape == expected.shape
            assert (found - expected).float().norm() < (0.05 if HAS_GPU else 1e-3) * expected.float().norm()
        weight.mul_(-0.3)

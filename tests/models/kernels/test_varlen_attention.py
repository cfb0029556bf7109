"""Attention inside segments says what plain arithmetic says, whatever runs it: on a GPU cuDNN's kernels or torch's."""

import pytest
import torch

from danlu.models.kernels import ragged_attention, varlen_attention
from danlu.models.kernels.segment_attention import Segments, plain_segment_attention
from danlu.models.kernels.varlen_attention import VarlenAttention, attend, attend_backward

HAS_GPU = torch.cuda.is_available()
LENGTHS = [(9,), (7, 1, 30), (130, 64, 3, 200)]
HEADS, KEY_HEADS, SIZE, SCALE = 4, 2, 16, 0.25
pytestmark = pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS")  # the first product of a process on a GPU
WAYS = ["plain", *(["flash", "ragged"] if HAS_GPU else [])]


@pytest.fixture(params=WAYS)
def way(request, monkeypatch) -> torch.dtype:
    """Which kernel runs; its numbers' type."""
    if request.param == "ragged" and ragged_attention.cudnn is None:
        pytest.skip("needs nvidia-cudnn-frontend")
    if request.param == "flash":
        monkeypatch.setattr(varlen_attention, "ragged_works", lambda *given: False)
    return torch.float64 if request.param == "plain" else torch.bfloat16


def heads(tokens: int, dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """One buffer of queries, keys and values, and views of each."""
    width = (HEADS + 2 * KEY_HEADS) * SIZE
    buffer = torch.randn(tokens, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    buffer = buffer.to("cuda" if dtype == torch.bfloat16 else "cpu", dtype)
    return buffer, list(buffer.view(tokens, -1, SIZE).split([HEADS, KEY_HEADS, KEY_HEADS], 1))


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_values_and_gradients_go_where_they_are_wanted(way, lengths, window):
    buffer, views = heads(sum(lengths), way)
    segments = Segments(lengths, buffer.device)
    room = buffer.new_full((len(buffer), HEADS * SIZE + 8), 7.0)
    out = room[:, : HEADS * SIZE].unflatten(1, (HEADS, SIZE))
    kept = attend(views, out, segments, SCALE, window)
    leaves = [view.double().requires_grad_() for view in views]
    expected = plain_segment_attention(*leaves, segments, scale=SCALE, window=window)
    bound = 1e-9 if way == torch.float64 else 0.02
    assert (out.double() - expected).norm() <= bound * expected.norm()
    assert (room[:, HEADS * SIZE :] == 7.0).all()
    d_out = torch.randn_like(out)
    d_buffer = torch.zeros_like(buffer)
    d_heads = d_buffer.view(len(buffer), -1, SIZE).split([HEADS, KEY_HEADS, KEY_HEADS], 1)
    attend_backward(d_out, views, out, kept, d_heads, segments, SCALE, window)
    for found, wanted in zip(d_heads, torch.autograd.grad(expected, leaves, d_out.double()), strict=True):
        assert (found.double() - wanted).norm() <= bound * max(wanted.norm(), 1e-6)


def test_a_model_that_runs_operation_by_operation_gets_the_same(way):
    lengths = (7, 1, 30)
    buffer, views = heads(sum(lengths), way)
    segments = Segments(lengths, buffer.device)
    mine = [view.detach().clone().requires_grad_() for view in views]
    theirs = [view.detach().double().requires_grad_() for view in views]
    out = VarlenAttention.apply(*mine, segments, SCALE, None)
    expected = plain_segment_attention(*theirs, segments, scale=SCALE)
    d_out = torch.randn_like(out)
    bound = 1e-9 if way == torch.float64 else 0.02
    found, wanted = torch.autograd.grad(out, mine, d_out), torch.autograd.grad(expected, theirs, d_out.double())
    for one, other in zip((out, *found), (expected, *wanted), strict=True):
        assert (one.double() - other).norm() <= bound * other.norm()


def test_an_outline_is_never_given_to_cudnn(monkeypatch):
    """A plan runs models without data, on machines with a GPU too."""
    monkeypatch.setattr(ragged_attention, "cudnn", object())
    buffer, _ = heads(9, torch.float64)
    views = list(buffer.to("meta").view(9, -1, SIZE).split([HEADS, KEY_HEADS, KEY_HEADS], 1))
    assert not ragged_attention.ragged_works(views, views[0], Segments([9]), SCALE, None)

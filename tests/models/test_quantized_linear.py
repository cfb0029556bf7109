"""A quantized layer is a linear layer over its dense weight, whoever moves, copies, wraps or trains it."""

import copy

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn

from danlu.models.dense import dense_weight
from danlu.models.fused import fuse_lora
from danlu.models.masters import Masters
from danlu.models.quantized_linear import QuantizedLinear, packed_weights
from danlu.models.quantizers.base import quantizers

T, I, O, R = 7, 96, 64, 4  # noqa: E741 - tokens, inputs, outputs, rank


@pytest.fixture(params=["nf4", "int8", "fp8"])
def layer(request) -> QuantizedLinear:
    torch.manual_seed(3)
    return quantizers[request.param]().layer(nn.Linear(I, O))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, T, I, generator=torch.Generator().manual_seed(1)).requires_grad_()


def dense(layer: QuantizedLinear) -> nn.Linear:
    """A plain layer with the same numbers."""
    plain = nn.Linear(I, O, dtype=layer.compute_dtype)
    plain.weight.data, plain.bias.data = layer.dense(), layer.bias.detach()
    return plain.requires_grad_(False)


def adapted(base: nn.Linear) -> PeftLinear:
    torch.manual_seed(5)
    config = LoraConfig(r=R, lora_alpha=6)
    wrapped = PeftLinear(base, "default", config, r=R, lora_alpha=6)
    nn.init.normal_(wrapped.lora_B["default"].weight, std=0.3)
    return wrapped


def gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, then the gradient of the input and of all that learns."""
    out = module(x)
    up = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)
    return [out, *torch.autograd.grad(out, [x, *(p for p in module.parameters() if p.requires_grad)], up)]


def test_it_is_a_linear_layer_over_its_dense_weight(layer, x):
    for found, exact in zip(gradients(layer, x), gradients(dense(layer), x), strict=True):
        assert torch.equal(found, exact)
    assert isinstance(layer, nn.Linear)
    assert torch.equal(dense_weight(layer), layer.dense())
    plain = nn.Linear(2, 3)
    assert dense_weight(plain) is plain.weight


@pytest.mark.parametrize("fused", [True, False])
def test_lora_over_it_learns_as_pefts_over_the_dense_weight(layer, x, fused):
    ours, theirs = adapted(layer), adapted(dense(layer))
    assert type(ours) is PeftLinear
    if fused:
        assert fuse_lora(nn.ModuleList([ours])) == 1
    expected = gradients(theirs, x)
    assert len(expected) == 4
    for found, exact in zip(gradients(ours, x), expected, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_nothing_of_the_dense_weight_is_kept_for_the_way_back(layer, x, fused):
    wrapped = adapted(layer)
    fuse_lora(nn.ModuleList([wrapped] if fused else []))
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.shape), t)[1], lambda t: t):
        wrapped(x)
    assert kept
    assert not {(O, I), (I, O)} & {tuple(shape) for shape in kept}


def test_it_is_compiled_in_one_piece(layer, x):
    wrapped = adapted(layer)
    fuse_lora(nn.ModuleList([wrapped]))
    expected = gradients(wrapped, x)
    compiled = torch.compile(wrapped, backend="aot_eager", fullgraph=True)
    for found, exact in zip(gradients(compiled, x), expected, strict=True):
        assert torch.equal(found, exact)


@pytest.mark.parametrize(
    "cast", [lambda m: m.to(torch.bfloat16), lambda m: m.bfloat16(), lambda m: m.half().bfloat16()]
)
def test_casting_changes_what_it_gives_and_not_what_it_keeps(layer, cast):
    before, exact = {k: v.clone() for k, v in layer.state_dict().items()}, layer.dense()
    cast(layer)
    assert all(torch.equal(layer.state_dict()[name], value) for name, value in before.items() if name != "bias")
    assert layer.dense().dtype == layer.bias.dtype == torch.bfloat16
    assert torch.equal(layer.dense(), exact.bfloat16())
    assert torch.equal(layer.float().dense(), exact)


def test_masters_leave_its_codes_alone(layer, x):
    wrapped = adapted(layer)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    masters = Masters(wrapped, torch.bfloat16)
    assert set(masters.parameters) == {"lora_A.default.weight", "lora_B.default.weight"}
    assert all(torch.equal(layer.state_dict()[name], value) for name, value in before.items() if name != "bias")
    out = wrapped(x.detach().bfloat16())
    out.float().square().sum().backward()
    assert out.dtype == torch.bfloat16
    assert all(master.grad is not None for master in masters.parameters.values())


def test_a_shell_on_no_device_has_its_shapes(layer):
    with torch.device("meta"):
        empty = nn.Linear(I, O)
    name = type(layer).__name__.removesuffix("Linear").lower()
    shell = quantizers[name]().layer(empty).state_dict()
    assert all(value.is_meta for value in shell.values())
    assert {k: (v.shape, v.dtype) for k, v in shell.items()} == {
        k: (v.shape, v.dtype) for k, v in layer.state_dict().items()
    }


def test_a_copy_is_its_own(layer):
    twin = copy.deepcopy(layer)
    layer.weight.data.zero_()
    assert twin.dense().any()


def test_weights_are_counted_not_bytes(layer):
    held = sum(parameter.numel() for parameter in layer.parameters()) + packed_weights(layer)
    assert held == I * O + O

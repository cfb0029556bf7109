"""What the planner counts without data is what a real model keeps, of every architecture."""

import gc
from itertools import accumulate

import numpy as np
import pytest
import torch

from danlu.core.gpus import gpu_called
from danlu.data.packing import Pack
from danlu.engine.config import EngineConfig
from danlu.engine.optimizers import base as optimizing
from danlu.engine.optimizers.adamw import AdamW
from danlu.engine.planner.footprint import footprint
from danlu.engine.planner.holdings import holdings
from danlu.engine.planner.live import AsIfOn
from danlu.engine.planner.plan import Device
from danlu.engine.planner.planner import OutlineBuilder, Planner
from danlu.models.adapters.full import Full
from danlu.models.adapters.lora import Lora
from danlu.models.blocks import blocks_of
from danlu.models.builtin.tiny import ARCHITECTURES
from danlu.models.load import ModelConfig, build_model
from danlu.models.masters import Masters
from danlu.models.outline import outline_pack
from danlu.models.policy import Policy
from danlu.models.quantizers.base import quantizers
from danlu.objectives.sft import SFT

LENGTHS = [96, 96, 96, 96]
ADAPTERS = {"lora": Lora(), "full": Full()}
SOME = ["llama", "gemma2", "moe", "bloom", "gpt2"]
EVERY = [each if each in SOME else pytest.param(each, marks=pytest.mark.slow) for each in ARCHITECTURES]


def sketch(architecture, adapter, dtype, **settings):
    models = {"policy": OutlineBuilder(ModelConfig(path=f"builtin:tiny-{architecture}", **settings), adapter).policy()}
    return models, Masters(torch.nn.ModuleDict(models), dtype)


def trained(architecture, adapter, dtype, **settings):
    model = build_model(ModelConfig(path=f"builtin:tiny-{architecture}", **settings))
    policy = Policy(adapter.apply(model)).train()
    return policy, Masters(torch.nn.ModuleDict({"policy": policy}), dtype)


def a_pack():
    return Pack.of([(np.arange(length) % 200 + 5, np.ones(length, bool)) for length in LENGTHS])


def saved_bytes(policy, pack):
    """What autograd keeps of a forward until the last block's end, each storage once, and what that block returns."""
    own = {each.untyped_storage().data_ptr() for each in (*policy.parameters(), *policy.buffers())}
    kept, at_the_end = {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    def end(module, given, output):
        keep(output if isinstance(output, torch.Tensor) else output[0])
        at_the_end.append(sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in own))

    _, blocks = blocks_of(policy.inner)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hook = blocks[-1].register_forward_hook(end)
        policy.hidden(pack)
        hook.remove()
    return at_the_end[-1]


def measured_peak(policy, masters, pack):
    """The most that torch's allocator gave out at any moment of a real forward and backward."""
    for master in masters.parameters.values():
        master.grad = torch.zeros_like(master)
    gc.collect()  # what earlier tests left must not be freed meanwhile
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        SFT().loss({"policy": policy}, pack).total.backward()
    events = [each for each in profile.profiler.kineto_results.events() if each.name() == "[memory]"]
    return max(accumulate(each.nbytes() for each in sorted(events, key=lambda each: each.start_ns())))


@pytest.mark.parametrize("recomputed", [0, 2])
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("architecture", EVERY)
def test_the_peak_is_what_is_allocated(architecture, adapter, recomputed):
    models, masters = sketch(architecture, ADAPTERS[adapter], torch.float32)
    found = footprint(models, masters, SFT().loss, outline_pack(LENGTHS), AsIfOn("cpu")).peak(recomputed)
    policy, masters = trained(architecture, ADAPTERS[adapter], torch.float32)
    policy.recompute(recomputed)
    assert found == pytest.approx(measured_peak(policy, masters, a_pack()), rel=0.03)


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("architecture", EVERY)
def test_activations_are_what_autograd_keeps(architecture, adapter):
    models, masters = sketch(architecture, ADAPTERS[adapter], torch.float32)
    found = footprint(models, masters, SFT().loss, outline_pack(LENGTHS), AsIfOn("cpu")).kept(0)
    policy, _ = trained(architecture, ADAPTERS[adapter], torch.float32)
    assert found == pytest.approx(saved_bytes(policy, a_pack()), rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("architecture", SOME)
def test_weights_masters_gradients_and_optimizer_are_counted_to_the_byte(architecture, adapter, dtype):
    optimizer = AdamW()
    models, masters = sketch(architecture, ADAPTERS[adapter], dtype)
    found = holdings(models, masters, optimizer)
    policy, real = trained(architecture, ADAPTERS[adapter], dtype)
    everything = [*policy.parameters(), *policy.buffers()]
    own = {id(each) for each in everything}
    assert found.weights == num_bytes(each for each in everything if not each.requires_grad)
    assert found.learning == num_bytes(each for each in everything if each.requires_grad)
    assert found.masters == num_bytes(each for each in real.parameters.values() if id(each) not in own)
    assert found.gradients == num_bytes(gradients_of(real))
    assert found.optimizer == state_bytes(optimizer, real.parameters)


@pytest.mark.parametrize("quantizer", ["nf4", "int8", "fp8"])
def test_quantized_weights_are_counted_to_the_byte(quantizer):
    if quantizer == "nf4":
        pytest.importorskip("bitsandbytes")
    made = quantizers[quantizer]()
    models, masters = sketch("llama", Lora(), torch.float32, quantizer=made)
    policy, real = trained("llama", Lora(), torch.float32, quantizer=made)
    everything = [each for each in (*policy.parameters(), *policy.buffers()) if not each.requires_grad]
    assert holdings(models, masters, AdamW()).weights == num_bytes(everything)
    found = footprint(models, masters, SFT().loss, outline_pack(LENGTHS), AsIfOn("cpu")).peak(0)
    assert found == pytest.approx(measured_peak(policy, real, a_pack()), rel=0.03)


@pytest.mark.parametrize("name", list(optimizing.optimizers))
def test_every_optimizer_says_what_it_keeps(name):
    try:
        kind = optimizing.optimizers[name]
    except ModuleNotFoundError as missing:
        pytest.skip(f"needs {missing.name}")
    optimizer = kind(paged=False) if "paged" in kind.model_fields else kind()
    weights = {"layer.weight": torch.nn.Parameter(torch.randn(256, 512))}
    told = sum(optimizer.state_bytes(*named) for named in weights.items())
    assert told == pytest.approx(state_bytes(optimizer, weights), rel=0.05, abs=4096)


def state_bytes(optimizer, named):
    """The tensors in an optimiser's state after one step, but for counters."""
    for parameter in named.values():
        parameter.grad = torch.full_like(parameter, 1e-3)
    built = optimizer.build(optimizer.groups(named.items()))
    built.step()
    values = [value for state in built.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    return num_bytes(value for value in values if value.numel() > 1)


def gradients_of(masters):
    for parameter in masters.parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    return masters.gradients()


def num_bytes(tensors):
    return sum(each.numel() * each.element_size() for each in tensors)


@pytest.mark.parametrize("quantizer", ["fp8", "int8", None])
def test_what_blocks_hold_beside_their_weights_is_counted(quantizer):
    """fp8 weights are held twice, once transposed, where the GPU multiplies them; nothing else is."""
    chosen = {"quantizer": quantizer} if quantizer else {}
    build = OutlineBuilder(ModelConfig(path="builtin:tiny-llama", **chosen), Lora(rank=4))
    device = Device("h100", "cuda", 80e9, gpu_called("NVIDIA H100 80GB HBM3"))
    engine = EngineConfig(steps=1, precision="bf16")
    planner = Planner(build, SFT(), engine, torch.bfloat16, device, longest=96, most=96)
    _, blocks = blocks_of(planner.policy.inner)
    codes = sum(each.numel() for block in blocks for each in block.parameters() if each.element_size() == 1)
    assert codes <= planner.beside < 1.1 * codes if quantizer == "fp8" else planner.beside == 0
    assert planner.holdings.weights > planner.beside

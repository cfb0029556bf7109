"""What a policy thinks of a pack is what the model's own logits say, whatever is beside, recomputed or compiled."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from danlu.data.packing import Pack
from danlu.models.adapters.full import Full
from danlu.models.adapters.lora import Lora
from danlu.models.builtin.tiny import ARCHITECTURES
from danlu.models.flops import flops_per_token
from danlu.models.load import ModelConfig, build_model
from danlu.models.policy import Policy

QUICK = ["llama", "gemma2", "falcon", "bloom"]  # rotary, capped logits, another block, no packs
EVERY = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ARCHITECTURES]
LENGTHS = [6, 1, 19, 9]


def policy_of(architecture: str = "llama", adapter: Full | Lora | None = None) -> Policy:
    torch.manual_seed(3)
    model = (adapter or Full()).apply(build_model(ModelConfig(path=f"builtin:tiny-{architecture}"), torch.float32))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return Policy(model).eval()


def pack_of(vocabulary: int, lengths: list[int] = LENGTHS, trained: float = 0.6) -> Pack:
    draw = np.random.default_rng(11)
    return Pack.of([(draw.integers(3, vocabulary, n), draw.random(n) < trained) for n in lengths])


def own_logits(policy: Policy, pack: Pack) -> Tensor:
    """[T,V] float64 by the transformers model, one segment after another."""
    rows = pack.input_ids.split(pack.lengths)
    return torch.cat([policy.model(input_ids=ids[None], use_cache=False).logits[0] for ids in rows]).double()


def gradients(policy: Policy, loss: Tensor) -> dict[str, Tensor]:
    policy.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-5) -> None:
    """The difference is less than 1e-5 of a gradient's length; of its largest number less than `rtol`."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        difference = found[name] - gradient
        assert difference.norm() <= 1e-5 * gradient.norm().clamp_min(1e-3), name
        assert difference.abs().max() <= rtol * gradient.abs().max().clamp_min(1e-3), name


@pytest.mark.parametrize("architecture", EVERY)
def test_likelihoods_are_those_of_the_models_own_logits(architecture):
    policy = policy_of(architecture)
    pack = pack_of(policy.inner.config.vocab_size)
    found = policy.likelihood(pack)
    log_p = own_logits(policy, pack).log_softmax(-1)
    trained = pack.targets >= 0
    chosen = log_p[trained].gather(1, pack.targets[trained, None])[:, 0]
    torch.testing.assert_close(found.logps[trained].double(), chosen, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.averages[trained].double(), log_p[trained].mean(-1), rtol=1e-5, atol=1e-5)
    normalizers = own_logits(policy, pack)[trained].logsumexp(-1)
    torch.testing.assert_close(found.normalizers[trained].double(), normalizers, rtol=1e-5, atol=1e-5)
    for values in (found.logps, found.averages, found.normalizers):
        assert values.dtype == torch.float32
        assert not values[~trained].any()
    torch.testing.assert_close(policy.logits(pack).double(), own_logits(policy, pack), rtol=1e-4, atol=1e-5)


def test_a_pack_without_targets_has_zero_likelihood_and_a_gradient_of_zero():
    policy = policy_of()
    pack = pack_of(policy.inner.config.vocab_size, trained=0.0)
    logps = policy.logprobs(pack)
    assert not logps.any()
    assert not any(gradient.any() for gradient in gradients(policy, logps.sum()).values())


@pytest.mark.parametrize("architecture", EVERY)
@pytest.mark.parametrize("blocks", [None, 0, 1])
def test_recomputing_blocks_changes_no_gradient(architecture, blocks):
    policy = policy_of(architecture).train()
    pack = pack_of(policy.inner.config.vocab_size)
    torch.manual_seed(5)  # GPT-2 drops out
    expected = gradients(policy, -policy.logprobs(pack).sum())
    policy.recompute(blocks)
    torch.manual_seed(5)
    assert_same_gradients(gradients(policy, -policy.logprobs(pack).sum()), expected)


@pytest.mark.parametrize(("blocks", "runs"), [(None, 4), (0, 2), (1, 3)])
def test_as_many_blocks_as_asked_are_recomputed(blocks, runs):
    policy = policy_of("llama", Lora(rank=2)).train()
    policy.recompute(blocks)
    seen = []
    for module in policy.inner.modules():
        if type(module).__name__ == "LlamaMLP":
            module.register_forward_pre_hook(lambda *_: seen.append(1))
    pack = pack_of(policy.inner.config.vocab_size)
    policy.logprobs(pack).sum().backward()
    assert len(seen) == runs


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler looks at what it warns about
@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_compiled_blocks_compute_the_same(architecture):
    policy = policy_of(architecture).train()
    pack = pack_of(policy.inner.config.vocab_size)
    expected, loss = gradients(policy, -policy.logprobs(pack).sum()), -policy.logprobs(pack).sum()
    policy.compile_blocks()
    torch.testing.assert_close(-policy.logprobs(pack).sum(), loss, rtol=1e-5, atol=1e-5)
    assert_same_gradients(gradients(policy, -policy.logprobs(pack).sum()), expected, rtol=1e-4)


class Embedded:
    """Keeps what the first block reads."""

    def __init__(self, policy: Policy) -> None:
        policy.inner.model.layers[0].register_forward_pre_hook(self._keep, with_kwargs=True)

    def _keep(self, module, args, kwargs):
        self.rows = (args[0] if args else kwargs["hidden_states"])[0].detach()


def test_noise_has_the_size_of_neftune_in_each_segment():
    policy = policy_of().train()
    seen, lengths = Embedded(policy), [4, 100, 25]
    pack = pack_of(policy.inner.config.vocab_size, lengths)
    policy.hidden(pack)
    plain = seen.rows
    policy.hidden(pack, embedding_noise=5.0)
    for noise, length in zip((seen.rows - plain).split(lengths), lengths, strict=True):
        bound = 5.0 / math.sqrt(length * plain.shape[-1])
        assert noise.abs().max() <= bound * 1.001
        assert noise.abs().max() >= bound * 0.97  # uniform: its largest value is near the bound
        assert abs(noise.std() / (bound / math.sqrt(3)) - 1) < 0.1


def test_noise_has_the_same_size_where_segments_are_read_alone(monkeypatch):
    policy = policy_of().train()
    policy.packed = False
    pack = pack_of(policy.inner.config.vocab_size, [49])
    seen = Embedded(policy)
    policy.hidden(pack)
    plain = seen.rows
    policy.hidden(pack, embedding_noise=5.0)
    bound = 5.0 / math.sqrt(49 * plain.shape[-1])
    assert bound * 0.97 <= (seen.rows - plain).abs().max() <= bound * 1.001


def test_noise_is_for_training_only_and_stays_nowhere():
    policy = policy_of()
    pack = pack_of(policy.inner.config.vocab_size)
    exact = policy.logprobs(pack)
    assert torch.equal(policy.likelihood(pack, embedding_noise=5.0).logps, exact)
    policy.train()
    assert not torch.equal(policy.likelihood(pack, embedding_noise=5.0).logps, exact)
    assert torch.equal(policy.logprobs(pack), exact)


def test_a_policy_that_was_tried_is_as_it_was():
    model = Full().apply(build_model(ModelConfig(path="builtin:tiny-llama"), torch.float32)).train()
    Policy(model)
    assert model.training
    model.eval()
    Policy(model)
    assert not model.training


def test_architectures_that_cannot_keep_segments_apart_are_found_out():
    assert not policy_of("bloom").packed  # its positions are in the attention
    assert policy_of("llama").packed


def test_fresh_weights_do_not_hide_who_reads_foreign_segments():
    """They hardly look around: in bf16 what attention adds is less than what rounding takes."""
    model = build_model(ModelConfig(path="builtin:tiny-llama"), torch.bfloat16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "o_proj" in name:
                parameter.mul_(1e-3)
    assert Policy(copy.deepcopy(model)).packed
    for layer in model.base_model.layers:  # whoever tells the model how to attend does not reach them
        layer.self_attn.config = copy.deepcopy(model.config)
    assert not Policy(model).packed


def test_with_its_adapter_off_a_policy_is_its_base_model():
    policy = policy_of("llama", Lora(embeddings=True))
    pack = pack_of(policy.inner.config.vocab_size)
    with torch.no_grad():
        policy.head.weight.mul_(1.5)
    base = policy_of("llama")
    expected = base.logprobs(pack)
    assert not torch.allclose(policy.logprobs(pack), expected, atol=1e-2)
    with policy.model.disable_adapter():
        torch.testing.assert_close(policy.logprobs(pack), expected)
        torch.testing.assert_close(policy.logits(pack), base.logits(pack))


def test_flops_count_what_learns_twice_more_on_the_way_back():
    full, lora = policy_of("llama"), policy_of("llama", Lora(rank=2))
    vocabulary, hidden = full.inner.get_input_embeddings().weight.shape
    products = sum(p.numel() for p in full.parameters()) - vocabulary * hidden
    assert flops_per_token(full) == 6 * products
    low_rank = sum(p.numel() for p in lora.parameters() if p.requires_grad)
    assert flops_per_token(lora) == 4 * products + 6 * low_rank
    tied = policy_of("qwen2")
    assert flops_per_token(tied) == 6 * sum(p.numel() for p in tied.parameters())


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_mean_log_probabilities_smooth_labels_as_torch_does(smoothing):
    policy = policy_of()
    pack = pack_of(policy.inner.config.vocab_size)
    found = policy.likelihood(pack)
    ours = -((1 - smoothing) * found.logps + smoothing * found.averages).sum()
    logits = own_logits(policy, pack)
    theirs = cross_entropy(logits, pack.targets, ignore_index=-100, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)

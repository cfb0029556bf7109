"""Which parameters are decayed and scaled, and that ours are torch's own."""

import bitsandbytes as bnb
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from danlu.engine.optimizers.base import decays, optimizers, set_lr

TINY = {"vocab_size": 11, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


def test_norms_and_biases_of_llama_are_not_decayed():
    model = AutoModelForCausalLM.from_config(LlamaConfig(**TINY, attention_bias=True))
    spared = {name for name, parameter in model.named_parameters() if not decays(name, parameter)}
    norms = {"model.norm.weight", *(f"model.layers.0.{name}_layernorm.weight" for name in ("input", "post_attention"))}
    assert spared == norms | {f"model.layers.0.self_attn.{name}_proj.bias" for name in "qkvo"}


def test_norms_and_biases_of_gpt2_are_not_decayed():
    model = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=11, n_embd=8, n_layer=1, n_head=2, n_positions=8))
    decayed = {name for name, parameter in model.named_parameters() if decays(name, parameter)}
    assert decayed == {"transformer.wte.weight", "transformer.wpe.weight"} | {
        f"transformer.h.0.{name}.weight" for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("layers.0.q_proj.lora_A.default.weight", (4, 8), True),
        ("layers.0.q_proj.lora_magnitude_vector.default.weight", (8,), False),
        ("encoder.layer_norm.weight", (4, 8), False),
        ("LayerNorm.weight", (4, 8), False),
        ("mixer.A_log", (4, 8), False),
        ("expert_bias", (4, 8), False),
        ("normalizer_proj.weight", (4, 8), False),
        ("value_head.weight", (1, 8), True),
        ("unbiased.weight", (4, 8), True),
    ],
)
def test_names_and_shapes(name, shape, expected):
    assert decays(name, torch.zeros(shape)) is expected


def parameters(names: list[str]) -> list[tuple[str, nn.Parameter]]:
    return [(name, nn.Parameter(torch.ones(2, 2) if "weight" in name else torch.ones(2))) for name in names]


def test_groups_carry_scale_and_decay():
    settings_ = optimizers["adamw"](lr=0.1, weight_decay=0.5)
    named = parameters(["a.weight", "lora_B.weight", "a.bias"])
    groups = settings_.groups(named, lambda name: 16.0 if "lora_B" in name else 1.0)
    found = [(group["lr"], group["lr_scale"], group["weight_decay"], len(group["params"])) for group in groups]
    assert found == [(0.1, 1.0, 0.0, 1), (0.1, 1.0, 0.5, 1), (1.6, 16.0, 0.5, 1)]
    optimizer = settings_.build(groups)
    set_lr(optimizer, 0.01)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.01, 0.16])


def test_what_does_not_learn_is_in_no_group():
    named = parameters(["a.weight", "b.weight"])
    named[0][1].requires_grad_(False)
    (group,) = optimizers["sgd"]().groups(named)
    assert group["params"] == [named[1][1]]


@given(order=st.permutations(["a.weight", "a.bias", "b.weight", "b.bias", "fast.weight"]))
@settings(max_examples=20)
def test_the_order_of_groups_does_not_depend_on_that_of_parameters(order):
    groups = optimizers["sgd"](weight_decay=0.1).groups(parameters(order), lambda name: 2.0 if "fast" in name else 1.0)
    assert [(group["lr_scale"], group["weight_decay"]) for group in groups] == [(1.0, 0.0), (1.0, 0.1), (2.0, 0.1)]


class FactoredTwin:
    """Adafactor of a matrix as its paper's algorithm 4 has it, without momentum and relative steps, in float64."""

    def __init__(self, weight: nn.Parameter, lr: float, decay: float) -> None:
        self.weight, self.lr, self.decay, self.t = weight, lr, decay, 0
        self.rows, self.columns = torch.zeros(5, 1, dtype=torch.float64), torch.zeros(1, 5, dtype=torch.float64)

    def step(self) -> None:
        self.t += 1
        g, w, kept = self.weight.grad.double(), self.weight.detach().double(), 1 - self.t**-0.8
        self.rows = kept * self.rows + (1 - kept) * (g**2 + 1e-30).mean(1, keepdim=True)
        self.columns = kept * self.columns + (1 - kept) * (g**2 + 1e-30).mean(0, keepdim=True)
        u = g / (self.rows @ self.columns / self.rows.mean()).sqrt()
        u = u / max(1.0, float(u.square().mean().sqrt()))
        self.weight.data = (w - self.lr * self.decay * w - self.lr * u).float()


class ScheduleFreeTwin:
    """Schedule-free AdamW by its three sequences, y = (1 - b1) z + b1 x, in float64."""

    def __init__(self, weight: nn.Parameter, lr: float, decay: float, beta1: float, beta2: float) -> None:
        self.weight, self.lr, self.decay, self.betas, self.t = weight, lr, decay, (beta1, beta2), 0
        self.x = self.z = weight.detach().double()
        self.v = torch.zeros_like(self.x)

    def step(self) -> None:
        self.t += 1
        beta1, beta2 = self.betas
        g, y = self.weight.grad.double(), (1 - beta1) * self.z + beta1 * self.x
        self.v = beta2 * self.v + (1 - beta2) * g**2
        self.z = self.z - self.lr * (g / ((self.v / (1 - beta2**self.t)).sqrt() + 1e-8) + self.decay * y)
        self.x = (1 - 1 / self.t) * self.x + self.z / self.t
        self.weight.data = ((1 - beta1) * self.z + beta1 * self.x).float()


@pytest.mark.parametrize(
    ("name", "options", "reference"),
    [
        ("adamw", {"lr": 0.01, "weight_decay": 0.1, "betas": [0.9, 0.95], "eps": 1e-6},
         lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, betas=(0.9, 0.95), eps=1e-6)),
        ("sgd", {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.9, "nesterov": True},
         lambda p: torch.optim.SGD(p, lr=0.01, weight_decay=0.1, momentum=0.9, nesterov=True)),
        ("lion", {"lr": 0.01, "weight_decay": 0.1, "betas": [0.9, 0.98]},
         lambda p: bnb.optim.Lion32bit(p, lr=0.01, weight_decay=0.1, betas=(0.9, 0.98))),
        ("adafactor", {"lr": 0.01, "weight_decay": 0.1}, lambda p: FactoredTwin(p[0], 0.01, 0.1)),
        ("muon", {"lr": 0.01, "weight_decay": 0.1},
         lambda p: torch.optim.Muon(p, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")),
        ("schedule_free", {"lr": 0.01, "weight_decay": 0.1, "betas": [0.9, 0.95]},
         lambda p: ScheduleFreeTwin(p[0], 0.01, 0.1, 0.9, 0.95)),
    ],
)  # fmt: skip
def test_updates_are_the_references(name, options, reference):
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(5, 5))
    theirs = nn.Parameter(ours.detach().clone())
    settings_ = optimizers[name].model_validate(options)
    pair = (settings_.build(settings_.groups([("w", ours)])), ours), (reference([theirs]), theirs)
    for _ in range(10):
        gradient = torch.randn(5, 5)
        for optimizer, parameter in pair:
            parameter.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    for parameter, value in settings_.results(pair[0][0]).items():
        assert parameter is ours
        torch.testing.assert_close(value.double(), pair[1][0].x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2", "gpt-neox", "falcon", "bloom", "moe"])
def test_muon_takes_every_matrix_but_the_tables(architecture, tiny):
    model = AutoModelForCausalLM.from_pretrained(tiny(architecture))
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = optimizers["muon"]().groups(model.named_parameters())
    adamw = {names[each] for group in groups if not group["is_muon"] for each in group["params"]}
    tables = {model.get_input_embeddings().weight, model.get_output_embeddings().weight}
    tables |= {each for each, name in names.items() if name.endswith("wpe.weight")}
    assert adamw == {name for each, name in names.items() if each.ndim != 2 or each in tables}
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_muon_learns_the_matrices_of_an_adapter_and_its_tables_apart():
    named = parameters(["x.lora_A.default.weight", "lm_head.modules_to_save.default.weight", "x.lora_magnitude"])
    groups = optimizers["muon"]().groups(named)
    assert [group["params"] for group in groups if group["is_muon"]] == [[named[0][1]]]


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(ValueError, match="momentum"):
        optimizers["sgd"](nesterov=True)

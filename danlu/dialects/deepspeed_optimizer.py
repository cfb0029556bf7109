"""DeepSpeed's `optimizer` block as `engine.optimizer`."""

from collections.abc import Callable
from typing import Any

from danlu.core.parts import did_you_mean
from danlu.dialects.reading import Block, is_number

OPTIMIZERS = {"adam": "adamw", "adamw": "adamw", "lamb": "lamb", "lion": "lion", "sgd": "sgd"}
"""by DeepSpeed's name; its Adam is AdamW unless it says otherwise"""
NOT_HAD = {
    "muon": "its rates mean something else here; take the block out and say engine.optimizer={name: muon, lr: …}",
    "adagrad": "", "onebitadam": "", "onebitlamb": "", "zerooneadam": "", "muadam": "", "muadamw": "", "musgd": "",
}  # fmt: skip
"""known to DeepSpeed, not to be had from its files"""
SETTINGS = {
    "adamw": ["betas", "eps"], "lamb": ["betas", "eps"], "lion": ["betas"], "sgd": ["momentum", "nesterov"],
}  # fmt: skip
"""what each takes besides lr and weight_decay"""
IDLE = {
    "torch_adam": "every optimiser is torch's, or faster", "fused": "every optimiser is fused where it can be",
    "foreach": "every optimiser is fused where it can be", "fp32_optimizer_states": "states are kept in fp32",
    "bias_correction": "means are corrected for their start", "max_coeff": "the step's ratio is not clamped",
    "min_coeff": "the step's ratio is not clamped", "eps_inside_sqrt": "eps is added to the root",
}  # fmt: skip


def read_optimizer(block: Block) -> None:
    """The optimiser and its numbers; what is "auto" or left out stays as the recipe has it."""
    inner = block.block("optimizer")
    kind = inner.take("type")
    params = inner.block("params")
    inner.close({"legacy_fusion": "every optimiser is fused where it can be"}, taken=["type", "params"])
    if kind is None:
        if params.left:
            inner.refuse("type", "missing; it names the optimiser, such as AdamW")
        return
    name = OPTIMIZERS.get(str(kind).lower())
    if name is None:
        known = ["Adam", "AdamW", "Lamb", "Lion", "SGD"]
        hint = "" if str(kind).lower() in NOT_HAD else did_you_mean(str(kind), known)
        why = (
            NOT_HAD.get(str(kind).lower()) or f"take the block out and say engine.optimizer (read: {', '.join(known)})"
        )
        inner.refuse("type", f"{kind} is not had{hint or '; ' + why}")
    settings = read_numbers(params, name)
    if params.switch("adam_w_mode") is False and str(kind).lower() == "adam" and settings.get("weight_decay"):
        params.refuse("adam_w_mode", "Adam with decay inside its gradient is not had; say true, or weight_decay 0")
    for key in ("amsgrad", "maximize", "dampening"):
        if params.take(key):
            params.refuse(key, "not had; take it out")
    if params.take("max_grad_norm") is not None:
        params.refuse("max_grad_norm", "say gradient_clipping, beside the block")
    if name == "lamb":
        settings["nvlamb"] = True  # theirs scales every tensor's step
        block.reading.not_needed(inner.at("type"), "the ratio of a step is not clamped between 0.01 and 10")
    params.close(IDLE, taken=["lr", "weight_decay", *SETTINGS[name]])
    block.reading.becomes(f"{inner.at('type')} {kind}", "engine.optimizer", {"name": name, **settings})


def read_numbers(params: Block, name: str) -> dict[str, Any]:
    """The settings that a file gives an optimiser."""
    wanted = ["lr", "weight_decay", *SETTINGS[name]]
    found = {key: OTHERWISE.get(key, Block.number)(params, key) for key in wanted}
    return {key: value for key, value in found.items() if value is not None}


def betas(params: Block, key: str) -> list[float] | None:
    """Two numbers below 1."""
    value = params.take(key)
    if value is None or value == ["auto", "auto"]:
        return None
    if not (isinstance(value, list) and len(value) == 2 and all(is_number(each) and 0 <= each < 1 for each in value)):
        params.refuse(key, f"two numbers below 1 are expected, found {value!r:.80}")
    return value


OTHERWISE: dict[str, Callable[[Block, str], Any]] = {"betas": betas, "nesterov": Block.switch}
"""settings that are no single number"""

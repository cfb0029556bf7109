"""PandaLLM's Hydra files: `ds_cfg` holds DeepSpeed's keys, `fairscale_config` a wrap into shards, as FSDP.

`_target_` names a function of theirs; it is looked up in a table here and never called.
"""

import re
from typing import Any

from danlu.core.config import REFERENCE, resolve, texts_of
from danlu.core.parts import did_you_mean
from danlu.dialects.deepspeed import deal_out, deepspeed
from danlu.dialects.reading import Block, Reading

BLOCKS = ["ds_cfg", "fairscale_config", "fsdp_config"]
WRAPS = {
    "fsdp_utils.default_initialize": "the whole model as one unit",
    "fsdp_utils.default_initialize_v2": "units of a least size",
    "fsdp_utils.recursive_initialize": "units of a least size",
    "torch_fsdp_utils.torch_fsdp_initialize_default": "units of one class",
    "torch_fsdp_utils.torch_fsdp_auto_wrap": "the whole model as one unit",
    "torch_fsdp_utils.torch_fsdp_size_auto_wrap": "units of a least size",
    "torch_fsdp_utils.torch_fsdp_transformer_init": "units of one class",
    "torch_fsdp_utils.torch_fsdp_peft_auto_wrap": "units that suit an adapter",
}
"""functions in PandaLLM's `general_util`, and how each cuts a model"""
TAKEN = [
    "_target_", "fp16", "fp16_bfloat16", "move_params_to_cpu", "move_grads_to_cpu", "cpu_offload",
    "reshard_after_forward",
]  # fmt: skip
IDLE = {
    "flatten_parameters": "weights keep their shapes",
    "disable_reshard_on_root": "weights are gathered block by block",
    "min_num_params": "the model's own blocks are the units",
}


def is_hydra(tree: dict[str, Any]) -> bool:
    """Whether a file is one of PandaLLM's, which hold a block for the launch among everything else."""
    return any(key in tree for key in ("ds_cfg", "fairscale_config"))


def needed(tree: dict[str, Any]) -> dict[str, Any]:
    """The blocks for the launch, and whatever they refer to; the rest of such a file is not for here."""
    wanted = [key for key in BLOCKS if key in tree]
    for key in wanted:  # it grows meanwhile
        for _, text in texts_of(tree[key]):
            tops = [re.split(r"[.\[]", found)[0] for found in REFERENCE.findall(text)]
            wanted += [top for top in dict.fromkeys(tops) if top in tree and top not in wanted]
    return {key: tree[key] for key in [*wanted, *(["fp16_bfloat16"] if "fp16_bfloat16" in tree else [])]}


def hydra(tree: dict[str, Any], ranks: int, overrides: list[str], origin: str = "Hydra's file") -> Reading:
    """The settings that a PandaLLM file means for a run of `ranks` processes, after overrides of its own keys."""
    found = resolve(needed(tree), overrides, origin=origin)
    blocks = {key: found[key] for key in BLOCKS if found.get(key)}
    if not blocks:
        return Reading(origin, told=[f"{origin}: {' and '.join(key for key in BLOCKS if key in found)} say nothing"])
    used, *beside = blocks
    if not isinstance(blocks[used], dict):
        Reading(origin).refuse(used, f"a mapping is expected, found {blocks[used]!r:.80}")
    if used == "ds_cfg":
        reading = deepspeed(blocks[used], ranks, origin, used)
    else:
        reading = fairscale(blocks[used], origin, used, bf16=found.get("fp16_bfloat16"))
    reading.told += [f"{origin}: {key}: not read beside {used}; say {used}=null for it" for key in beside]
    return reading


def fairscale(
    tree: dict[str, Any], origin: str, place: str = "fairscale_config", *, bf16: bool | None = None
) -> Reading:
    """FSDP, by a block of FairScale's or torch's own; `bf16` is the file's `fp16_bfloat16`."""
    reading = Reading(origin)
    block = Block(reading, tree, place)
    target = str(block.take("_target_") or "")
    wrap = target.removeprefix("general_util.")
    if wrap not in WRAPS:
        hint = did_you_mean(target, [f"general_util.{name}" for name in WRAPS])
        block.refuse("_target_", f"{target or 'nothing'} is not known{hint or f' (known: {chr(44).join(WRAPS)})'}")
    reading.not_needed(block.at("_target_"), f"it makes {WRAPS[wrap]}; here the model's own blocks are the units")
    precision(block, bf16)
    moved = [key for key in ("cpu_offload", "move_params_to_cpu") if block.switch(key)]
    name = "zero2" if block.switch("reshard_after_forward") is False else "fsdp"
    deal_out(reading, f"{block.at('_target_')} {wrap}", name, moved)
    if block.switch("move_grads_to_cpu") and not moved:
        why = "gradients stay where the weights are; move_params_to_cpu moves both"
        reading.not_needed(block.at("move_grads_to_cpu"), why)
    block.close(IDLE, taken=TAKEN)
    return reading


def precision(block: Block, bf16: bool | None) -> None:
    """`fp16`, which `fp16_bfloat16` makes bf16."""
    here = block.switch("fp16_bfloat16")
    wants_bf16 = bf16 if here is None else here
    half = block.switch("fp16")
    if half is not None:
        name = ("bf16" if wants_bf16 else "fp16") if half else "fp32"
        found = f"{block.at('fp16')} {str(half).lower()}{', fp16_bfloat16' if half and wants_bf16 else ''}"
        block.reading.becomes(found, "engine.precision", name)

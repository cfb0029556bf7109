"""DeepSpeed's JSON as a recipe's settings: https://www.deepspeed.ai/docs/config-json

DeepSpeed itself is not needed: its stages are what `engine.parallel` names.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from danlu.dialects.batch_size import ACCUMULATION, MICRO, TOTAL, read_batch_size
from danlu.dialects.deepspeed_optimizer import read_optimizer
from danlu.dialects.deepspeed_scheduler import read_scheduler
from danlu.dialects.reading import Block, Reading

TABLE = Path(__file__).with_name("deepspeed.yaml")

STAGES = ["ddp", "zero1", "zero2", "zero3"]
"""engine.parallel of each ZeRO stage"""
DEVICES = ["none", "cpu", "nvme"]
STATES, PARAMS = "offload_optimizer", "offload_param"
OLDER = {STATES: ["cpu_offload"], PARAMS: ["cpu_offload_param", "cpu_offload_params"]}
MOVING = {
    "buffer_count", "buffer_size", "max_in_cpu", "pin_memory", "nvme_path", "pipeline_read", "pipeline_write",
    "pipeline", "fast_init", "ratio", "super_offload", "cpuadam_cores_perc",
}  # fmt: skip
"""how things move"""
TAKEN = [
    TOTAL, MICRO, ACCUMULATION, "gradient_clipping", "gradient_allreduce_op", "zero_optimization", "bf16", "bfloat16",
    "fp16", "torch_autocast", "optimizer", "scheduler",
]  # fmt: skip


def deepspeed(tree: dict[str, Any], ranks: int, origin: str = "DeepSpeed's file", place: str = "") -> Reading:
    """The settings that a DeepSpeed JSON means for a run of `ranks` processes; `place` is where it stood in a file."""
    reading = Reading(origin)
    block = Block(reading, tree, place)
    read_zero(block)
    read_precision(block)
    clipping = block.number("gradient_clipping")
    if clipping is not None:
        reading.becomes(f"{block.at('gradient_clipping')} {clipping}", "engine.max_grad_norm", clipping or None)
    if block.word("gradient_allreduce_op", known=["mean", "sum"]) == "sum":
        block.refuse("gradient_allreduce_op", "gradients are divided once by what they were counted over; take sum out")
    read_optimizer(block)
    read_scheduler(block)
    read_batch_size(block, ranks)
    block.close(keys("idle"), keys("refused"), taken=TAKEN)
    return reading


@lru_cache
def keys(kind: str) -> dict[str, str]:
    """Keys of the table with the reason why they are not needed, or not to be had."""
    return yaml.safe_load(TABLE.read_text(encoding="utf-8"))[kind]


def read_zero(block: Block) -> None:
    """`zero_optimization`: which of a model's tensors are dealt out, and what is kept in the processor's memory."""
    if isinstance(block.left.get("zero_optimization"), bool):  # so it was written before there were stages
        block.left["zero_optimization"] = {"stage": int(block.left["zero_optimization"])}
    zero = block.block("zero_optimization")
    there = bool(zero.left)
    stage = zero.whole("stage")
    if stage is not None and stage >= len(STAGES):
        zero.refuse("stage", f"0, 1, 2 or 3 is expected, found {stage}")
    moved = [key for key in (STATES, PARAMS) if offloaded(zero, key)]
    zero.close(keys("zero_idle"), keys("zero_refused"), taken=["stage", STATES, PARAMS])
    found = f"{zero.at('stage')} {stage}" if there else "no zero_optimization"
    deal_out(block.reading, found, STAGES[stage or 0], moved)


def offloaded(zero: Block, key: str) -> bool:
    """Whether the optimiser's states, or the weights, are kept in the processor's memory."""
    block = zero.block(key)
    device = block.word("device", known=DEVICES)
    if device == "nvme":
        block.refuse("device", "nothing goes to NVMe; say cpu")
    for each in sorted(MOVING & block.left.keys()):
        block.left.pop(each)
        zero.reading.not_needed(block.at(each), "how things move is chosen by itself")
    block.close({}, taken=["device"])
    older = [zero.switch(each) for each in OLDER[key]]
    return device == "cpu" or any(older)


def deal_out(reading: Reading, found: str, name: str, moved: Sequence[str]) -> None:
    """`engine.parallel`; `moved` are the keys that ask for the processor's memory.

    Where weights move, all that learns of them moves too.
    """
    moving = []
    for key in moved:
        if name == "ddp":
            reading.not_needed(key, "nothing is dealt out, and nothing moves")
        elif key == PARAMS and name != "zero3":
            reading.not_needed(key, f"{name} keeps whole weights on each GPU; only stage 3 can move them")
        else:
            moving.append(key)
    offload = {"offload": "optimizer" if set(moving) == {STATES} else "params"} if moving else {}
    words = [found, *(f"{key} cpu" for key in moving)]
    reading.becomes(", ".join(words), "engine.parallel", {"name": name} | offload)


def read_precision(block: Block) -> None:
    """`bf16`, `fp16` and `torch_autocast`; where one stands and all are off, DeepSpeed computes in fp32."""
    if "bfloat16" in block.left:
        block.left.setdefault("bf16", block.left.pop("bfloat16"))
    states: dict[str, bool | None] = {}
    for name in ("bf16", "fp16"):
        if block.left.get(name) is not None:
            part = block.block(name)
            given = part.left.get("enabled")
            states[name] = part.switch("enabled") if given is not None else False
            why = "losses are scaled by themselves" if name == "fp16" else "what learns is kept in fp32"
            part.close(dict.fromkeys(part.left, why), taken=["enabled"])
    cast = block.block("torch_autocast")
    if cast.switch("enabled"):
        word = cast.word("dtype", known=["bfloat16", "float16", "bf16", "fp16"]) or "bfloat16"
        states["bf16" if word.startswith("b") else "fp16"] = True
    cast.left.clear()
    on = [name for name, state in states.items() if state]
    if len(on) > 1:
        block.refuse("fp16", "bf16 and fp16 are both enabled; choose one")
    if on:
        block.reading.becomes(f"{on[0]} enabled", "engine.precision", on[0])
    elif states and None not in states.values():
        block.reading.becomes(f"{' and '.join(states)} off", "engine.precision", "fp32")

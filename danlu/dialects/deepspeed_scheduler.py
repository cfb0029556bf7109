"""DeepSpeed's `scheduler` block as `engine.schedule`."""

from typing import Any

from danlu.core.parts import did_you_mean
from danlu.dialects.reading import Block

SCHEDULES = {"WarmupLR": "warmup", "WarmupDecayLR": "linear", "WarmupCosineLR": "cosine"}
NOT_HAD = ["OneCycle", "LRRangeTest"]


def read_scheduler(block: Block) -> None:
    """The schedule, its warm-up and its peak; what is "auto", empty or left out stays as the recipe has it."""
    inner = block.block("scheduler")
    kind = inner.take("type")
    params = inner.block("params")
    inner.close({}, taken=["type", "params"])
    if kind is None:
        if params.left:
            inner.refuse("type", f"missing; it names the schedule, one of {', '.join(SCHEDULES)}")
        return
    if kind not in SCHEDULES:
        hint = "" if kind in NOT_HAD else did_you_mean(str(kind), list(SCHEDULES))
        rest = f"; there are {', '.join(SCHEDULES)}, and those of engine.schedule without this block"
        inner.refuse("type", f"{kind} is not had{hint or rest}")
    settings: dict[str, Any] = {"name": SCHEDULES[kind], "curve": curve(params)}
    steps = params.whole("warmup_num_steps")
    if steps is not None:
        settings["warmup"] = max(2, steps)  # as DeepSpeed does
    for key in ("warmup_min_lr", "warmup_min_ratio"):
        if params.number(key):
            params.refuse(key, "rates climb from 0; take it out")
    total, peak = params.whole("total_num_steps", least=1), params.number("warmup_max_lr")
    if kind == "WarmupCosineLR":
        floor = params.number("cos_min_ratio")
        settings["floor"] = 0.0001 if floor is None else floor  # theirs, where a file leaves it out
    params.close({"last_batch_iteration": "a resumed run knows its step"}, taken=[
        "warmup_min_lr", "warmup_max_lr", "warmup_num_steps", "warmup_type", "total_num_steps", "cos_min_ratio"
    ])  # fmt: skip
    block.reading.becomes(f"{inner.at('type')} {kind}", "engine.schedule", settings)
    if total is not None:
        block.reading.becomes(f"{params.at('total_num_steps')} {total}", "engine.steps", total)
    if peak is not None:
        block.reading.becomes(f"{params.at('warmup_max_lr')} {peak}", "engine.optimizer.lr", peak)


def curve(params: Block) -> str:
    """The shape of the climb; DeepSpeed's is logarithmic unless a file says otherwise."""
    return params.word("warmup_type", known=["linear", "log"]) or "log"

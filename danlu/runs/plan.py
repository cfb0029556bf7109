"""What a recipe needs of a device before its weights are there: a table of every term, and what helps."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import psutil
import torch
from rich.console import Console
from rich.table import Table

from danlu.core.devices import compute_dtype, device_name
from danlu.core.errors import MemoryLimit
from danlu.core.gpus import gpu, gpu_called, gpus
from danlu.engine.parallel.base import parallels
from danlu.engine.planner.holdings import Moved, Parallel
from danlu.engine.planner.plan import CONTEXT_BYTES, Device, Plan
from danlu.engine.planner.planner import OutlineBuilder, Planner
from danlu.engine.planner.speed import tokens_per_second
from danlu.engine.planner.suggestions import Suggestion, fewest, suggestions
from danlu.runs.train_run import TrainRun

GIB = 2**30
PROCESSOR_SHARE = 0.9
"""of a processor's memory that a plan may use: where it is full, the system kills"""
STAGES: list[tuple[Parallel, Moved]] = [
    ("ddp", "none"), ("zero1", "none"), ("zero2", "none"), ("zero3", "none"),
    ("zero2", "optimizer"), ("zero3", "optimizer"), ("zero3", "all"),
]  # fmt: skip
"""ways to share a model among GPUs, with what is moved to the processor's memory"""


@dataclass(frozen=True)
class Answer:
    """A recipe on one device: the plan, its speed, what would help, and what each way of sharing among GPUs needs."""

    plan: Plan
    speed: float | None
    suggestions: list[Suggestion]
    stages: list[dict[str, Any]]

    @property
    def fits(self) -> bool:
        """Whether this plan, or one that was suggested, fits."""
        return self.plan.fits or any(each.plan.fits for each in self.suggestions)

    def to_json(self) -> dict[str, Any]:
        """A tree of plain values."""
        others = [{"change": each.words, **each.plan.to_json()} for each in self.suggestions]
        speed = self.speed and round(self.speed)
        return {**self.plan.to_json(), "tokens_per_second": speed, "suggestions": others, "stages": self.stages}


def plan(
    run: TrainRun,
    names: Sequence[str] = (),
    *,
    ranks: int = 1,
    parallel: Parallel | None = None,
    offload: Moved | None = None,
    as_json: bool = False,
    console: Console | None = None,
) -> list[Answer]:
    """Print the plan of a recipe on each device; a `MemoryLimit` if it fits none of them, whatever is done.

    `parallel` and `offload` are the recipe's if they are not given.
    """
    console = console or Console()
    run = sharing_so(run, parallel)
    parallel, offload = run.engine.parallel.stage, offload or run.engine.parallel.moved
    devices = [device_of(name) for name in (gpus() if list(names) == ["all"] else names)] or [here()]
    answers = [answer(run, device, ranks, parallel, offload) for device in devices]
    if as_json:
        console.print_json(json.dumps([each.to_json() for each in answers]))
    elif len(answers) == 1:
        show(run, answers[0], ranks, parallel, console)
    else:
        console.print(comparison(answers))
    if not any(each.plan.fits for each in answers):
        raise MemoryLimit(verdict(answers))
    return answers


def sharing_so(run: TrainRun, parallel: Parallel | None) -> TrainRun:
    """The recipe with another way of sharing, if one is named."""
    if parallel in (None, run.engine.parallel.stage):
        return run
    engine = run.engine.model_copy(update={"parallel": parallels[parallel]()})
    return run.model_copy(update={"engine": engine})


def answer(run: TrainRun, device: Device, ranks: int, parallel: Parallel, offload: Moved) -> Answer:
    """Everything about a recipe on one device."""
    planner, dtype = planner_of(run, device, ranks)
    held = planner.dealt(parallel, ranks, offload)
    found = planner.choose(run.data.pack_tokens, run.engine.gradient_checkpointing, held)
    speed = None
    if device.gpu is not None:
        speed = ranks * tokens_per_second(planner.policy, found, device.gpu, dtype, step_tokens=planner.most)
    others = [] if found.fits else list(suggestions(planner, found))
    stages = stages_of(planner, found, ranks) if device.kind == "cuda" and (ranks > 1 or not found.fits) else []
    return Answer(found, speed, others, stages)


def planner_of(run: TrainRun, device: Device, ranks: int = 1) -> tuple[Planner, torch.dtype]:
    """The planner of a recipe on a device, and the dtype it computes in there."""
    config = run.data
    dtype = dtype_on(run, device)
    row = (config.max_length + run.objective.tokens_added) * run.objective.answers
    rows = (config.batch.rows or 1) * run.objective.rows_made
    planner = Planner(
        OutlineBuilder(run.model, run.adapter),
        run.objective,
        run.engine,
        dtype,
        device,
        longest=row,
        most=(config.batch.tokens or rows * row) // ranks,
        ranks=ranks,
    )
    return planner, dtype


def dtype_on(run: TrainRun, device: Device) -> torch.dtype:
    """As `engine.precision` says, on a device that need not be here."""
    if device.gpu is None:
        return compute_dtype(run.engine.precision, torch.device(device.kind))
    auto = "bf16" if device.gpu.bf16 else "fp32"
    named = auto if run.engine.precision == "auto" else run.engine.precision
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[named]


def device_of(name: str) -> Device:
    """A GPU of the table, or `cpu`."""
    if name == "cpu":
        return here(cpu=True)
    found = gpu(name)
    return Device(found.name, "cuda", found.memory_bytes, found)


def here(*, cpu: bool = False) -> Device:
    """This machine: its GPU, or its processor, with the memory that is free or this process's own already."""
    if torch.cuda.is_available() and not cpu:
        name, (free, total) = torch.cuda.get_device_name(), torch.cuda.mem_get_info()
        mine = torch.cuda.memory_reserved() + CONTEXT_BYTES
        return Device(name, "cuda", min(total, free + mine), gpu_called(name))
    memory = psutil.virtual_memory().available + psutil.Process().memory_info().rss
    return Device(device_name(torch.device("cpu")), "cpu", PROCESSOR_SHARE * memory)


def stages_of(planner: Planner, plan: Plan, ranks: int) -> list[dict[str, Any]]:
    """For each way of sharing: the fewest GPUs it fits on, and what each of `ranks` would hold."""
    found = []
    for parallel, offload in STAGES:
        at_all = fewest(lambda n, p=parallel, o=offload: planner.plan(plan.choice, planner.dealt(p, n, o)))
        asked = planner.plan(plan.choice, planner.dealt(parallel, ranks, offload))
        found.append(
            {
                "parallel": parallel,
                "offload": offload,
                "needed": round(asked.needed),
                "fewest_gpus": at_all and at_all[0],
                "needed_on_fewest": at_all and round(at_all[1].needed),
            }
        )
    return found


def show(run: TrainRun, answer: Answer, ranks: int, parallel: str, console: Console) -> None:
    """One device, every term."""
    plan = answer.plan
    shared = f", {parallel} on {ranks} GPUs, each" if ranks > 1 else ""
    console.print(f"{run.model.path} on {plan.device.name}{shared}", style="bold", highlight=False)
    console.print(
        f"packs of {plan.choice.pack_tokens:,} tokens, {plan.choice.recomputed} of {plan.num_blocks} blocks recomputed",
        highlight=False,
    )
    console.print(terms(plan))
    words = "fits" if plan.fits else "DOES NOT FIT"
    console.print(f"{words}: {size(plan.needed)} of {size(plan.device.memory_bytes)}", style="bold", highlight=False)
    if answer.speed:
        console.print(f"about {answer.speed:,.0f} tokens/s", highlight=False)
    if answer.suggestions:
        console.print(advice(answer.suggestions))
    if answer.stages:
        console.print(sharing(answer.stages, ranks))


def terms(plan: Plan) -> Table:
    """Every term of a plan."""
    drawn = Table("", "GiB", box=None)
    drawn.columns[1].justify = "right"
    for name, value in plan.terms.items():
        drawn.add_row(name, f"{value / GIB:.2f}")
    drawn.add_row("peak", f"{plan.peak / GIB:.2f}", style="bold")
    if plan.device.kind == "cuda":
        drawn.add_row("with CUDA's context and slack", f"{plan.needed / GIB:.2f}")
    return drawn


def advice(found: Sequence[Suggestion]) -> Table:
    """What to do, in order; each adds to those above it."""
    drawn = Table("each change with those above it", "needs", "")
    for each in found:
        drawn.add_row(each.words, size(each.plan.needed), "fits" if each.plan.fits else "")
    return drawn


def sharing(stages: Sequence[dict[str, Any]], ranks: int) -> Table:
    """Ways to share a model among GPUs."""
    drawn = Table("shared", "offloaded", f"each of {ranks}", "fewest GPUs", "each of these")
    for row in stages:
        few = row["fewest_gpus"]
        last = (str(few), size(row["needed_on_fewest"])) if few else ("none", "")
        drawn.add_row(row["parallel"], row["offload"], size(row["needed"]), *last)
    return drawn


def comparison(answers: Sequence[Answer]) -> Table:
    """Several devices, a row each."""
    drawn = Table("device", "has", "needs", "", "packs", "recomputed", "tokens/s", "else")
    for each in answers:
        plan = each.plan
        other = next((one.words for one in each.suggestions if one.plan.fits), "")
        drawn.add_row(
            plan.device.name, size(plan.device.memory_bytes), size(plan.needed), "fits" if plan.fits else "",
            f"{plan.choice.pack_tokens:,}", f"{plan.choice.recomputed}/{plan.num_blocks}",
            f"{each.speed:,.0f}" if each.speed and plan.fits else "", other,
        )  # fmt: skip
    return drawn


def verdict(answers: Sequence[Answer]) -> str:
    """One sentence for a recipe that fits nothing."""
    least = min(answers, key=lambda each: each.plan.needed - each.plan.device.memory_bytes).plan
    found = f"{size(least.needed)} are needed, {least.device.name} has {size(least.device.memory_bytes)}"
    return f"does not fit as it is: {found}; most is {least.largest_term}. The table names what helps"


def size(value: float) -> str:
    """`12.3 GiB`"""
    return f"{value / GIB:.1f} GiB"


assert set(get_args(Parallel)) == {parallel for parallel, _ in STAGES}

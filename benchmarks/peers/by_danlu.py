"""Steps of Danlu's own loop; started by `gpu_sft.py`."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Annotated, Any

import numpy as np
import torch
from peers.workload import (
    LONGEST,
    Clock,
    Row,
    forget_peak,
    lengths_of,
    mean_length,
    parser,
    random_model,
    rows_of,
    tell,
    wait,
)
from pydantic import TypeAdapter
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiled

from danlu.data.loader import LOOK_AHEAD
from danlu.data.packing import Pack
from danlu.data.pool import Pool
from danlu.engine.config import EngineConfig
from danlu.engine.engine import Engine
from danlu.engine.room import Room
from danlu.engine.step import train_step
from danlu.engine.training import Training
from danlu.models.adapters import adapters
from danlu.models.adapters.base import Adapter
from danlu.models.adapters.lora import Lora
from danlu.models.blocks import blocks_of
from danlu.models.policy import Policy
from danlu.models.quantizers.base import Quantizer, quantizers
from danlu.objectives.sft import SFT


def quantizer_of(name: str) -> Quantizer:
    """A quantizer by its name."""
    return TypeAdapter(Annotated[Quantizer, quantizers]).validate_python(name)


def quantize(model: Any, quantizer: Quantizer) -> None:
    """Store the linear layers of the blocks in fewer bits, one after the other."""
    _, blocks = blocks_of(model)
    for block in blocks:
        for name, module in list(block.named_modules()):
            if isinstance(module, torch.nn.Linear):
                block.set_submodule(name, quantizer.layer(module))


def packs_of(rows: list[Row], given: Namespace) -> list[Pack]:
    """A pack for each step: real rows as Danlu's loader fills packs, random ones as they were drawn."""
    count = given.warm + given.steps
    if given.data:
        packs = list(filled(rows, given.tokens))[:-1]  # the longest rows go first into a new pool; the last is not full
        order = np.random.default_rng(2).permutation(len(packs))[:count]
        return [Pack.of([rows[n] for n in packs[at]]) for at in order]
    left = iter(rows)
    return [Pack.of([next(left) for _ in lengths]) for lengths in islice(lengths_of(given), count)]


def filled(rows: list[Row], tokens: int) -> Iterator[list[int]]:
    """Row numbers of full packs, by the loader's own pool."""
    pool, waiting = Pool(), iter(enumerate(rows))
    while True:
        while len(pool) < LOOK_AHEAD and (one := next(waiting, None)) is not None:
            pool.put(one[0], len(one[1][0]))
        if not len(pool):
            return
        yield pool.pack(tokens)


def checkpointing_of(given: Namespace) -> str | int:
    """What `engine.gradient_checkpointing` is told."""
    asked = "full" if "checkpointing" in given.way else given.checkpointing
    return int(asked) if asked.isdigit() else asked


def adapter_of(given: Namespace) -> Adapter:
    """What learns, and how: `danlu full_fp8` multiplies in 8-bit floats."""
    if given.adapter == "lora":
        return Lora(rank=16, alpha=32)
    return TypeAdapter(Annotated[Adapter, adapters]).validate_python("full_fp8" if "full_fp8" in given.way else "full")


def run(given: Namespace) -> None:
    """Train, and tell."""
    rows = rows_of(given)
    packs = packs_of(rows, given)
    model = random_model(given)
    if given.quantizer:
        quantize(model, quantizer_of(given.quantizer))
    config = EngineConfig(steps=100, precision="bf16", gradient_checkpointing=checkpointing_of(given))
    engine = Engine(config)
    adapter = adapter_of(given)
    policy = Policy(adapter.apply(model).to(engine.device)).train()  # type: ignore[arg-type]
    training = Training(config, {"policy": policy}, engine.dtype, 100, lambda name: 1.0)
    engine.prepare(policy, 10**9 if engine.device.type == "cuda" else 0)  # on a processor nothing is timed
    room = Room(engine, training, pack_tokens=max(given.tokens, LONGEST))
    objective, clock, losses = SFT(), Clock(given), []
    forget_peak()
    for pack in packs:
        update = train_step(engine, training, objective, room.fitted([pack]), lambda: False)
        clock.tokens.append(update.tokens)
        clock.trained.append(update.trained_tokens)
        losses.append(update.loss)
        clock.tick()
    tell(given, clock.answer(sum(losses) / len(losses), mean_length(rows)))
    if given.profile:
        profile(lambda: train_step(engine, training, objective, packs[:1], lambda: False))


def profile(step: Callable[[], object]) -> None:
    """Where a step's time goes."""
    activity = ProfilerActivity.CUDA if torch.cuda.is_available() else ProfilerActivity.CPU
    with profiled(activities=[activity]) as found:
        step()
        wait()
    by = f"{activity.name.lower()}_time_total"
    print(found.key_averages().table(sort_by=by, row_limit=25, max_name_column_width=60)[:6000])


if __name__ == "__main__":
    run(parser(__doc__).parse_args())

"""One optimiser step: backward over its packs, then one update by the exact mean of the whole global batch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from danlu.core.errors import MemoryLimit
from danlu.data.packing import Pack
from danlu.engine.engine import Engine
from danlu.engine.heartbeats import UPDATING, WAITING
from danlu.engine.nonfinite import NonFinite
from danlu.engine.overflow import UPDATE, Overflow, overflowing
from danlu.engine.soon import LossSoon, Soon
from danlu.engine.training import Training
from danlu.objectives.base import Objective

T = TypeVar("T")


class Stopped(Exception):
    """Someone asked the run to stop in the middle of a step; nothing of the step is kept."""


@dataclass(slots=True)
class Update:
    """What one optimiser step did."""

    loss: float
    count: float
    grad_norm: float
    lr: float
    tokens: int
    trained_tokens: int
    metrics: dict[str, float]


def train_step(
    engine: Engine, training: Training, objective: Objective, packs: list[Pack], stopped: Callable[[], bool]
) -> Update:
    """Sum losses and gradients over the packs, divide once by the sum of counts, clip, update.

    A GPU is told of everything before any of its numbers is read, so that it never waits for this process.

    Raises `NonFinite` before the optimiser sees anything that is no number, `Stopped` between packs, and `Overflow` on
    all ranks when one of them has not the memory.
    """
    losses = agreed(engine, lambda: sum_gradients(engine, training, objective, packs, stopped))
    [[count]] = engine.sum_over_ranks([[sum(loss.count for loss in losses)]])
    norm, factor = norm_and_factor(engine, training, count)
    if not training.updates.leaves_bad_steps_out:
        finite(norm, packs)
    engine.heart.doing(UPDATING)
    with overflowing(UPDATE):
        lr = training.update_weights(factor)
    grad_norm = finite(norm, packs)
    total, metrics = engine.sum_losses([loss.read() for loss in losses])
    [[tokens, trained]] = engine.sum_over_ranks(
        [[sum(pack.num_tokens for pack in packs), sum(int((pack.targets >= 0).sum()) for pack in packs)]]
    )
    tokens, trained = int(tokens) // engine.parallel.context, int(trained) // engine.parallel.context
    return Update(total / count, count, grad_norm, lr, tokens, trained, metrics)


def sum_gradients(
    engine: Engine, training: Training, objective: Objective, packs: list[Pack], stopped: Callable[[], bool]
) -> list[LossSoon]:
    """Add up the gradients of a step's packs; returns their losses."""
    training.masters.clear()
    several, bad = engine.num_ranks > 1, None
    losses: list[LossSoon] = []
    made = engine.filled(packs, max(engine.ranks.gather(len(packs)))) if engine.in_step else packs
    for number, pack in enumerate(made):
        if stopped() and not several:  # several stop together, between steps
            raise Stopped
        learns = number < len(packs)
        engine.parallel.begin_pack(training.models, last=number == len(made) - 1)
        engine.heart.doing(f"the forward of micro-batch {number}")
        with overflowing(f"activations (the forward of micro-batch {number})"), training.kept:
            loss = objective.loss(training.models, pack.to(engine.device)).share(engine.parallel.context)
            losses += [LossSoon(loss)] if learns else []
        engine.heart.doing(f"the backward of micro-batch {number}")
        with overflowing(f"activations and their gradients (the backward of micro-batch {number})"):
            (loss.total * (training.progress.loss_scale if learns else 0.0)).backward()
        total = losses[-1].read().total if losses else 0.0  # by now the GPU has the backward to do
        if not math.isfinite(total) and bad is None:
            bad = NonFinite(f"a loss of {total}", packs, number)
            if not several:
                raise bad
    if bad is not None:
        raise bad
    if several or not training.updates.leaves_bad_steps_out:
        with overflowing(UPDATE):
            training.masters.collect()
    return losses


def agreed(engine: Engine, work: Callable[[], T]) -> T:
    """What this process's work gives; a problem of any is one of all, so that all take the same next step."""
    result, problem = None, None
    try:
        result = work()
    except (Overflow, NonFinite) as found:
        problem = found
    if engine.num_ranks == 1 and problem is not None:
        raise problem
    engine.heart.doing(WAITING)
    if isinstance(problem, Overflow) and engine.waits:
        raise MemoryLimit(
            f"process {engine.rank}: out of memory in {problem.term} ({problem.words}), in the middle of what the "
            "others wait for; lower data.pack_tokens, or say engine.gradient_checkpointing=full"
        )
    for rank, (what, words) in enumerate(engine.ranks.gather(words_of(problem))):
        if what and rank != engine.rank:
            raise Overflow(what, words) if words else NonFinite(f"{what} (process {rank})", [], 0)
        if what and problem is not None:
            raise problem
    return result  # type: ignore[return-value]


def words_of(problem: Overflow | NonFinite | None) -> tuple[str, str]:
    """What other processes hear of a problem; only an overflow has words of torch's."""
    if problem is None:
        return "", ""
    return (problem.term, problem.words) if isinstance(problem, Overflow) else (problem.what, "")


def norm_and_factor(engine: Engine, training: Training, count: float) -> tuple[Soon, Tensor]:
    """The norm of the mean's gradient, and what summed gradients are multiplied by to be the mean's, clipped, [].

    Neither is waited for. The factor is NaN where the norm is no number.
    """
    if engine.num_ranks > 1:
        training.masters.fill(engine.ranks)
        engine.ranks.sum(training.masters.apart())
    scale = 1.0 / (count * training.progress.loss_scale)
    norm = training.masters.norm() * scale
    limit = engine.config.max_grad_norm
    clip = torch.ones_like(norm) if limit is None else (limit / norm).clamp(max=1.0)
    return Soon([norm]), torch.where(norm.isfinite(), clip * scale, torch.nan)


def finite(norm: Soon, packs: list[Pack]) -> float:
    """The norm; raises `NonFinite` where it is no number."""
    [found] = norm.read()
    if not math.isfinite(found):
        raise NonFinite(f"a gradient norm of {found}", packs)
    return found

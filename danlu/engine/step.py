"""One optimiser step: backward over its packs, then one update by the exact mean of the whole global batch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from danlu.data.packing import Pack
from danlu.engine.engine import Engine
from danlu.engine.nonfinite import NonFinite
from danlu.engine.overflow import UPDATE, Overflow, overflowing
from danlu.engine.soon import LossSoon, Soon
from danlu.engine.training import Training
from danlu.models.masters import total_norm
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
    with overflowing(UPDATE):
        lr = training.update_weights(factor)
    grad_norm = finite(norm, packs)
    total, metrics = engine.sum_losses([loss.read() for loss in losses])
    trained = sum(int((pack.targets >= 0).sum()) for pack in packs)
    return Update(total / count, count, grad_norm, lr, sum(pack.num_tokens for pack in packs), trained, metrics)


def sum_gradients(
    engine: Engine, training: Training, objective: Objective, packs: list[Pack], stopped: Callable[[], bool]
) -> list[LossSoon]:
    """Add up the gradients of a step's packs; returns their losses."""
    training.masters.clear()
    losses = []
    for number, pack in enumerate(packs):
        if stopped():
            raise Stopped
        with overflowing(f"activations (the forward of micro-batch {number})"), training.kept:
            loss = objective.loss(training.models, pack.to(engine.device))
            losses.append(LossSoon(loss))
        with overflowing(f"activations and their gradients (the backward of micro-batch {number})"):
            engine.backward(loss.total * training.progress.loss_scale)
        total = losses[-1].read().total  # by now the GPU has the backward to do
        if not math.isfinite(total):
            raise NonFinite(f"a loss of {total}", packs, number)
    if engine.num_ranks > 1 or not training.updates.leaves_bad_steps_out:
        with overflowing(UPDATE):
            training.masters.widen()
    return losses


def agreed(engine: Engine, work: Callable[[], T]) -> T:
    """What this rank's work gives; an `Overflow` of any rank is one of all, so that all take the same next step."""
    result, problem = None, None
    try:
        result = work()
    except Overflow as overflow:
        problem = overflow.args
    problems = [each for each in engine.gather(problem) if each is not None]
    if problems:
        raise Overflow(*problems[0])
    return result  # type: ignore[return-value]


def norm_and_factor(engine: Engine, training: Training, count: float) -> tuple[Soon, Tensor]:
    """The norm of the mean's gradient, and what summed gradients are multiplied by to be the mean's, clipped, [].

    Neither is waited for. The factor is NaN where the norm is no number.
    """
    gradients = training.masters.gradients()
    engine.sum_gradients(gradients)
    scale = 1.0 / (count * training.progress.loss_scale)
    norm = total_norm(gradients) * scale
    limit = engine.config.max_grad_norm
    clip = torch.ones_like(norm) if limit is None else (limit / norm).clamp(max=1.0)
    return Soon([norm]), torch.where(norm.isfinite(), clip * scale, torch.nan)


def finite(norm: Soon, packs: list[Pack]) -> float:
    """The norm; raises `NonFinite` where it is no number."""
    [found] = norm.read()
    if not math.isfinite(found):
        raise NonFinite(f"a gradient norm of {found}", packs)
    return found

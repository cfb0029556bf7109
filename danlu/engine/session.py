"""One run in memory: what it learns, its data and state, and what the loop asks about them between steps."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from danlu.core.devices import peak_flops
from danlu.core.errors import Diverged, MemoryLimit
from danlu.core.ranks import Ranks
from danlu.data.loader import Loader, Step
from danlu.data.packing import Pack
from danlu.data.stream.loader import Stream
from danlu.engine.checkpoint import Checkpoints
from danlu.engine.checkpoint_folder import Writer
from danlu.engine.engine import Engine
from danlu.engine.heartbeats import SAVING, SAVING_ALONE, WAITING
from danlu.engine.hooks.base import Listener
from danlu.engine.nonfinite import NonFinite
from danlu.engine.overflow import UPDATE, Overflow
from danlu.engine.records import EvalRecord, StepRecord
from danlu.engine.room import Room
from danlu.engine.seeding import EVERY_RANK, seed_step
from danlu.engine.signals import Stop
from danlu.engine.step import Stopped
from danlu.engine.training import Training
from danlu.evals.baseline import Baseline
from danlu.evals.held_out import HeldOut, Measured, held_out_loss
from danlu.models.flops import flops_per_token
from danlu.objectives.base import Learning

log = logging.getLogger(__name__)

MOST_IN_A_ROW = 10
"""skipped steps without a good one between, or returns to the same checkpoint, before the run gives up"""


@dataclass
class Session:
    """Everything that a training loop works on."""

    engine: Engine
    learning: Learning
    training: Training
    room: Room
    loader: Loader | Stream
    held_out: dict[str, list[Pack]]
    checkpoints: Checkpoints
    weights: Callable[[], Writer]
    """all processes together: what writes the weights as they are then"""
    bad_batches: Path
    how_to_resume: str = "`--resume` goes on."
    baseline: Baseline | None = None
    """where the loss before the first step is kept for other runs"""
    saved: tuple[int, bool] | None = None
    """the step of the newest checkpoint, and whether it is marked as the best"""
    rollbacks: int = 0
    """how often the run went back to that checkpoint"""

    def steps(self) -> Iterator[Step]:
        """The steps that are left, from where the saved order stands."""
        progress = self.training.progress
        if progress.cursor is not None:
            self.loader.restore(progress.cursor)
            self.learning.restore(progress.cursor)
        steps = iter(self.learning.steps(self.loader))
        while not self.finished:
            started = time.perf_counter()
            self.engine.heart.doing("the data of the next step", progress.step, slow=True)
            seed_step(self.engine.config.seed, progress.step, EVERY_RANK)  # what is drawn for a step is the step's own
            step = next(steps, None)
            if step is None:
                return
            step.seconds = time.perf_counter() - started
            yield step

    @property
    def alone(self) -> bool:
        """Whether nobody else trains with this process."""
        return self.engine.num_ranks == 1

    @property
    def finished(self) -> bool:
        """Whether every step is done, or the recipe's patience with the held-out loss is at its end."""
        patience = self.engine.config.evaluate.patience
        tired = patience is not None and self.training.progress.evals_without_gain >= patience
        return self.training.finished or tired

    def agreed(self, stop: Stop) -> tuple[bool, bool]:
        """After a step: whether anyone was asked to save, and to stop; a signal that comes later waits for the next."""
        self.engine.heart.doing(WAITING, self.training.progress.step)
        wishes = self.engine.ranks.gather((stop.signal, stop.take_save_request()))
        signals = [signal for signal, _ in wishes if signal is not None]
        if signals:
            stop.hear(signals[0])
        return any(save for _, save in wishes), bool(signals)

    def save(self, listener: Listener) -> None:
        """Write a checkpoint of the last finished step, unless it is already there."""
        progress, before = self.training.progress, self.saved
        best = progress.best_step == progress.step and self.engine.config.evaluate.keep_best
        if before == (progress.step, best):
            return
        self.engine.heart.doing(SAVING if self.engine.num_ranks > 1 else SAVING_ALONE, progress.step, slow=True)
        progress.cursor = progress.cursor and self.loader.joined(self.engine.ranks.gather(progress.cursor))
        path = self.training.save(self.checkpoints, self.weights(), best=best)
        if path is None:
            listener.on_alert(progress.step, "this checkpoint could not be saved; training goes on")
            return
        self.saved = (progress.step, best)
        if before is None or before[0] != progress.step:
            self.rollbacks = 0
            listener.on_save(progress.step, path)

    def save_is_due(self) -> bool:
        """Whether the recipe wants a checkpoint after this step."""
        return self.training.progress.step % self.engine.config.save.every_steps == 0

    def measure_is_due(self) -> bool:
        """Whether the recipe wants held-out loss after this step; step 0 and the last always do."""
        every, step = self.engine.config.evaluate.every_steps, self.training.progress.step
        return step == 0 or self.training.finished or (every is not None and step % every == 0)

    def measure(self, listener: Listener, stop: Stop) -> None:
        """Held-out loss of every source, and whether it is the best so far. Raises `Stopped` between packs."""
        progress, config = self.training.progress, self.engine.config.evaluate
        if not self.held_out or progress.measured_step == progress.step:
            return
        started = time.perf_counter()
        found = self._held_out_loss(stop)
        loss, seconds = found.loss, time.perf_counter() - started
        listener.on_eval(
            EvalRecord(progress.step, loss, progress.epoch, found.sources, found.metrics, seconds, found.values)
        )
        progress.measured_step, progress.held_out_loss = progress.step, loss
        if progress.best_loss is None or loss < progress.best_loss:
            progress.best_loss, progress.best_step, progress.evals_without_gain = loss, progress.step, 0
            if config.keep_best:
                self.save(listener)
        else:
            progress.evals_without_gain += 1

    def _held_out_loss(self, stop: Stop) -> HeldOut:
        baseline, ranks = self.baseline if self.training.progress.step == 0 else None, self.engine.ranks
        known = ranks.first(baseline.read() if baseline else None)
        if known is not None:
            log.info("the loss before the first step is known from an earlier run")
            return known
        policy = self.training.models["policy"].eval()
        every = [pack for packs in self.held_out.values() for pack in packs]
        ranks = Ranks() if self.learning.measures_together else self.engine.teams
        own = every if self.learning.measures_together else self.engine.share(every)
        most = -(-len(every) // ranks.num_shares)
        measured_here = self.engine.filled(own, most) if self.engine.in_step else own
        try:
            with torch.no_grad(), self.training.measured():
                found = [self._measure_pack(stop, pack) for pack in measured_here][: len(own)]
        finally:
            policy.train()
        measured = iter(ranks.dealt(ranks.gather(found)))
        held_out = held_out_loss({name: list(islice(measured, len(packs))) for name, packs in self.held_out.items()})
        if baseline and self.engine.ranks.leads:
            baseline.write(held_out)
        return held_out

    def _measure_pack(self, stop: Stop, pack: Pack) -> Measured:
        if stop.requested and self.engine.num_ranks == 1:  # several stop together, between steps
            raise Stopped
        self.engine.heart.doing("measuring", self.training.progress.step, slow=self.learning.measures_together)
        loss = self.learning.measure(pack.to(self.engine.device))
        metrics = {name: (float(total), count) for name, (total, count) in loss.metrics.items()}
        values = {name: some.tolist() for name, some in loss.values.items()}
        return Measured(float(loss.total), loss.count, metrics, values)

    def make_room(self, overflow: Overflow, packs: list[Pack], listener: Listener) -> None:
        """Go on in less memory; where there is no less, save what was learnt and stop."""
        number = self.training.progress.step + 1
        try:
            self.room.make_room(overflow, packs)
        except MemoryLimit:
            if overflow.term != UPDATE:  # in the middle of an update the weights are of no step
                self.save(listener)
            raise
        listener.on_alert(number, f"out of memory in {overflow.term}; went on with {self.room.choice}")

    def answer(self, bad: NonFinite, step: Step, listener: Listener) -> None:
        """What the recipe wants when something is no number; the optimiser has not seen it."""
        progress, number = self.training.progress, self.training.progress.step + 1
        self.training.masters.clear()
        if bad.number is None and self.training.shrink_loss_scale():
            self._skip(step, listener)
            return
        message = f"{bad.describe(number)}; {self._keep(bad, number)}"
        listener.on_alert(number, message)
        policy = self.engine.config.on_nonfinite
        if policy == "stop":
            self.save(listener)
            raise Diverged(f"{message}. The weights before it are saved; on_nonfinite: skip or rollback would go on")
        if max(progress.skipped_in_a_row, self.rollbacks) + 1 >= MOST_IN_A_ROW:
            self.save(listener)
            raise Diverged(f"{message}. It is the {MOST_IN_A_ROW}th time in a row; try a lower learning rate")
        if policy == "rollback":
            self._roll_back(step, listener)
        else:
            progress.skipped_in_a_row += 1
            self._skip(step, listener)

    def _skip(self, step: Step, listener: Listener) -> None:
        progress = self.training.progress
        progress.step += 1
        progress.skipped += 1
        progress.epoch, progress.cursor = step.epoch, step.cursor
        nothing = math.nan
        listener.on_step(
            StepRecord(
                progress.step, self.training.num_steps, step.epoch, nothing, 0.0, nothing, 0, 0, 0.0, 0.0, skipped=True
            )
        )

    def _keep(self, bad: NonFinite, number: int) -> str:
        if not bad.packs or (bad.number is None and not self.engine.ranks.leads):
            return "another process keeps the batch"
        try:
            return f"the batch is kept in {bad.keep(self.bad_batches, number)}"
        except OSError as error:
            return f"the batch could not be kept ({error})"

    def _roll_back(self, step: Step, listener: Listener) -> None:
        """The weights and optimiser of the newest checkpoint, with the data after the bad step."""
        before = self.training.progress
        checkpoint = self.checkpoints.latest_valid()
        if checkpoint is None:
            raise Diverged("there is no checkpoint to go back to; start with a lower learning rate")
        self.training.restore(checkpoint)
        progress = self.training.progress
        progress.epoch, progress.cursor = step.epoch, step.cursor
        progress.skipped = before.skipped + 1
        self.rollbacks += 1
        self.saved = (progress.step, progress.best_step == progress.step and self.engine.config.evaluate.keep_best)
        listener.on_rollback(progress.step)

    def utilisation(self, tokens_per_second: float) -> float | None:
        """Model flops utilisation, where the device's peak is known."""
        peak = peak_flops(self.engine.device)
        if peak is None:
            return None
        return tokens_per_second * flops_per_token(self.training.models["policy"]) / (peak * self.engine.num_ranks)

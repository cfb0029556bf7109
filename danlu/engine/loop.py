"""The one training loop. It knows steps, losses and updates, and the name of nothing else."""

import time

from danlu.core.errors import RewardError
from danlu.data.loader import Step
from danlu.engine.hooks.base import Listener
from danlu.engine.nonfinite import NonFinite
from danlu.engine.overflow import Overflow
from danlu.engine.records import StepRecord
from danlu.engine.seeding import seed_step
from danlu.engine.session import Session
from danlu.engine.signals import Stop
from danlu.engine.step import Stopped, Update, train_step


def fit(session: Session, listener: Listener, stop: Stop) -> None:
    """Train until the last step, or until someone asks to stop; everything worth keeping is saved either way."""
    try:
        if session.measure_is_due():  # before the first step, or where a stop came in the middle of measuring
            session.measure(listener, stop)
        for step in session.steps():
            learn(session, step, listener, stop)
            if session.measure_is_due():
                session.measure(listener, stop)
            save, ends = session.agreed(stop)
            if save or session.save_is_due():
                session.save(listener)
            if (ends or (session.alone and stop.requested)) and not session.finished:
                raise Stopped
        session.measure(listener, stop)  # where rollbacks have used up the data, the last step is another
        session.save(listener)
    except RewardError as error:
        session.save(listener)
        raise RewardError(f"{error}. Everything learnt before it is saved. {session.how_to_resume}") from error
    except Stopped:
        session.save(listener)
        number = session.training.progress.step
        listener.on_stop(number, "asked to stop")
        raise stop.reason(f"stopped after step {number}; everything is saved. {session.how_to_resume}") from None


def learn(session: Session, step: Step, listener: Listener, stop: Stop) -> None:
    """Make one step, or answer what is not finite in it."""
    started, problem = time.perf_counter(), None
    before = session.engine.ranks.waited
    training = session.training
    seed_step(session.engine.config.seed, training.progress.step, session.engine.rank)
    packs = session.room.fitted(session.engine.share(step.packs))
    try:
        update = train_step(session.engine, training, session.learning.objective, packs, lambda: stop.requested)
    except NonFinite as bad:
        session.answer(bad, step, listener)
    except Overflow as overflow:
        problem = Overflow(*overflow.args)  # another, without the frames that still hold the step's tensors
    else:
        if session.engine.num_ranks > 1:
            step.waited = {**step.waited, "others_seconds": session.engine.ranks.waited - before}
        listener.on_step(advance(session, step, update, time.perf_counter() - started))
        session.room.measure()
    if problem is not None:
        session.make_room(problem, packs, listener)
        learn(session, step, listener, stop)


def advance(session: Session, step: Step, update: Update, seconds: float) -> StepRecord:
    """Count a finished step, and put it into words."""
    progress = session.training.progress
    session.learning.learnt(step, update.metrics)
    progress.step += 1
    progress.epoch, progress.cursor = step.epoch, step.cursor
    progress.tokens += update.tokens
    progress.trained_tokens += update.trained_tokens
    progress.seconds += seconds
    progress.last_loss = update.loss
    progress.skipped_in_a_row = 0
    session.training.grow_loss_scale()
    speed = update.tokens / seconds
    return StepRecord(
        step=progress.step,
        num_steps=session.training.num_steps,
        epoch=step.epoch,
        loss=update.loss,
        lr=update.lr,
        grad_norm=update.grad_norm,
        tokens=update.tokens,
        trained_tokens=update.trained_tokens,
        seconds=seconds,
        tokens_per_second=speed,
        ranks=session.engine.num_ranks,
        mfu=session.utilisation(speed),
        memory_bytes=session.room.peak,
        metrics=update.metrics | step.facts,
        waited_seconds=step.seconds,
        waited=step.waited,
        samples=step.samples,
    )

"""The one training loop. It knows steps, losses and updates, and the name of nothing else."""

import time

from danlu.data.loader import Step
from danlu.engine.hooks.base import Listener
from danlu.engine.nonfinite import NonFinite
from danlu.engine.records import StepRecord
from danlu.engine.seeding import seed_step
from danlu.engine.session import Session
from danlu.engine.signals import Stop
from danlu.engine.step import Stopped, Update, train_step


def fit(session: Session, listener: Listener) -> None:
    """Train until the last step, or until someone asks to stop; everything worth keeping is saved either way."""
    training = session.training
    with Stop() as stop:
        if training.progress.step == 0:
            session.measure(listener)
        for step in session.steps():
            started = time.perf_counter()
            seed_step(session.engine.config.seed, training.progress.step, session.engine.rank)
            try:
                packs = session.engine.share(step.packs)
                update = train_step(session.engine, training, session.objective, packs, lambda: stop.requested)
            except Stopped:
                break
            except NonFinite as bad:
                session.answer(bad, step, listener)
                continue
            record = advance(session, step, update, time.perf_counter() - started)
            listener.on_step(record)
            if session.measure_is_due():
                session.measure(listener)
            if session.save_is_due() or stop.take_save_request():
                session.save(listener)
            if stop.requested:
                break
        session.save(listener)
        if stop.requested and not session.finished:
            listener.on_stop(training.progress.step, "asked to stop")
            raise stop.reason(
                f"stopped after step {training.progress.step}; everything is saved. {session.how_to_resume}"
            )


def advance(session: Session, step: Step, update: Update, seconds: float) -> StepRecord:
    """Count a finished step, and put it into words."""
    progress = session.training.progress
    progress.step += 1
    progress.epoch, progress.cursor = step.epoch, step.cursor
    progress.tokens += update.tokens
    progress.trained_tokens += update.trained_tokens
    progress.seconds += seconds
    progress.last_loss = update.loss
    progress.skipped_in_a_row = progress.rollbacks_in_a_row = 0
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
        mfu=session.utilisation(speed),
        metrics=update.metrics,
    )

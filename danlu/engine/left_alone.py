"""A rank whose neighbours are gone: what it can still save, and who it was."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from danlu.core.errors import RankLost
from danlu.core.launcher import has_lost_others
from danlu.core.ranks import Ranks
from danlu.data.stream.loader import Stream
from danlu.engine.heartbeats import UPDATING, Watch
from danlu.engine.hooks.base import Listener
from danlu.engine.session import Session

GONE_SECONDS = 2.0


@contextmanager
def saving_alone(session: Session, listener: Listener, beats: Path) -> Iterator[None]:
    """Where a sum fails because another rank is gone, save what this one has whole, and say who is missing."""
    try:
        yield
    except RuntimeError as error:
        if session.engine.num_ranks == 1 or not has_lost_others(error):
            raise
        watch, rank = Watch(beats, range(session.engine.num_ranks), float("inf")), session.engine.rank
        left = saved(session, listener)
        words = "; ".join(dead(watch)) or f"rank {rank} has lost the others"
        raise RankLost(f"{words}. {left}. {session.how_to_resume}") from error


def dead(watch: Watch) -> list[str]:
    """Who is gone; a connection breaks a moment before its process has ended."""
    end = time.monotonic() + GONE_SECONDS
    while not (found := watch.gone()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def saved(session: Session, listener: Listener) -> str:
    """Save the last finished step without the others, if this rank has all of it."""
    before = "the newest checkpoint is what is left"
    engine, training = session.engine, session.training
    dealt = engine.config.parallel.stage != "ddp" or isinstance(session.loader, Stream)
    if engine.rank != 0 or dealt or engine.heart.what == UPDATING or training.progress.step == 0:
        return before
    alone = Ranks()
    engine.ranks = training.ranks = session.checkpoints.ranks = alone
    training.masters.clear()
    session.save(listener)
    step = training.progress.step
    return f"everything until step {step} is saved" if session.saved and session.saved[0] == step else before

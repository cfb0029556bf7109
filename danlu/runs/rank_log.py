"""Who speaks in a run of several processes: the first one on the screen, each of the others in a file of its own."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from danlu.core.ranks import Ranks
from danlu.runs.folder import RunFolder

FORMAT = "%(asctime)s %(levelname)s %(message)s"


@contextmanager
def speaking(folder: RunFolder, ranks: Ranks) -> Iterator[None]:
    """Inside, processes but the first say everything to `ranks/rank-N.log`, and only warnings on the screen."""
    if ranks.leads:
        yield
        return
    folder.ranks.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    before = [(handler, handler.level) for handler in root.handlers]
    file = logging.FileHandler(folder.ranks / f"rank-{ranks.rank}.log", encoding="utf-8")
    file.setFormatter(logging.Formatter(FORMAT))
    for handler, level in before:
        handler.setLevel(max(level, logging.WARNING))
    root.addHandler(file)
    heard = root.level
    root.setLevel(min(heard, logging.INFO))
    try:
        yield
    finally:
        root.setLevel(heard)
        root.removeHandler(file)
        file.close()
        for handler, level in before:
            handler.setLevel(level)

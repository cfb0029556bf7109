"""`danlu … --gpus N` in a process of its own, forked where everything is imported, so that it begins at once."""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from danlu.cli.failing import fail, tell
from danlu.core.errors import UserError
from danlu.runs.launch import Launch, launch_doctor, launch_train
from danlu.runs.meeting import Verdict
from tests.runs.several import CONTEXT

LONGEST = 100.0
"""seconds after which a launcher is killed; its ranks end by themselves then"""


class Launched:
    """A launcher, what it says and how it ends."""

    def __init__(self, home: Path, words: Sequence[str], how: Launch, verb: str = "train") -> None:
        self.said_in = home / f"said-{how.node_rank or 0}-{time.monotonic_ns()}.txt"
        given = (verb, list(words), how, os.getcwd(), self.said_in)
        self.process: BaseProcess = CONTEXT.Process(target=start, args=given, daemon=True)
        self.process.start()

    @property
    def said(self) -> str:
        """All that it and its ranks have printed."""
        return self.said_in.read_text()

    def end(self) -> int | None:
        """Its exit code."""
        self.process.join(LONGEST)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
        return code


def start(verb: str, words: list[str], how: Launch, place: str, said_in: Path) -> None:
    """What `danlu` does with these words."""
    os.chdir(place)
    file = os.open(said_in, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ |= {"PYTHONPATH": os.pathsep.join(sys.path), "NO_COLOR": "1", "COLUMNS": "200"}
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    launch = launch_train if verb == "train" else launch_doctor
    try:
        verdict: Verdict | None = launch(words[0], words[1:], how)
    except UserError as error:
        sys.stderr.flush()
        os._exit(fail(error))
    if verdict is not None:
        tell(verdict.words)
    os._exit(verdict.code if verdict else 0)


def beat(folder: Path, rank: int) -> dict:
    """What a rank says it does; nothing before it has begun."""
    try:
        return json.loads((folder / f"ranks/rank-{rank}.json").read_bytes())
    except FileNotFoundError:
        return {"step": -1}


def after_step(folder: Path, step: int, ranks: int = 2) -> list[int]:
    """Wait until every rank has finished a step; their process ids."""
    until(lambda: min(beat(folder, rank)["step"] for rank in range(ranks)) >= step)
    return [beat(folder, rank)["pid"] for rank in range(ranks)]


def until(there: Callable[[], bool]) -> None:
    """Wait, but not for ever."""
    end = time.monotonic() + LONGEST
    while not there():
        assert time.monotonic() < end
        time.sleep(0.05)

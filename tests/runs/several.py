"""Runs by several processes of this machine: `several(2, ["sft_lora", "folder=run", …])` starts them all at once.

They are forked from a server that has imported everything, so that a start takes no seconds.
"""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from danlu.core.errors import UserError

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["danlu.runs.start", "danlu.engine.parallel.fsdp", "tests.runs.several"])
LONGEST = 120.0
"""seconds after which processes that wait for one another are killed"""


def several(
    count: int,
    words: Sequence[str],
    *,
    resume: bool = False,
    before: Callable[[int], None] | None = None,
    meanwhile: Callable[[list[int]], None] | None = None,
    errors: Path | None = None,
) -> list[int | None]:
    """The exit codes of the ranks of a run; minus a signal where one ended them.

    `before` is called in each, with its rank, and `meanwhile` here, with their process ids. What a rank has to complain
    of goes to `errors`.
    """
    variables = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    given = (variables, os.getcwd(), list(words), resume, before, errors)
    ranks = [CONTEXT.Process(target=one, args=(rank, *given), daemon=True) for rank in range(count)]
    for rank in ranks:
        rank.start()
    try:
        if meanwhile is not None:
            meanwhile([rank.pid or 0 for rank in ranks])
        until = time.monotonic() + LONGEST
        for rank in ranks:
            rank.join(max(0.0, until - time.monotonic()))
        return [rank.exitcode for rank in ranks]
    finally:
        for rank in ranks:
            if rank.is_alive() and rank.pid:
                os.kill(rank.pid, signal.SIGKILL)


def one(
    rank: int,
    variables: dict[str, str],
    place: str,
    words: list[str],
    resume: bool,
    before: Callable[[int], None] | None,
    errors: Path | None,
) -> None:
    """One process of a run."""
    os.chdir(place)
    os.environ |= {**variables, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    logging.basicConfig(level=logging.WARNING, format=f"rank {rank}: %(message)s")
    torch.set_num_threads(1)
    if before is not None:
        before(rank)
    from danlu.runs.start import start

    try:
        start(words[0], words[1:], resume=resume)
    except UserError as error:
        if errors is not None:
            (errors / f"error-{rank}.txt").write_text(str(error))
        print(f"rank {rank}: {error}", file=sys.stderr)
        os._exit(error.exit_code)
    torch.distributed.destroy_process_group()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])

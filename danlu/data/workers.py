"""A function over many chunks, in several processes, with the results in order."""

import gc
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, islice
from threading import Thread
from typing import Any, TypeVar

from danlu.core.errors import SetupError

C = TypeVar("C")
R = TypeVar("R")

MOST = 32
WAITING = 3
"""chunks in flight for each worker: enough that none waits, few enough that memory stays flat"""


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_chunks(rows: Iterable[C], size: int) -> Iterator[list[C]]:
    """Lists of at most `size`."""
    rows = iter(rows)
    while chunk := list(islice(rows, size)):
        yield chunk


def over(work: Callable[[C], R], chunks: Iterable[C], workers: int, waiting: int = WAITING) -> Iterator[R]:
    """`work` of every chunk, in order; a single chunk or worker needs no second process."""
    chunks = iter(chunks)
    first = list(islice(chunks, 2))
    if workers < 2 or len(first) < 2 or "fork" not in multiprocessing.get_all_start_methods():
        yield from map(work, chain(first, chunks))
        return
    yield from _forked(work, chain(first, chunks), workers, waiting)


_work: Callable[[Any], Any]


def _begin(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    gc.disable()  # rows are no cycles, and there are so many of them that looking for some takes an eighth of the time
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # a parent that was killed cannot end its workers, and one that waits for rows would wait for ever
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    # A tokenizer's threads do not survive a fork; each worker is one thread, and there are as many as cores.
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        os.environ.pop("TOKENIZERS_PARALLELISM")
        if before is not None:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def _do(chunk: Any) -> Any:
    try:
        return _work(chunk)
    finally:
        gc.collect()


def _forked(work: Callable[[C], R], chunks: Iterator[C], workers: int, most: int) -> Iterator[R]:
    # A fork shares the tokenizer and every import that the parent has: a spawned worker needs 5 s to get as far.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _begin, (work,))
    waiting: deque[Future[R]] = deque()
    gc.freeze()  # or each collection, here and in the workers, would go through (and there copy) all that was imported
    try:
        for chunk in chunks:
            with _one_thread_each():  # the first of these starts the workers
                waiting.append(pool.submit(_do, chunk))
            if len(waiting) >= most * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise SetupError(
            "a tokenizing worker was killed, perhaps for want of memory; set data.workers lower"
        ) from error
    finally:
        gc.unfreeze()
        pool.shutdown(wait=True, cancel_futures=True)

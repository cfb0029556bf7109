"""Ids as they are written: generate runs in a thread of its own and stops when nobody reads on."""

from collections.abc import Callable, Generator
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import torch
from torch import Tensor
from transformers.generation import BaseStreamer, StoppingCriteria, StoppingCriteriaList


class Tap(BaseStreamer, StoppingCriteria):
    """Hands over each token as it is written, and stops the writing when it is told to."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[int | BaseException | None] = SimpleQueue()
        self.closed = Event()
        self.in_prompt = True

    def put(self, value: Tensor) -> None:
        """Called by generate: first with the prompt, then with each token."""
        if not self.in_prompt:
            self.queue.put(int(value.item()))
        self.in_prompt = False

    def end(self) -> None:
        """Called by generate when it has finished."""

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        """Whether to stop each row."""
        return torch.full((input_ids.shape[0],), self.closed.is_set(), device=input_ids.device, dtype=torch.bool)

    @property
    def hooks(self) -> dict[str, Any]:
        """What generate is called with."""
        return {"streamer": self, "stopping_criteria": StoppingCriteriaList([self])}


def stream(write: Callable[..., Any]) -> Generator[int, None, None]:
    """The tokens of one row; `write` takes generate's hooks. An error of the thread is raised here."""
    tap = Tap()

    def run() -> None:
        try:
            write(**tap.hooks)
        except BaseException as error:
            tap.queue.put(error)
        finally:
            tap.queue.put(None)

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        while (token := tap.queue.get()) is not None:
            if isinstance(token, BaseException):
                raise token
            yield token
    finally:
        tap.closed.set()
        thread.join()

"""`metrics.jsonl`: one JSON object a line for all that happens in a run; a torn line is never glued to the next."""

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from danlu.core.files import write_atomic

NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""JSON has no such numbers, and a diverged loss must not read as 0"""


class MetricsLog:
    """Appends lines as they happen.

    A run resumed after `step`, measured last at `measured_step`, first drops the lines of what it will do again.
    """

    def __init__(self, path: Path, step: int, measured_step: int | None = None) -> None:
        self.path = path
        if path.exists():
            measured = -1 if measured_step is None else measured_step
            last = {"eval": min(step, measured), "end": -1}
            self._rewrite(lambda line: line["step"] <= last.get(line["event"], step))
        self._open()

    def write(self, event: str, step: int, facts: Mapping[str, Any]) -> None:
        """Append one event."""
        line = {"event": event, "step": step, "time": round(time.time(), 3), **facts}
        data = ("\n" * self._torn + _line(line)).encode()
        self._torn = True
        if self._file.write(data) != len(data):
            raise OSError(f"{self._file.name}: only a part of a line was written")
        self._torn = False

    def go_back(self, step: int) -> None:
        """Drop what was written after a step that the run goes back to, but not why it went."""
        self._rewrite(lambda line: line["step"] <= step or line["event"] == "alert")
        self.close()
        self._open()

    def sync(self) -> None:
        """Force the lines to the disk, so that a checkpoint is never ahead of them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> None:
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        self._torn = False

    def _rewrite(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        write_atomic(self.path, "".join(_line(facts) for facts in read_metrics(self.path) if keep(facts)))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every whole line, in order; lines torn by a kill or a full disk are passed over."""
    return list(_whole_lines(path.read_bytes()))


def _whole_lines(text: bytes) -> Iterator[dict[str, Any]]:
    for line in text.split(b"\n"):
        try:
            facts = json.loads(line)
        except ValueError:
            continue
        if isinstance(facts, dict) and isinstance(facts.get("step"), int):
            yield _from_words(facts)


def _line(facts: Mapping[str, Any]) -> str:
    return json.dumps(_to_words(facts), ensure_ascii=False, default=str) + "\n"


def _to_words(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _to_words(one) for key, one in value.items()}
    return [_to_words(one) for one in value] if isinstance(value, (list, tuple)) else value


def _from_words(value: Any) -> Any:
    if isinstance(value, str):
        return NOT_FINITE.get(value, value)
    if isinstance(value, dict):
        return {key: _from_words(one) for key, one in value.items()}
    return [_from_words(one) for one in value] if isinstance(value, list) else value

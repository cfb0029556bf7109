"""metrics.jsonl survives kills, full disks and resumes, and NaN never reads as a number."""

import json
import math
from pathlib import Path

import pytest

from danlu.engine.metrics import MetricsLog, read_metrics


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def write(path: Path, first: int, last: int, resumed_at: int = 0) -> None:
    log = MetricsLog(path, resumed_at)
    for step in range(first, last + 1):
        log.write("step", step, {"loss": float(step)})
    log.close()


def steps(path: Path) -> list[int]:
    return [line["step"] for line in read_metrics(path)]


def test_each_line_is_there_before_the_next(path):
    log = MetricsLog(path, 0)
    log.write("step", 1, {"loss": 2.5, "metrics": {"chosen": 1.0}})
    (line,) = read_metrics(path)
    assert (line["event"], line["step"], line["loss"], line["metrics"]) == ("step", 1, 2.5, {"chosen": 1.0})
    log.close()


def test_a_resumed_run_has_no_step_twice(path):
    write(path, 1, 7)
    write(path, 5, 9, resumed_at=4)
    assert steps(path) == list(range(1, 10))


def test_a_run_killed_before_its_first_save_begins_anew(path):
    log = MetricsLog(path, 0)
    for event, step in (("start", 0), ("eval", 0), ("step", 1)):
        log.write(event, step, {})
    log.close()
    MetricsLog(path, 0).close()
    assert [line["event"] for line in read_metrics(path)] == ["start"]


def test_numbers_that_are_none_stay_what_they_are(path):
    log = MetricsLog(path, 0)
    log.write("step", 1, {"loss": math.nan, "grad_norm": math.inf, "metrics": {"a": -math.inf}, "all": [math.nan, 1.0]})
    log.close()
    strict = json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert (strict["loss"], strict["grad_norm"]) == ("NaN", "Infinity")
    (line,) = read_metrics(path)
    assert math.isnan(line["loss"])
    assert (line["grad_norm"], line["metrics"]["a"]) == (math.inf, -math.inf)
    write(path, 2, 2, resumed_at=1)
    assert math.isnan(read_metrics(path)[0]["loss"])


def test_a_line_torn_at_any_byte_costs_only_itself(path):
    write(path, 1, 2)
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for end in range(start, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert steps(path) == [1]
        write(path, 2, 3, resumed_at=1)
        assert steps(path) == [1, 2, 3]


def test_garbage_between_lines_is_passed_over(path):
    write(path, 1, 1)
    with path.open("ab") as file:
        file.write(b'\x00\xff\n[1]\n{}\n"x"\n')
    log = MetricsLog(path, 1)
    log.write("step", 2, {})
    assert steps(path) == [1, 2]
    log.close()


class FullDisk:
    """A file on a disk that has room for only some bytes of the next write."""

    name = "metrics.jsonl"

    def __init__(self, file, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        return self.file.write(data[: self.room])


@pytest.mark.parametrize("room", [0, 1, 20])
def test_a_full_disk_never_glues_two_lines(path, room):
    log = MetricsLog(path, 0)
    log.write("step", 1, {})
    disk, log._file = log._file, FullDisk(log._file, room)
    with pytest.raises(OSError, match="only a part"):
        log.write("step", 2, {})
    log._file = disk
    log.write("step", 3, {})
    assert steps(path) == [1, 3]
    log.close()

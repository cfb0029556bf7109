"""What one process of several meets is answered by all: a stop, a number that is none, a full memory, a death."""

import math
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from danlu.data.packing import Pack
from danlu.engine import step as steps
from danlu.engine.metrics import read_metrics
from danlu.objectives.base import Loss, Models
from danlu.objectives.sft import SFT
from tests.runs.several import several
from tests.runs.small_run import FULL, SmallRun, leftovers, write_rows
from tests.runs.test_several_ranks import SMOOTH, numbers, same_curve, same_weights

STEP = 3
"""in which something happens"""


@pytest.fixture
def small(tmp_path):
    """`small(*settings)`: a run over rows."""
    write_rows(tmp_path / "rows.jsonl")
    return lambda *settings: SmallRun(tmp_path, (*SMOOTH, *settings))


def events(folder: Path, name: str) -> list[dict]:
    return [line for line in read_metrics(folder / "metrics.jsonl") if line["event"] == name]


def in_step(rank: int, wanted: int, what) -> None:
    """Let something happen once, in a step of one process."""
    if rank != wanted:
        return
    count, train_step = [0], steps.sum_gradients

    def counted(*given):
        count[0] += 1
        if count[0] == STEP:
            what()
        return train_step(*given)

    steps.sum_gradients = counted


def stops_rank_1(rank: int) -> None:
    in_step(rank, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))


def kills_rank_1(rank: int) -> None:
    in_step(rank, 1, lambda: os.kill(os.getpid(), signal.SIGKILL))


def kills_rank_0(rank: int) -> None:
    in_step(rank, 0, lambda: os.kill(os.getpid(), signal.SIGKILL))


def no_number_on_rank_1(rank: int) -> None:
    loss = SFT.loss
    once = [True]

    def spoilt(self: SFT, models: Models, pack: Pack) -> Loss:
        found = loss(self, models, pack)
        if bad[0] and torch.is_grad_enabled():
            bad[0] = False
            found.total = found.total * math.nan
        return found

    bad = [False]
    in_step(rank, 1, lambda: bad.__setitem__(0, once[0]))
    if rank == 1:
        SFT.loss = spoilt  # type: ignore[method-assign]


def full_on_rank_1(rank: int) -> None:
    full, loss = [False], SFT.loss

    def once(self: SFT, models: Models, pack: Pack) -> Loss:
        if full[0] and torch.is_grad_enabled():
            full[0] = False
            raise torch.OutOfMemoryError("no room for 1 GiB")
        return loss(self, models, pack)

    in_step(rank, 1, lambda: full.__setitem__(0, True))
    if rank == 1:
        SFT.loss = once  # type: ignore[method-assign]


@pytest.mark.parametrize("parallel", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_a_stop_of_one_is_one_of_all_and_others_go_on_with_it(small, tmp_path, parallel):
    run = small(f"engine.parallel={parallel}")
    words = ["sft_lora", *run.words(tmp_path / "run")]
    assert several(2, words, before=stops_rank_1) == [75, 75]
    assert len(events(tmp_path / "run", "stop")) == 1
    run.go(tmp_path / "run")  # one process
    run.go(tmp_path / "oracle")
    same_curve(tmp_path / "run", tmp_path / "oracle")
    same_weights(tmp_path / "run", tmp_path / "oracle")


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("fsdp", "ddp"),
        pytest.param("ddp", "fsdp", marks=pytest.mark.slow),
        pytest.param("fsdp", "zero1", marks=pytest.mark.slow),
    ],
)
def test_a_run_goes_on_with_more_processes_that_share_otherwise(small, tmp_path, first, then):
    run = small(*FULL)
    words = ["sft_lora", *run.words(tmp_path / "run")]
    assert several(2, [*words, f"engine.parallel={first}"], before=stops_rank_1) == [75, 75]
    more = [*words, f"engine.parallel={then}"]
    assert several(3, more, resume=True) == [0, 0, 0]
    run.go(tmp_path / "oracle")
    same_curve(tmp_path / "run", tmp_path / "oracle")
    same_weights(tmp_path / "run", tmp_path / "oracle")
    assert leftovers(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("parallel", "kill"),
    [
        ("fsdp", kills_rank_1),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (("ddp", kills_rank_0), ("ddp", kills_rank_1), ("fsdp", kills_rank_0))
        ),
    ],
)
def test_a_killed_process_ends_the_others_and_the_run_goes_on_from_what_was_saved(small, tmp_path, parallel, kill):
    run = small(f"engine.parallel={parallel}")
    words = ["sft_lora", *run.words(tmp_path / "run")]
    began = time.monotonic()
    codes = several(2, words, before=kill)
    assert -signal.SIGKILL in codes
    assert 0 not in codes
    assert time.monotonic() - began < 60
    assert several(2, words, resume=True) == [0, 0]
    run.go(tmp_path / "oracle")
    same_curve(tmp_path / "run", tmp_path / "oracle")
    same_weights(tmp_path / "run", tmp_path / "oracle")


@pytest.mark.parametrize("parallel", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp"])
def test_a_loss_of_one_that_is_no_number_is_skipped_by_all(small, tmp_path, parallel):
    run = small(f"engine.parallel={parallel}", "engine.on_nonfinite=skip")
    words = ["sft_lora", *run.words(tmp_path / "run")]
    assert several(2, words, before=no_number_on_rank_1) == [0, 0]
    lines = [line for line in numbers(tmp_path / "run") if line["event"] == "step"]
    assert [line["step"] for line in lines if line["skipped"]] == [STEP]
    assert all(math.isfinite(line["loss"]) for line in lines if not line["skipped"])
    [alert] = events(tmp_path / "run", "alert")
    assert "process 1" in alert["message"]


def test_a_full_memory_of_one_makes_room_in_all(small, tmp_path):
    run = small("data.batch.rows=12", "data.pack_tokens=96")
    words = ["sft_lora", *run.words(tmp_path / "run")]
    assert several(2, words, before=full_on_rank_1) == [0, 0]
    assert "out of memory" in events(tmp_path / "run", "alert")[0]["message"]
    run.go(tmp_path / "oracle")
    same_curve(tmp_path / "run", tmp_path / "oracle")

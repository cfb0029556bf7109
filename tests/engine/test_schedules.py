"""Every schedule equals the table of the peers, and transformers' own at every step."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import get_scheduler

from danlu.engine.schedules.base import Schedule, schedules

PEAK = 1e-3


@pytest.mark.parametrize(
    ("name", "at_5", "at_55", "at_100"),
    [
        ("linear", 5e-4, 5e-4, 0),
        ("cosine", 5e-4, 5e-4, 0),
        ("constant", 5e-4, 1e-3, 1e-3),
        ("poly", 5e-4, 5.0005e-4, 1e-7),
        ("warmup", 5e-4, 1e-3, 1e-3),
    ],
)
def test_the_table_of_peak_1e_3_warmup_10_of_100_steps(name, at_5, at_55, at_100):
    schedule = schedules[name](warmup=10)
    rates = [schedule.lr(PEAK, step, 100) for step in (5, 55, 100)]
    assert rates == pytest.approx([at_5, at_55, at_100], rel=1e-12, abs=1e-18)


def theirs(name: str, warmup: int, num_steps: int, **options: object) -> list[float]:
    """The rates of transformers' schedule for every update."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = get_scheduler(name, optimizer, warmup, num_steps, scheduler_specific_kwargs=options)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(num_steps - 1):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


TWINS = [
    ("linear", {}, "linear", {}),
    ("cosine", {}, "cosine", {}),
    ("cosine", {"floor": 0.1}, "cosine_with_min_lr", {"min_lr_rate": 0.1}),
    ("cosine_restarts", {"cycles": 3}, "cosine_with_restarts", {"num_cycles": 3}),
    ("constant", {}, "constant_with_warmup", {}),
    ("warmup", {}, "constant_with_warmup", {}),
    ("poly", {}, "polynomial", {}),
    ("poly", {"power": 2.0, "end": 1e-5}, "polynomial", {"power": 2.0, "lr_end": 1e-5}),
    ("inverse_sqrt", {}, "inverse_sqrt", {}),
    ("inverse_sqrt", {"timescale": 7}, "inverse_sqrt", {"timescale": 7}),
]


@pytest.mark.parametrize(("name", "options", "twin", "their_options"), TWINS)
@pytest.mark.parametrize(("warmup", "num_steps"), [(0, 9), (1, 1), (4, 37), (5, 5), (8, 4)])
def test_every_step_equals_transformers(name, options, twin, their_options, warmup, num_steps):
    schedule = schedules[name].model_validate({"warmup": warmup, **options})
    ours = [schedule.lr(PEAK, step, num_steps) for step in range(num_steps)]
    assert ours == pytest.approx(theirs(twin, warmup, num_steps, **their_options), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(("curve", "their_curve"), [("linear", "linear"), ("cosine", "cosine"), ("sqrt", "1-sqrt")])
def test_wsd_equals_transformers(curve, their_curve):
    schedule = schedules["wsd"].model_validate({"warmup": 4, "decay": 10, "curve": curve})
    ours = [schedule.lr(PEAK, step, 40) for step in range(40)]
    options = {"num_decay_steps": 10, "decay_type": their_curve, "min_lr_ratio": 0.0}
    assert ours == pytest.approx(theirs("warmup_stable_decay", 4, 40, **options), rel=1e-9)
    assert schedules["wsd"](floor=0.2, curve=curve).factor(40, 40) == pytest.approx(0.2)


def test_deepspeeds_logarithmic_warmup():
    schedule = schedules["warmup"].model_validate({"warmup": 10, "curve": "log"})
    # ln(k + 1) / ln(10), as deepspeed.runtime.lr_schedules.WarmupLR has it
    expected = [0.0, 0.30103, 0.47712, 0.60206, 0.69897, 0.77815, 0.84510, 0.90309, 0.95424, 1.0, 1.0]
    assert [schedule.factor(step, 100) for step in range(11)] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_what_follows_a_logarithmic_warmup_is_the_same(name):
    straight = schedules[name].model_validate({"warmup": 10})
    log = schedules[name].model_validate({"warmup": 10, "curve": "log"})
    climb = schedules["warmup"].model_validate({"warmup": 10, "curve": "log"})
    assert [log.factor(step, 40) for step in range(10)] == [climb.factor(step, 40) for step in range(10)]
    assert [log.factor(step, 40) for step in range(10, 41)] == [straight.factor(step, 40) for step in range(10, 41)]


@pytest.mark.parametrize("name", list(schedules))
@given(
    warmup=st.one_of(st.floats(0, 0.999), st.integers(1, 300).map(float)),
    num_steps=st.integers(1, 300),
    step=st.integers(0, 300),
)
@settings(max_examples=60, deadline=None)
def test_a_rate_is_a_share_of_the_peak_and_peaks_where_the_warmup_ends(name, warmup, num_steps, step):
    schedule: Schedule = schedules[name](warmup=warmup)
    assert -1e-12 <= schedule.factor(step, num_steps) <= 1 + 1e-12
    for climbing in (k for k in range(num_steps) if k < warmup * (num_steps if warmup < 1 else 1) - 1):
        assert schedule.factor(climbing, num_steps) < 1
    peak = round(warmup) if warmup >= 1 else None
    if peak is not None and peak < num_steps:
        assert schedule.factor(peak, num_steps) == 1


@pytest.mark.parametrize(("share", "num_steps", "steps"), [(0.03, 100, 3), (0.07, 100, 7), (0.1, 15, 2), (1, 100, 1)])
def test_a_share_of_the_steps_is_rounded_up_but_not_by_dust(share, num_steps, steps):
    schedule = schedules["constant"](warmup=share)
    assert schedule.factor(steps, num_steps) == 1
    assert schedule.factor(steps - 1, num_steps) == (steps - 1) / steps


@pytest.mark.parametrize("warmup", [-1, -0.1, 1.5, float("nan"), float("inf")])
def test_a_warmup_that_is_neither_share_nor_steps_is_refused(warmup):
    with pytest.raises(ValidationError):
        schedules["cosine"](warmup=warmup)


def test_every_schedule_stays_put_after_its_end():
    for name in set(schedules) - {"inverse_sqrt"}:
        schedule = schedules[name](warmup=2)
        assert schedule.lr(PEAK, 50, 20) == schedule.lr(PEAK, 20, 20)

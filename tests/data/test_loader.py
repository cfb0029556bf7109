"""The order of training: the same for any number of workers and after any restart."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from danlu.core.errors import DataError
from danlu.data import loader
from danlu.data.batch import Batch
from danlu.data.loader import Loader
from danlu.data.mixtures.shares import Shares
from danlu.data.order import Order, held_out_rows
from tests.data.fake_sets import fake_rows, rows_of

batches = st.builds(lambda n: Batch(rows=n), st.integers(1, 9)) | st.builds(
    lambda n: Batch(tokens=n), st.integers(1, 200)
)
lengths = st.lists(st.integers(1, 40), min_size=1, max_size=50)


@settings(deadline=None)
@given(lengths=lengths, batch=batches, epochs=st.integers(1, 3), shuffle=st.booleans(), seed=st.integers(0, 2**40))
def test_every_row_comes_once_an_epoch(lengths, batch, epochs, shuffle, seed):
    loader = Loader(fake_rows(lengths), batch, pack_tokens=50, seed=seed, shuffle=shuffle, epochs=epochs)
    steps = list(loader)
    seen = [row for step in steps for pack in rows_of(step) for row in pack]
    assert sorted(seen) == sorted(list(range(len(lengths))) * epochs)
    assert loader.num_steps == len(steps)
    assert steps[-1].epoch == epochs


@settings(deadline=None)
@given(lengths=lengths, batch=batches, stop=st.integers(0, 20), seed=st.integers(0, 9))
def test_a_restored_loader_goes_on_as_if_it_had_never_stopped(lengths, batch, stop, seed):
    def fresh():
        return Loader(fake_rows(lengths), batch, pack_tokens=50, seed=seed, epochs=3)

    steps = list(fresh())
    if stop >= len(steps):
        return
    resumed = fresh()
    resumed.restore(json.loads(json.dumps(steps[stop].cursor)))
    assert [(rows_of(step), step.cursor) for step in resumed] == [
        (rows_of(step), step.cursor) for step in steps[stop + 1 :]
    ]


def test_rows_are_in_the_order_of_the_file_when_not_shuffled():
    loader = Loader(fake_rows([10] * 6), Batch(rows=2), shuffle=False, epochs=2)
    assert [rows_of(step) for step in loader] == [[[0, 1]], [[2, 3]], [[4, 5]]] * 2


def test_each_epoch_has_an_order_of_its_own():
    order = Loader(fake_rows([1] * 50), Batch(rows=50), seed=1).course.order
    assert order.epoch(0).tolist() != order.epoch(1).tolist()
    assert Loader(fake_rows([1] * 50), Batch(rows=50), seed=2).course.order.epoch(0).tolist() != order.epoch(0).tolist()


def test_a_batch_of_tokens_is_full_packs():
    loader = Loader(fake_rows([3 + 7 * n % 40 for n in range(3000)]), Batch(tokens=1024), pack_tokens=256, epochs=1)
    assert {len(step.packs) for step in list(loader)[:-1]} == {4}
    assert loader.fill > 0.98


def test_part_of_an_epoch_ends_there():
    loader = Loader(fake_rows([1] * 10), Batch(rows=2), epochs=0.5)
    assert len(list(loader)) == loader.num_steps == 3


def test_a_loader_without_epochs_has_no_end():
    loader = Loader(fake_rows([1] * 3), Batch(rows=2))
    assert loader.num_steps is None
    assert len([step for step, _ in zip(loader, range(50), strict=False)]) == 50


def test_a_cursor_of_other_data_is_refused():
    cursor = next(iter(Loader(fake_rows([1] * 3), Batch(rows=2)))).cursor
    with pytest.raises(DataError, match="the data has changed: 4 rows now, 3 when"):
        Loader(fake_rows([1] * 4), Batch(rows=2)).restore(cursor)


def test_a_batch_is_rows_or_tokens():
    assert Batch().rows == 16
    with pytest.raises(ValueError, match="either rows"):
        Batch(rows=3, tokens=3)


def test_packs_tell_where_each_segment_came_from(loaded, rows_file, tokenizer):
    one = rows_file([{"instruction": "first", "output": "a"}], "one.jsonl")
    two = rows_file([{"instruction": "second", "output": "b"}], "two.jsonl")
    data = loaded(sources=[str(one), str(two)])
    [step] = data.loader(epochs=1)
    [pack] = step.packs
    said = [tokenizer.decode(ids) for ids in pack.input_ids.split(pack.lengths)]
    for segment, words in zip(pack.segments, said, strict=True):
        assert {"one": "first", "two": "second"}[segment.source] in words
        assert segment.where.endswith(f"{segment.source}.jsonl:1")


@pytest.mark.parametrize(("held_out", "rows"), [(0, 0), (1, 1), (1.0, 1), (50, 50), (0.1, 100)])
def test_below_one_a_share_is_held_out_and_from_one_on_a_number_of_rows(held_out, rows):
    places = np.array([[0, row] for row in range(1000)])
    held = held_out_rows(3, places, held_out)
    assert held.sum() == pytest.approx(rows, abs=30 if 0 < held_out < 1 else 0)
    assert (held == held_out_rows(3, places, held_out)).all()


def test_a_long_run_reckons_its_steps_from_its_first_rows(monkeypatch):
    rows = fake_rows([3 + 7 * n % 40 for n in range(9000)], [9] * 900)

    def steps() -> list[int | None]:
        mixtures = (None, Shares(shares=[1, 1], max_epochs=2))
        return [Loader(rows, Batch(tokens=512), pack_tokens=256, epochs=1, mixture=one).num_steps for one in mixtures]

    exact = steps()
    monkeypatch.setattr(loader, "COUNTED", 6000)
    for found, reckoned in zip(exact, steps(), strict=True):
        assert found <= reckoned <= found * 1.01


def test_rows_are_kept_small():
    rows = fake_rows([5] * 300)
    assert rows.number.dtype.itemsize + rows.lengths.dtype.itemsize <= 6
    assert Order(70_000, 1, True).epoch(0).dtype.itemsize == 4

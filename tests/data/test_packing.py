"""Packs hold every row once, whole, and are as full as can be."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from danlu.data.length import fit
from danlu.data.packing import IGNORED, Pack, Segment, best_fit, refit
from danlu.data.pool import Pool
from danlu.tokens.encode import Encoded

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@given(lengths=lengths, capacity=st.integers(1, 50))
def test_best_fit_loses_no_row_and_overfills_no_pack(lengths, capacity):
    packs = best_fit(lengths, capacity)
    assert sorted(row for pack in packs for row in pack) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in pack) <= capacity or len(pack) == 1 for pack in packs)


@given(lengths=lengths)
def test_best_fit_opens_no_pack_that_another_had_room_for(lengths):
    sums = sorted(sum(lengths[row] for row in pack) for pack in best_fit(lengths, 50))
    assert all(one + other > 50 for one, other in pairwise(sums))


@given(lengths=lengths, capacity=st.integers(1, 50))
def test_a_pool_gives_every_row_once_and_the_oldest_first(lengths, capacity):
    pool = Pool()
    for row, length in enumerate(lengths):
        pool.put(row, length)
    waiting, packs = set(range(len(lengths))), []
    while len(pool):
        packs.append(pool.pack(capacity))
        assert packs[-1][0] == min(waiting)
        waiting -= set(packs[-1])
        assert pool.rows() == sorted(waiting)
    assert sorted(row for pack in packs for row in pack) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in pack) <= capacity or len(pack) == 1 for pack in packs)


rows = st.lists(st.lists(st.tuples(st.integers(0, 99), st.booleans()), min_size=1, max_size=9), min_size=1, max_size=6)


@given(rows=rows)
def test_a_target_is_the_next_token_of_the_same_row(rows):
    pack = Pack.of([(np.array([id for id, _ in row]), np.array([learnt for _, learnt in row])) for row in rows])
    want = []
    for row in rows:
        want += [id if learnt else IGNORED for id, learnt in row[1:]] + [IGNORED]
    assert pack.targets.tolist() == want
    assert pack.positions.tolist() == [at for row in rows for at in range(len(row))]
    assert pack.lengths == [len(row) for row in rows]


masks = st.lists(st.booleans(), min_size=1, max_size=30)


@given(mask=masks, most=st.integers(2, 40))
def test_every_way_to_cut_keeps_what_it_says(mask, most):
    row = Encoded(np.arange(len(mask), dtype=np.uint32), np.array(mask))
    cut = {how: fit(row, most, how) for how in ("truncate_left", "truncate_right", "drop", "split")}
    if len(mask) <= most:
        assert all(kept == [row] for kept in cut.values())
        return
    assert cut["truncate_right"][0].ids.tolist() == list(range(most))
    assert cut["truncate_left"][0].ids.tolist() == list(range(len(mask) - most, len(mask)))
    assert cut["drop"] == []
    assert np.concatenate([piece.ids for piece in cut["split"]]).tolist() == list(range(len(mask)))
    for kept in cut.values():
        assert all(len(piece.ids) <= most and piece.cut and not piece.trained[0] for piece in kept)
        assert all(piece.trained[1:].tolist() == [mask[id] for id in piece.ids[1:]] for piece in kept)


@given(lengths=lengths, before=st.integers(1, 50), after=st.integers(1, 50))
def test_segments_are_the_same_in_packs_of_another_size(lengths, before, after):
    rows = [(np.arange(n) + 100 * row, np.arange(n) % 3 > 0) for row, n in enumerate(lengths)]
    segments = [Segment("source", "file", row) for row in range(len(rows))]
    packs = [
        Pack.of([rows[n] for n in numbers], [segments[n] for n in numbers]) for numbers in best_fit(lengths, before)
    ]
    found = refit(packs, after)
    assert all(pack.num_tokens <= after or len(pack.segments) == 1 for pack in found)
    assert pieces(found) == pieces(packs)


def pieces(packs):
    """What each segment holds, by its row."""
    found = {}
    for pack in packs:
        for segment, (begin, end) in zip(pack.segments, pairwise(pack.cu_seqlens.tolist()), strict=True):
            names = ("input_ids", "positions", "targets", "weights")
            found[segment.row] = [getattr(pack, name)[begin:end].tolist() for name in names]
    return found

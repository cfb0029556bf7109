"""Mixtures: shares hold all the way, sources repeat only when they are used up, and a restart changes nothing."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from danlu.core.errors import DataError
from danlu.data.batch import Batch
from danlu.data.config import DataConfig
from danlu.data.loader import Loader
from danlu.data.mixture import Chooser, dealt, whole
from danlu.data.mixtures.base import Mixture
from danlu.data.mixtures.concat import Concat
from danlu.data.mixtures.interleave import Interleave
from danlu.data.mixtures.policy import Policy
from danlu.data.mixtures.shares import Shares
from danlu.data.rows import Rows, stored
from danlu.data.tally import Tally
from tests.data.fake_sets import FakeSet, fake_rows, sources_of

SHARED = Path(__file__).parents[3] / "shared/data"

some_weights = st.lists(st.integers(1, 1000), min_size=2, max_size=9)
lengths = st.lists(st.integers(1, 40), min_size=1, max_size=30)
units = st.sampled_from(["rows", "tokens", "trained_tokens", "bytes"])
mixtures = st.one_of(
    st.just(Concat()),
    st.builds(lambda by, a, b: Shares(shares=[a, b, 1.0], by=by), units, st.floats(0.1, 5), st.floats(0.1, 5)),
    st.builds(lambda by, t: Shares(by=by, temperature=t, max_epochs={"b": 1.5}), units, st.floats(0.5, 5)),
    st.builds(lambda by, until: Interleave(by=by, until=until), units, st.sampled_from(["first", "last"])),
)
batches = st.builds(lambda n: Batch(rows=n), st.integers(1, 9)) | st.builds(
    lambda n: Batch(tokens=n), st.integers(1, 200)
)


def loader(rows: Rows, mixture: Mixture, batch: Batch | None = None, epochs: float | None = 1, **more) -> Loader:
    return Loader(rows, batch or Batch(rows=4), pack_tokens=50, mixture=mixture, epochs=epochs, **more)


def counts(one: Loader, steps: int | None = None) -> Counter[str]:
    """Rows of each source."""
    return Counter(name for step in islice(one, steps) for name in sources_of(step))


def places(one: Loader, steps: int | None = None) -> list[tuple[str, int]]:
    """(source, row) in order of training."""
    return [(part.source, part.row) for step in islice(one, steps) for pack in step.packs for part in pack.segments]


@given(weights=some_weights, turns=st.integers(1, 300))
def test_shares_are_within_one_row_in_every_stretch_from_the_start(weights, turns):
    chooser, count = Chooser(weights), [0] * len(weights)
    for turn in range(1, turns + 1):
        source = chooser.choose([1.0] * len(weights))
        chooser.give(source, 1.0)
        count[source] += 1
        for given_, weight in zip(count, weights, strict=True):
            assert abs(given_ - turn * weight / sum(weights)) < 1 + 1e-6


@given(weights=some_weights, data=st.data())
def test_shares_of_tokens_are_within_the_longest_row_of_each(weights, data):
    chooser, given_ = Chooser(weights), [0.0] * len(weights)
    longest = 40
    sizes = [data.draw(st.lists(st.integers(1, longest), min_size=60, max_size=60)) for _ in weights]
    heads = [0] * len(weights)
    for _ in range(60):
        source = chooser.choose([float(size[head]) for size, head in zip(sizes, heads, strict=True)])
        chooser.give(source, float(sizes[source][heads[source]]))
        given_[source] += sizes[source][heads[source]]
        heads[source] += 1
        for amount, weight in zip(given_, weights, strict=True):
            assert amount - sum(given_) * weight / sum(weights) < longest
            assert sum(given_) * weight / sum(weights) - amount < 2 * longest


@given(amounts=st.lists(st.floats(0, 1e6), min_size=1, max_size=9))
def test_whole_numbers_keep_the_sum(amounts):
    rows = whole(amounts)
    assert sum(rows) == round(sum(amounts))
    assert all(abs(row - amount) < 1 + 1e-6 for row, amount in zip(rows, amounts, strict=True))


@given(weights=some_weights, total=st.floats(1, 1e6), data=st.data())
def test_what_a_capped_source_leaves_goes_to_the_others(weights, total, data):
    most = [data.draw(st.floats(1, 1e6)) for _ in weights]
    given_ = dealt(weights, total, most)
    assert sum(given_) == pytest.approx(min(total, sum(most)))
    assert all(amount <= limit * (1 + 1e-9) for amount, limit in zip(given_, most, strict=True))
    free = [amount / weight for amount, weight, limit in zip(given_, weights, most, strict=True) if amount < limit]
    assert free == pytest.approx([free[0]] * len(free)) if free else True


@settings(deadline=None)
@given(a=lengths, b=lengths, epochs=st.integers(1, 3), batch=batches, seed=st.integers(0, 99))
def test_concat_gives_every_row_of_every_source_once_an_epoch(a, b, epochs, batch, seed):
    one = loader(fake_rows(a, b), Concat(), batch, epochs, seed=seed)
    want = Counter({("a", n): epochs for n in range(len(a))}) + Counter({("b", n): epochs for n in range(len(b))})
    assert Counter(places(one)) == want


@settings(deadline=None)
@given(a=lengths, b=lengths, c=lengths, mixture=mixtures, seed=st.integers(0, 99), steps=st.integers(1, 25))
def test_no_row_comes_twice_before_all_of_its_source_came_once(a, b, c, mixture, seed, steps):
    seen = Counter(places(loader(fake_rows(a, b, c), mixture, epochs=None, seed=seed), steps))
    for name, source in zip("abc", (a, b, c), strict=True):
        times = [seen[name, n] for n in range(len(source))]
        assert max(times) - min(times) <= 1


@settings(deadline=None)
@given(
    a=lengths, b=lengths, c=lengths, mixture=mixtures, batch=batches, stop=st.integers(0, 12), seed=st.integers(0, 9)
)
def test_a_restored_mixture_goes_on_as_if_it_had_never_stopped(a, b, c, mixture, batch, stop, seed):
    def fresh() -> Loader:
        return loader(fake_rows(a, b, c), mixture, batch, 2, seed=seed)

    steps = list(fresh())
    assert len(steps) == fresh().num_steps
    if stop < len(steps):
        resumed = fresh()
        resumed.restore(json.loads(json.dumps(steps[stop].cursor)))
        rest = [(sources_of(step), step.cursor, step.facts) for step in resumed]
        assert rest == [(sources_of(step), step.cursor, step.facts) for step in steps[stop + 1 :]]


def test_equal_shares_put_both_sources_into_every_step():
    steps = list(loader(fake_rows([5] * 40, [5] * 7), Shares(shares={"a": 1, "b": 1}), Batch(rows=8)))
    assert all(Counter(sources_of(step)) == {"a": 4, "b": 4} for step in steps[:-1])


def test_ratios_and_steps_give_each_source_its_part_of_all_rows():
    one = loader(fake_rows([3] * 100, [3] * 100_000), Shares(shares=[0.7, 0.3]), Batch(rows=128), None)
    seen = places(one, 400)
    rows = Counter(name for name, _ in seen)
    assert rows == {"a": 35_840, "b": 15_360}
    times = Counter(seen)
    assert {times["a", n] for n in range(100)} <= {358, 359}  # 358.4 passes over the small one
    assert {count for (name, _), count in times.items() if name == "b"} == {1}  # a random part of the large one


def test_no_row_is_lost_by_rounding_and_ratios_need_not_sum_to_one():
    assert counts(loader(fake_rows([1] * 9, [1] * 9), Shares(shares=[1.4, 0.6]), Batch(rows=1), None), 7) == {
        "a": 5,
        "b": 2,
    }


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ([0.5], r"the number of sources and of shares should be the same: 2 sources \(wiki, news\), 1 shares"),
        ({"wiki": 1}, "no number for news"),
        ({"wiki": 1, "news": 1, "newz": 1}, "no source is called 'newz'; did you mean 'news'"),
    ],
)
def test_shares_must_name_every_source(shares, words):
    with pytest.raises(DataError, match=words):
        Shares(shares=shares).check(["wiki", "news"])


@pytest.mark.parametrize("by", ["tokens", "trained_tokens"])
def test_shares_of_tokens(by):
    rows = fake_rows([30] * 400, [4] * 4000)
    steps = list(islice(loader(rows, Shares(shares=[3, 1], by=by), epochs=None), 100))
    realised = Tally.of(steps[-1].cursor["given"]).realised({"a": 400, "b": 4000})
    assert realised["a"][f"share_of_{by}"] == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("held", [5, 300])
def test_a_batch_can_be_half_of_one_source_and_half_of_another(held):
    """As many rows of instructions as of plain text in every step, until the instructions are used up."""
    half, chats = 8, 40
    mixture = Interleave(until="first" if held > chats else "last")
    one = loader(fake_rows([3] * chats, [4] * held), mixture, Batch(rows=2 * half))
    steps = [Counter(sources_of(step)) for step in one]
    assert steps == [{"a": half, "b": half}] * (chats // half)


def test_files_behind_a_url_have_a_size_too():
    files = fsspec.filesystem("memory")
    files.pipe("/danlu-sizes/a.jsonl", bytes(900))
    files.pipe("/danlu-sizes/b.jsonl", bytes(100))
    assert stored(["memory://danlu-sizes/a.jsonl", "memory://danlu-sizes/b.jsonl"]) == 1000
    with pytest.raises(DataError, match=r"memory://danlu-sizes/gone\.jsonl: cannot be asked for its size"):
        stored(["memory://danlu-sizes/gone.jsonl"])


def test_shares_of_bytes_go_by_the_size_of_the_files(tmp_path):
    (tmp_path / "large").write_bytes(bytes(9000))
    (tmp_path / "small").write_bytes(bytes(1000))
    sets = [FakeSet("a", [5] * 90, str(tmp_path / "large")), FakeSet("b", [5] * 90, str(tmp_path / "small"))]
    mixed = loader(Rows(sets), Shares(shares=[1, 1], by="bytes"), epochs=None)  # type: ignore[list-item]
    assert counts(mixed, 25) == {"a": 10, "b": 90}  # a row of `a` is nine times as large


def test_temperature_makes_small_sources_come_more_often():
    rows = fake_rows([1] * 160, [1] * 10)
    assert counts(loader(rows, Shares())) == {"a": 160, "b": 10}
    assert counts(loader(rows, Shares(temperature=2))) == {"a": 136, "b": 34}  # 4 : 1
    with pytest.raises(ValueError, match="either shares: or temperature:"):
        Shares(temperature=2, shares=[1, 2])


def test_a_source_at_its_cap_stops_and_the_others_go_on_by_their_shares():
    rows = fake_rows([1] * 10, [1] * 100, [1] * 100)
    mixed = loader(rows, Shares(shares=[2, 1, 1], max_epochs={"a": 2}), Batch(rows=1))
    seen = [name for name, _ in places(mixed)]
    assert Counter(seen) == {"a": 20, "b": 95, "c": 95}
    assert seen[:40].count("a") == 20
    assert all(abs(seen[40:end].count("b") - seen[40:end].count("c")) <= 1 for end in range(40, 210))
    capped = loader(rows, Shares(max_epochs=1), Batch(rows=10), None)
    assert (capped.num_steps, len(list(capped))) == (21, 21)
    with pytest.raises(DataError, match="no source is called 'd'"):
        Shares(max_epochs={"d": 2}).check(["a", "b"])


def test_interleaving_ends_with_the_first_source_or_when_the_last_was_seen():
    rows = fake_rows([1] * 10, [1] * 40)
    assert counts(loader(rows, Interleave())) == {"a": 10, "b": 10}
    assert counts(loader(rows, Interleave(until="last"))) == {"a": 40, "b": 40}
    assert counts(loader(rows, Interleave(shares={"a": 1, "b": 3}))) == {"a": 10, "b": 30}
    assert counts(loader(rows, Interleave(shares=[1, 3], until="last"))) == {"a": 13, "b": 40}


@pytest.fixture
def policy(tmp_path):
    def write(content) -> Path:
        path = tmp_path / "policy.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def test_a_policy_draws_its_ratio_of_the_size_of_all(policy, tmp_path):
    (tmp_path / "one").write_bytes(bytes(1000))
    sets = [FakeSet(name, [5] * 100, str(tmp_path / "one")) for name in ("news", "qa")]
    mixture = Policy(file=policy({"news": 0.65, "qa": 0.1}))
    assert counts(loader(Rows(sets), mixture)) == {"news": 130, "qa": 20}  # type: ignore[list-item]
    assert list(mixture.told(Rows(sets).held)) == [  # type: ignore[list-item]
        "[Sample Policy] news: 1/1 - 1.3KB/1.0KB (1.3 epochs)",
        "[Sample Policy] qa: 0/1 - 200B/1.0KB (0.2 epochs)",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"news": 0.5}, "no number for qa"),
        ({"news": 0.5, "qa": 1.0}, "'qa': a ratio is a number above 0 and below 1, found 1.0"),
        ({"news": 0.5, "qa": "0.1"}, "found '0.1'"),
        ({"news": 0.5, "qa": True}, "found True"),
        ({"news": 0.5, "qa": 0.1, "wiki": 0.1}, "no source is called 'wiki'"),
        ("{'news': 0.5}", "policy.json: not JSON"),
        ("[1]", "a policy is"),
    ],
)
def test_a_wrong_policy_is_refused(policy, content, words):
    with pytest.raises(DataError, match=words):
        Policy(file=policy(content)).check(["news", "qa"])


def test_a_policy_without_its_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.json: not a policy file \(No such file"):
        Policy(file=tmp_path / "none.json").check(["a"])


def test_mixtures_are_written_by_name_in_a_recipe():
    read = TypeAdapter(DataConfig).validate_python
    assert read({"sources": []}).mixture == Concat()
    given_ = {"sources": [], "mixture": {"name": "shares", "shares": {"a": 1}, "by": "tokens"}}
    assert read(given_).mixture == Shares(shares={"a": 1}, by="tokens")
    with pytest.raises(ValueError, match="did you mean 'interleave'"):
        read({"sources": [], "mixture": "interleaf"})


def test_shares_are_checked_before_anything_is_read(loaded, rows_file):
    path = rows_file(["not a row that any format knows"])
    with pytest.raises(DataError, match=r"data\.mixture\.shares.*no number for rows"):
        loaded(sources=str(path), mixture={"name": "shares", "shares": {"others": 1}})


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data")
def test_chats_and_plain_text_are_learnt_together(loaded):
    sources = {name: {"path": str(SHARED / file), "max_rows": 60} for name, file in CHAT_AND_TEXT.items()}
    data = loaded(sources=sources, mixture={"name": "shares", "shares": {"chat": 1, "text": 1}}, batch={"rows": 8})
    steps = list(islice(data.loader(), 10))
    assert all(Counter(sources_of(step)) == {"chat": 4, "text": 4} for step in steps)
    given_ = Tally.of(steps[-1].cursor["given"]).sources
    assert given_["chat"].trained_tokens < 0.9 * given_["chat"].tokens  # the questions are masked
    assert given_["text"].trained_tokens == given_["text"].tokens - given_["text"].rows  # all but each first token


CHAT_AND_TEXT = {"chat": "alpaca_en_9k.jsonl.zst", "text": "chinese_pt_10k.txt.zst"}


def test_each_step_tells_shares_and_epochs_where_there_are_several_sources():
    assert next(iter(loader(fake_rows([4] * 10), Concat()))).facts == {}
    step = next(iter(loader(fake_rows([4] * 10, [4] * 40), Interleave(), Batch(rows=8))))
    assert step.facts == {"share/a": 0.5, "share/b": 0.5, "epochs/a": 0.4, "epochs/b": 0.1}

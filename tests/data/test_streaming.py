"""Streams: the same steps for any number of workers, ranks and restarts, and every row once an epoch."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import zstandard

from danlu.core.errors import DataError, UserError
from danlu.data.config import DataConfig
from danlu.data.pipeline import open_data
from danlu.data.stream.data import StreamedData
from danlu.data.stream.feed import Feed
from danlu.data.stream.loader import Stream
from danlu.runs.train_run import TrainRun
from danlu.samples import Conversation, Document
from tests.data.fake_sets import sources_of


def shards(folder: Path, name: str, count: int, rows: int) -> Path:
    """A folder of packed files of short texts, each of which tells its number."""
    (folder / name).mkdir()
    for shard in range(count):
        lines = [json.dumps({"text": f"{name} {shard * rows + row} " + "word " * (row % 5)}) for row in range(rows)]
        packed = zstandard.compress("".join(line + "\n" for line in lines).encode())
        (folder / name / f"part-{shard + 1}.jsonl.zst").write_bytes(packed)
    return folder / name


@pytest.fixture
def corpus(tmp_path) -> Path:
    return shards(tmp_path, "news", 6, 20)


@pytest.fixture
def opened(tmp_path, tokenizer):
    def open_stream(sources, *, seed: int = 7, **more) -> StreamedData:
        settings = {"streaming": True, "batch": {"rows": 6}, "pack_tokens": 64, "workers": 0}
        sources = sources if isinstance(sources, dict) else str(sources)
        config = DataConfig(**{"sources": sources, "cache": tmp_path / "cache", **settings, **more})
        data = open_data(config, tokenizer, (Conversation, Document), seed=seed)
        assert isinstance(data, StreamedData)
        return data

    return open_stream


def told(stream: Stream, steps: int) -> list[tuple[list[list[tuple[str, int]]], dict]]:
    """Each step: the rows of its packs, and its cursor."""
    return [
        ([[(part.where, part.row) for part in pack.segments] for pack in step.packs], step.cursor)
        for step in islice(stream, steps)
    ]


def rows(stream: Stream, steps: int) -> list[str]:
    return [part.where for step in islice(stream, steps) for pack in step.packs for part in pack.segments]


BATCHES = [{"rows": 6}, {"tokens": 192}]
FAST = {"window": 24, "lanes": 3}


@pytest.mark.parametrize("batch", BATCHES)
def test_every_row_comes_once_before_any_comes_twice(opened, corpus, batch):
    seen, count = Counter(), 0
    for step in opened(corpus, batch=batch, streaming={"window": 30, "lanes": 1}).loader():
        seen.update(part.where for pack in step.packs for part in pack.segments)
        count = sum(seen.values())
        assert max(seen.values()) <= -(-count // 120)
        if count >= 240:
            break
    assert len(seen) == 120


def test_lanes_deal_files_out_and_each_gives_all_of_its_rows(opened, corpus):
    seen = Counter(rows(opened(corpus, streaming={"window": 30, "lanes": 3}).loader(), 20))
    assert len(seen) == 120
    assert set(seen.values()) == {1}


def test_rows_of_a_file_are_shuffled_and_each_epoch_has_an_order_of_its_own(opened, corpus):
    first = rows(opened(corpus, streaming={"window": 30, "lanes": 1}).loader(), 40)
    assert sorted(first[:120]) == sorted(first[120:240])
    assert first[:120] != first[120:240]
    other = rows(opened(corpus, streaming={"window": 30, "lanes": 1}, seed=8).loader(), 20)
    assert sorted(other) == sorted(first[:120])
    assert other != first[:120]


def test_a_stream_that_is_not_shuffled_has_the_order_of_the_files(opened, corpus):
    stream = opened(corpus, shuffle=False, streaming={"lanes": 1}, pack_tokens=4096).loader()
    found = rows(stream, 20)
    want = [f"{corpus}/part-{shard}.jsonl.zst:{row}" for shard in range(1, 7) for row in range(1, 21)]
    assert found == want


@pytest.mark.parametrize("batch", BATCHES)
def test_a_restored_stream_goes_on_as_if_it_had_never_stopped(opened, corpus, batch, tmp_path):
    other = shards(tmp_path, "wiki", 2, 9)
    sources = {"news": str(corpus), "wiki": str(other)}
    mixture = {"name": "shares", "shares": [2, 1], "by": "tokens"}

    def fresh() -> Stream:
        return opened(sources, batch=batch, streaming=FAST, mixture=mixture).loader()

    steps = told(fresh(), 40)
    for stop in (0, 1, 7, 22, 38):
        resumed = fresh()
        resumed.restore(json.loads(json.dumps(steps[stop][1])))
        assert told(resumed, 39 - stop) == steps[stop + 1 :]


def test_steps_are_the_same_for_any_number_of_workers(opened, corpus):
    one, two = (opened(corpus, streaming=FAST, workers=workers).loader() for workers in (0, 2))
    assert told(one, 15) == told(two, 15)


@pytest.mark.parametrize("ranks", [2, 3])
def test_each_rank_reads_its_own_packs_of_the_same_steps(opened, corpus, ranks, monkeypatch):
    settings = {"batch": {"tokens": 384}, "streaming": {"window": 24, "lanes": 6}}
    alone = told(opened(corpus, **settings).loader(), 12)
    streams = [opened(corpus, **settings).loader(rank=rank, ranks=ranks) for rank in range(ranks)]
    read = []
    fed = Feed._jobs

    def noted(feed):
        for job in fed(feed):
            read.extend((job.track, place) for place, _ in job.rows)
            yield job

    monkeypatch.setattr(Feed, "_jobs", noted)
    lanes = []
    for stream in streams:
        list(islice(stream, 12))
        lanes.append({track for track, _ in read})
        read.clear()
    assert [len(some) for some in lanes] == [6 // ranks] * ranks  # equal parts
    assert len(set.union(*lanes)) == 6
    for rank in range(ranks):
        stream = opened(corpus, **settings).loader(rank=rank, ranks=ranks)
        for step, (packs, _) in zip(islice(stream, 12), alone, strict=True):
            mine = [[(part.where, part.row) for part in pack.segments] for pack in step.packs[rank::ranks]]
            assert mine == packs[rank::ranks]


def test_ranks_go_on_together_with_another_number_of_ranks(opened, corpus):
    settings = {"batch": {"tokens": 384}, "streaming": {"window": 24, "lanes": 6}}
    alone = told(opened(corpus, **settings).loader(), 12)
    cursors = []
    for rank in range(2):
        steps = list(islice(opened(corpus, **settings).loader(rank=rank, ranks=2), 5))
        cursors.append(json.loads(json.dumps(steps[-1].cursor)))
    assert None in cursors[0]["lanes"]
    resumed = opened(corpus, **settings).loader()
    resumed.restore(resumed.joined(cursors))
    assert [packs for packs, _ in told(resumed, 7)] == [packs for packs, _ in alone[5:]]
    with pytest.raises(DataError, match="does not say where lanes"):
        resumed.restore(cursors[0])


def test_shares_hold_in_a_stream_and_a_small_source_is_dealt_by_rows(opened, corpus, tmp_path):
    wiki = tmp_path / "wiki.jsonl"
    wiki.write_text("".join(json.dumps({"text": f"wiki {n} and more"}) + "\n" for n in range(12)))
    data = opened(
        {"news": str(corpus), "wiki": str(wiki)}, mixture={"name": "shares", "shares": {"news": 3, "wiki": 1}},
        batch={"rows": 12}, streaming={"window": 24, "lanes": 3},
    )  # fmt: skip
    steps = list(islice(data.loader(), 8))
    assert all(Counter(sources_of(step)) == {"news": 9, "wiki": 3} for step in steps)
    assert steps[-1].facts["epochs/wiki"] == pytest.approx(2)
    counts = Counter(
        part.row for step in steps for pack in step.packs for part in pack.segments if part.source == "wiki"
    )
    assert counts == dict.fromkeys(range(1, 13), 2)


def test_a_source_at_its_cap_ends_and_with_the_last_the_stream(opened, corpus, tmp_path):
    other = shards(tmp_path, "wiki", 1, 10)
    mixture = {"name": "shares", "shares": [1, 1], "max_epochs": {"wiki": 2, "news": 1}}
    data = opened({"news": str(corpus), "wiki": str(other)}, mixture=mixture, streaming={"lanes": 1})
    seen = Counter(name for step in data.loader() for name in sources_of(step))
    assert seen == {"news": 120, "wiki": 20}


def test_all_rows_of_several_sources_come_by_what_each_holds(opened, corpus, tmp_path):
    other = shards(tmp_path, "wiki", 3, 20)
    stream = opened({"news": str(corpus), "wiki": str(other)}, streaming={"lanes": 1}, batch={"rows": 9}).loader()
    assert Counter(name for step in islice(stream, 20) for name in sources_of(step)) == {"news": 120, "wiki": 60}


def test_first_rows_are_held_out_and_never_trained_on(opened, corpus):
    data = opened(corpus, held_out=25, streaming={"window": 30, "lanes": 1})
    held = [part.where for pack in data.held_out["part-1"] for part in pack.segments]
    trained = set(rows(data.loader(), 60))
    assert len(held) == 25
    assert not trained & set(held)
    assert len(trained) == 95
    with pytest.raises(DataError, match=r"data\.held_out: 0\.1: with data\.streaming it is a number of first rows"):
        opened(corpus, held_out=0.1)


def test_sources_may_be_only_for_evaluation_of_a_stream(opened, corpus, tmp_path):
    exam = shards(tmp_path, "exam", 1, 5)
    data = opened(corpus, held_out_sources=str(exam))
    assert sum(len(pack.segments) for pack in data.held_out["part-1-2"]) == 5
    assert data.report.held_out == {"part-1-2": 5}


def test_a_stream_needs_engine_steps(opened, corpus):
    run = {"model": {"path": "builtin:tiny-llama"}, "objective": {"name": "pretrain"}}
    with pytest.raises(ValueError, match=r"Please specify engine\.steps"):
        TrainRun.model_validate(run | {"data": {"sources": str(corpus), "streaming": True}})
    with pytest.raises(UserError, match=r"Please specify engine\.steps"):
        opened(corpus).loader(epochs=1)
    assert DataConfig(sources=[], streaming=False).streaming is None


def test_a_cursor_of_other_files_is_refused(opened, corpus):
    cursor = next(iter(opened(corpus).loader())).cursor
    shard = corpus / "part-3.jsonl.zst"
    shard.write_bytes(zstandard.compress(b'{"text": "another"}\n'))
    with pytest.raises(DataError, match="the data has changed since the run was saved"):
        opened(corpus).loader().restore(cursor)


def test_what_rows_are_read_as_is_part_of_a_streams_key(opened, corpus):
    plain = {"path": str(corpus), "format": "text"}
    assert opened(plain).keys != opened(plain | {"columns": {"content": "text"}}).keys


def test_a_streams_rows_are_cut_by_the_seed_of_the_run(opened, corpus):
    data = opened(corpus, too_long="sample")
    works = data.loader().works
    assert {work.seed for work in works.values()} == {data.seed}
    assert data.seed != 0


def test_max_rows_of_a_streamed_source_is_refused(opened, corpus):
    with pytest.raises(DataError, match="max_rows does not go with data.streaming"):
        opened({"news": {"path": str(corpus), "max_rows": 3}})


def test_rows_that_are_dropped_are_counted_and_a_source_of_none_is_an_error(opened, tmp_path):
    (tmp_path / "a").mkdir()
    path = tmp_path / "a/some.jsonl"
    path.write_text("".join(json.dumps({"text": "" if n % 2 else f"text {n}"}) + "\n" for n in range(20)))
    data = opened(path)
    assert len(set(rows(data.loader(), 2))) == 10
    assert data.report.sources["some"].rows_dropped >= 10
    path.write_text(json.dumps({"text": ""}) + "\n")
    with pytest.raises(DataError, match="no row is left to train on"):
        next(iter(opened(path).loader()))


def test_no_more_rows_are_read_than_the_windows_need(opened, tmp_path):
    big = shards(tmp_path, "big", 40, 50)
    data = opened(big, streaming={"window": 80, "lanes": 4})
    stream, read = data.loader(), 0
    for step in islice(stream, 200):
        read += sum(len(pack.segments) for pack in step.packs)
        ahead = sum(track.ahead for lane in stream.lanes for track in lane.tracks)
        assert ahead <= 4 * 2 * 20  # what is ready or on its way: a window and a chunk for each lane
    assert read == 1200


def test_the_depth_of_prefetching_is_a_setting(opened, corpus):
    stream = opened(corpus, streaming={"prefetch": 9}, workers=2).loader()
    assert (stream.prefetch, stream.workers) == (9, 2)
    assert len(list(islice(stream, 2))) == 2

"""Answers that are compared: one row of several segments, which stay together from the file to the step."""

import numpy as np
import pytest

from danlu.core.errors import DataError
from danlu.data import prepared
from danlu.data.config import DataConfig
from danlu.data.packing import Pack, refit
from danlu.data.pipeline import Data, load_data, open_data, token_maker
from danlu.data.prepared import share
from danlu.data.recognise import format_of
from danlu.samples import Conversation, Message, PreferencePair, Rating
from danlu.tokens.encode import Encoder
from danlu.tokens.templates.chatml import ChatML

LEARNS = (PreferencePair, Rating)


def pairs(count: int) -> list[dict]:
    words = ["one", "two", "three", "four", "five", "six"]
    return [
        {"prompt": f"count {n} {'more ' * (n % 3)}", "chosen": " ".join(words[: 1 + n % 6]), "rejected": f"no {n}"}
        for n in range(count)
    ]


@pytest.fixture
def compared(tmp_path, tokenizer):
    def load(path, **settings) -> Data:
        given = {"cache": tmp_path / "cache", "workers": 1, "template": "chatml", "sources": str(path), **settings}
        return load_data(DataConfig(**given), tokenizer, LEARNS, seed=7)

    return load


def texts(pack: Pack, tokenizer) -> list[tuple[str, str]]:
    """Each segment as (prompt, what is trained)."""
    found, start = [], 0
    for length in pack.lengths:
        ids = pack.input_ids[start : start + length]
        targets = pack.targets[start : start + length]
        first = int((targets >= 0).nonzero()[0]) + 1
        found.append((tokenizer.decode(ids[:first]), tokenizer.decode(targets[targets >= 0])))
        start += length
    return found


def test_a_pair_is_two_segments_that_share_their_prompts_ids_the_chosen_first(compared, rows_file, tokenizer):
    [pack] = compared(rows_file([{"prompt": "q", "chosen": "good", "rejected": "bad bad"}])).train.packs(1000)
    assert texts(pack, tokenizer) == [
        ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nq<|im_end|>\n"
         "<|im_start|>assistant\n", f"{said}<|im_end|>")
        for said in ("good", "bad bad")
    ]  # fmt: skip
    assert [segment.rank for segment in pack.segments] == [0, 1]
    assert pack.rows == [range(0, 2)]
    first, second = pack.input_ids.split(pack.lengths)
    served = Encoder(tokenizer, ChatML()).prompt([Message("user", "q")], {})
    assert first[: len(served)].tolist() == second[: len(served)].tolist() == served
    assert int((pack.targets >= 0).sum()) == len(tokenizer.encode("good<|im_end|>bad bad<|im_end|>"))


def test_a_row_encodes_as_its_answers_would_alone(compared, rows_file, tokenizer):
    data = compared(rows_file(pairs(30)))
    [one] = data.sets
    for number, row in enumerate(pairs(30)):
        answers = [
            Conversation([Message("user", row["prompt"]), Message("assistant", row[key], train=True)])
            for key in ("chosen", "rejected")
        ]
        expected = Encoder(tokenizer, ChatML()).samples(answers)
        found = one.answers(number)
        assert [ids.tolist() for ids, _, _ in found] == [each.ids.tolist() for each in expected]
        assert [trained.tolist() for _, trained, _ in found] == [each.trained.tolist() for each in expected]
        assert one.lengths[number] == sum(len(each.ids) for each in expected)


@pytest.mark.parametrize("batch", [{"rows": 5}, {"tokens": 300}])
@pytest.mark.parametrize("streaming", [None, True])
def test_every_pair_comes_whole_in_some_pack_of_each_epoch(tmp_path, rows_file, tokenizer, batch, streaming):
    config = DataConfig(
        sources=str(rows_file(pairs(40))), cache=tmp_path / "cache", workers=1, batch=batch, pack_tokens=150,
        streaming=streaming,
    )  # fmt: skip
    loader = open_data(config, tokenizer, LEARNS, seed=3).loader(**({} if streaming else {"epochs": 1}))
    seen: list[int] = []
    for step in loader:
        for pack in [*step.packs, *refit(step.packs, 90)]:
            assert all([pack.segments[n].rank for n in row] == [0, 1] for row in pack.rows)
            assert all(len({pack.segments[n].row for n in row}) == 1 for row in pack.rows)
        assert sum(len(pack.rows) for pack in refit(step.packs, 90)) == sum(len(pack.rows) for pack in step.packs)
        seen += [pack.segments[row.start].row for pack in step.packs for row in pack.rows]
        if len(seen) >= 40:
            break
    assert len(set(seen[:40])) == 40
    assert loader.realised(step.cursor)["rows"]["rows"] == len(seen)


def test_ratings_say_whether_an_answer_is_good(compared, rows_file):
    rows = [{"prompt": "q", "completion": f"a {n}", "label": n % 3 == 0} for n in range(7)]
    [pack] = compared(rows_file(rows)).train.packs(1000)
    assert [segment.facts["good"] for segment in pack.segments] == [row["label"] for row in rows]
    assert len(pack.rows) == 7


def test_a_margin_comes_along_with_the_better_answer(compared, rows_file):
    rows = [
        {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 1.5},
        {"prompt": "p", "chosen": "a", "rejected": "b"},
    ]
    [pack] = compared(rows_file(rows)).train.packs(1000)
    assert [segment.facts for segment in pack.segments] == [{"margin": 1.5}, {}, {"margin": 0.0}, {}]


def test_a_list_of_four_trains_on_the_first_two_or_on_all(compared, rows_file):
    path = rows_file([{"instruction": "q", "output": ["a", "b", "c", "d"]}, {"instruction": "p", "output": ["a"]}])
    all_of_them = {"path": str(path), "format": {"name": "alpaca_ranked", "answers": "all"}}
    two, every = compared(path), compared(path, sources=all_of_them)
    assert [len(pack.segments) for pack in two.train.packs(1000)] == [2]
    [pack] = every.train.packs(1000)
    assert [segment.rank for segment in pack.segments] == [0, 1, 2, 3]
    assert two.report.sources["rows"].dropped["fewer than two answers"].count == 1


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "q", "chosen": "same", "rejected": "same"}, "both replies are the same"),
        ({"prompt": "q", "chosen": "good", "rejected": ""}, "'rejected' is empty"),
        ({"prompt": "q", "chosen": [{"role": "assistant", "content": " "}], "rejected": "bad"}, "an empty reply"),
        ({"prompt": "q", "chosen": "good", "rejected": "bad", "margin": "much"}, "'margin' is not a number"),
        ({"prompt": "", "chosen": "good", "rejected": "bad"}, "'prompt' is empty"),
    ],
)
def test_rows_without_two_answers_are_dropped_and_counted(compared, rows_file, row, why):
    report = compared(rows_file([*pairs(2), row])).report.sources["rows"]
    assert (report.rows_in, report.rows_out) == (3, 2)
    assert report.dropped[why].places[0].endswith("rows.jsonl:3")


def test_too_long_answers_are_cut_alike_from_the_left_and_each_alone_from_the_right(compared, rows_file):
    path = rows_file([{"prompt": "p " * 20, "chosen": "good " * 8, "rejected": "bad"}])
    whole = compared(path).sets[0].answers(0)
    longest = len(whole[0][0])
    left = compared(path, max_length=longest - 3, too_long="truncate_left").sets[0].answers(0)
    assert [ids.tolist() for ids, _, _ in left] == [ids[3:].tolist() for ids, _, _ in whole]
    right = compared(path, max_length=longest - 3).sets[0].answers(0)
    assert right[0][0].tolist() == whole[0][0][:-3].tolist()
    assert right[1][0].tolist() == whole[1][0].tolist()
    assert compared(path, max_length=longest - 3).report.sources["rows"].truncated.count == 1


def test_answers_that_a_cut_has_made_the_same_are_dropped(compared, rows_file):
    path = rows_file([{"prompt": "p " * 40, "chosen": "a b", "rejected": "a c"}, *pairs(1)])
    most = max(len(ids) for ids, _, _ in compared(path).sets[0].answers(1))
    data = compared(path, max_length=most)
    assert data.report.sources["rows"].dropped["nothing different is left after truncation"].count == 1
    gone = compared(path, max_length=most, too_long="drop").report.sources["rows"]
    assert gone.dropped[f"longer than {most} tokens"].count == 1
    with pytest.raises(DataError, match=f"more than max_length {most}"):
        compared(path, max_length=most, too_long="error")


@pytest.mark.parametrize("settings", [{"too_long": "split"}, {"too_long": "sample"}, {"documents": "together"}])
def test_what_would_tear_answers_apart_is_refused(compared, rows_file, settings):
    with pytest.raises(DataError, match=f"data.{next(iter(settings))}"):
        compared(rows_file(pairs(3)), **settings)


def test_parts_made_apart_join_to_the_same_files(tmp_path, rows_file, tokenizer, monkeypatch):
    monkeypatch.setattr(prepared, "ROWS_AT_ONCE", 4)
    (tmp_path / "set").mkdir()
    for name in "abc":
        rows_file(pairs(9), f"set/{name}.jsonl")
    path = str(tmp_path / "set")

    def files(cache: str, apart: bool) -> dict[str, bytes]:
        config = DataConfig(sources=path, cache=tmp_path / cache, workers=1)
        maker, [name] = token_maker(config, tokenizer, LEARNS, 0)
        [source] = config.sources
        if apart:
            format = format_of(source, LEARNS)
            for rank in range(2):
                maker.build_part(source, format, maker.key(source, format), share(3, rank, 2))
        folder = maker.tokens(source, name).folder
        return {file.name: file.read_bytes() for file in folder.glob("*.bin")}

    whole, joined = files("whole", False), files("joined", True)
    assert whole == joined
    assert len(np.frombuffer(whole["cuts.bin"], np.int32)) == 27
    assert len(np.frombuffer(whole["cut_offsets.bin"], np.int64)) == 28

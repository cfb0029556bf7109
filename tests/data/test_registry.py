"""Data sets by name: what a registry says is what is read, and what is not here is said with what to type."""

import csv
import hashlib
import json
import logging
import shutil
import time
from pathlib import Path

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.core.errors import DataError, SetupError
from danlu.data import dataset_info
from danlu.data.catalogue import catalogue
from danlu.data.config import DataConfig
from danlu.data.files.find import find_files
from danlu.data.formats import formats
from danlu.data.hub.address import HubSet, hub_set
from danlu.data.hub.choice import chosen
from danlu.data.recognise import format_of
from danlu.data.registry import every_known
from danlu.data.sources import Source, listed, renamed
from danlu.samples import Conversation, Document, Message, PreferencePair, Rating

ROWS = [{"instruction": "q", "input": "i", "output": "a"}, {"instruction": "问", "input": "", "output": "答"}]
NAMES_IN_WORDS = """
alpaca_en alpaca_zh alpaca_gpt4_en alpaca_gpt4_zh self_cognition oaast_sft oaast_sft_zh sharegpt_zh lima example guanaco
belle_0.5m belle_1m belle_2m belle_dialog belle_math belle_multiturn firefly codealpaca alpaca_cot webqa ultra_chat
novel_tokens512_50k comparison_gpt4_en comparison_gpt4_zh hh_rlhf_en oaast_rm oaast_rm_zh wiki_demo refinedweb starcoder
wikipedia_en wikipedia_zh
"""
NAMES = NAMES_IN_WORDS.split()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder without a registry, no hub, and every warning said anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    dataset_info.tell.cache_clear()


@pytest.fixture
def registry(tmp_path):
    """`registry(entries, files)`: a folder with a dataset_info.json and files of rows."""

    def write(entries: dict, **files) -> Path:
        folder = tmp_path / "sets"
        folder.mkdir(exist_ok=True)
        (folder / "dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
        for name, rows in files.items():
            path = folder / name.replace("__", "/")
            path = path.with_name(path.name.replace("_json", ".json"))
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        return folder

    return write


def named(name: str, folder: Path, **more) -> Source:
    return Source(dataset=name, registry=str(folder), **more)


def rows_of(source: Source) -> list:
    return [row for _, row in source.rows()]


def read(source: Source, learns_from=(Conversation,)) -> list:
    format = format_of(source, learns_from)
    return [format.read(row) for row in rows_of(source)]


def test_a_registered_file_is_read_under_its_name(registry):
    folder = registry({"mine": {"file_name": "a.json"}}, a_json=ROWS)
    source = named("mine", folder)
    assert (source.label, source.files) == ("mine", [folder / "a.json"])
    assert rows_of(source) == ROWS


def test_an_unknown_name_is_an_error_with_the_nearest(registry):
    folder = registry({"alpaca_mine": {"file_name": "a.json"}})
    with pytest.raises(
        ValueError, match=r"Undefined dataset alpaca_mime in .*dataset_info.json; did you mean 'alpaca_mine'"
    ):
        named("alpaca_mime", folder)
    with pytest.raises(ValueError, match=r"Undefined dataset nothing in dataset_info.json; known: "):
        Source(dataset="nothing")
    with pytest.raises(ValueError, match=r"no such registry; give the folder"):
        named("a", folder / "nowhere")


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ({"hf_hub_url": "o/n", "script_url": "s", "file_name": "a.json"}, "hf://datasets/o/n"),
        (
            {"hf_hub_url": "o/n", "subset": "en", "split": "train_sft", "folder": "x"},
            "hf://datasets/o/n?subset=en&split=train_sft&folder=x",
        ),
        ({"script_url": "s", "file_name": "a.json"}, ["sets/s/b.json"]),
        ({"cloud_file_name": "s3://bucket/a.jsonl", "file_name": "a.json"}, "s3://bucket/a.jsonl"),
        ({"file_name": "a.json"}, "sets/a.json"),
        ({"file_name": "/elsewhere/a.json"}, "/elsewhere/a.json"),
    ],
)
def test_the_hub_comes_before_a_script_before_a_file(entry, path, registry, monkeypatch):
    registry({"x": entry}, a_json=ROWS, s__b_json=ROWS)
    assert named("x", Path("sets")).path == path


def test_an_entry_that_says_not_where_is_an_error(registry):
    folder = registry({"x": {"columns": {}}, "y": {"ms_hub_url": "o/n"}})
    with pytest.raises(ValueError, match="x: says not where its rows are; give one of hf_hub_url"):
        named("x", folder)
    with pytest.raises(ValueError, match="y: ms_hub_url is a hub that danlu does not read; fetch its files"):
        named("y", folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"x": []}', '{"x": {"file_name": "a.json", "columns": {"prompt": 3}}}'])
def test_a_broken_registry_names_itself(text, registry):
    folder = registry({})
    (folder / "dataset_info.json").write_text(text)
    with pytest.raises(ValueError, match=r"sets/dataset_info\.json: "):
        named("x", folder)


def test_columns_that_are_not_named_are_none(registry):
    """A registry that names any column names all of them; an empty name means there is none."""
    row = {"frage": "q", "input": "not asked", "output": "not this", "antwort": "a", "history": [["x", "y"]]}
    columns = {"prompt": "frage", "query": "", "response": "antwort"}
    source = named("x", registry({"x": {"file_name": "a.json", "columns": columns}}, a_json=[row]))
    assert read(source)[0].messages == [Message("user", "q"), Message("assistant", "a", train=True)]


def test_without_columns_they_have_their_usual_names(registry):
    source = named("x", registry({"x": {"file_name": "a.json"}}, a_json=ROWS))
    assert source.columns == {}
    assert read(source)[0].messages[0] == Message("user", "q\ni")


def test_a_column_may_have_the_name_of_another(registry):
    """Rows of {input, target}, as firefly has them: their input is the instruction, and nothing is asked twice."""
    columns = {"prompt": "input", "query": "", "response": "target", "history": ""}
    entry = {"file_name": "a.json", "columns": columns}
    source = named("x", registry({"x": entry}, a_json=[{"kind": "k", "input": "q", "target": "a"}]))
    assert rows_of(source) == [{"kind": "k", "instruction": "q", "output": "a"}]


def test_a_lone_prompt_column_is_plain_text(registry):
    entry = {"file_name": "a.json", "columns": {"prompt": "content", "query": "", "response": "", "history": ""}}
    source = named("x", registry({"x": entry}, a_json=[{"content": "words", "url": "u"}]))
    assert read(source, (Document,)) == [Document("words")]


def test_history_is_read_where_its_column_is_named(registry):
    columns = {"prompt": "instruction", "query": "input", "response": "output", "history": "history"}
    rows = [ROWS[0] | {"history": [["q0", "a0"]]}]
    source = named("x", registry({"x": {"file_name": "a.json", "columns": columns}}, a_json=rows))
    assert [message.content for message in read(source)[0].messages] == ["q0", "a0", "q\ni", "a"]


def test_chats_are_found_under_their_column(registry):
    row = {"chat": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "not asked for"}
    entry = {"file_name": "a.json", "formatting": "sharegpt", "columns": {"messages": "chat"}}
    source = named("x", registry({"x": entry}, a_json=[row]))
    assert read(source)[0].messages == [Message("user", "q"), Message("assistant", "a", train=True)]


def test_tags_say_what_words_mean(registry):
    row = {"talk": [{"who": "Pupil", "says": "q"}, {"who": "Sage", "says": "a"}]}
    tags = {"role_tag": "who", "content_tag": "says", "user_tag": "Pupil", "assistant_tag": "Sage"}
    entry = {"file_name": "a.json", "formatting": "sharegpt", "columns": {"messages": "talk"}, "tags": tags}
    source = named("x", registry({"x": entry}, a_json=[row]))
    assert read(source)[0].messages == [Message("user", "q"), Message("assistant", "a", train=True)]


def test_tags_that_are_not_given_have_their_usual_words(registry):
    row = {"conversations": [{"from": "human", "value": "q"}, {"from": "Sage", "value": "a"}]}
    entry = {"file_name": "a.json", "formatting": "sharegpt", "tags": {"assistant_tag": "Sage"}}
    source = named("x", registry({"x": entry}, a_json=[row]))
    assert read(source)[0].messages == [Message("user", "q"), Message("assistant", "a", train=True)]


PAIR = {"chosen": {"from": "gpt", "value": "good"}, "rejected": {"from": "gpt", "value": "bad"}}
RANKED = [
    ({}, {"instruction": "q", "input": "", "output": ["good", "bad"]}),
    ({"columns": {"prompt": "ask", "response": "out"}}, {"ask": "q", "out": ["good", "bad"]}),
    (
        {"columns": {"prompt": "ask", "query": "more", "chosen": "yes", "rejected": "no"}},
        {"ask": "q", "more": "", "yes": "good", "no": "bad", "output": "not this"},
    ),
    (
        {"formatting": "sharegpt", "columns": {"messages": "chat", "chosen": "chosen", "rejected": "rejected"}},
        {"chat": [{"from": "human", "value": "q"}]} | PAIR,
    ),
]


@pytest.mark.parametrize(("entry", "row"), RANKED)
def test_ranked_rows_are_pairs(entry, row, registry):
    source = named("x", registry({"x": {"file_name": "a.json", "ranking": True} | entry}, a_json=[row]))
    [pair] = read(source, (PreferencePair,))
    assert [message.content for message in [*pair.prompt, *pair.chosen, *pair.rejected]] == ["q", "good", "bad"]


RATED = [
    ({"columns": {"prompt": "ask", "response": "out", "kto_tag": "ok"}}, {"ask": "q", "out": "a", "ok": True}),
    (
        {"formatting": "sharegpt", "columns": {"messages": "completion", "kto_tag": "ok"}},
        {"completion": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "ok": True},
    ),
]


@pytest.mark.parametrize(("entry", "row"), RATED)
def test_tagged_rows_are_ratings(entry, row, registry):
    source = named("x", registry({"x": {"file_name": "a.json"} | entry}, a_json=[row]))
    [rating] = read(source, (Rating,))
    assert ([message.content for message in rating.messages], rating.good) == (["q", "a"], True)


def test_a_misspelt_key_is_said_once(registry, caplog):
    folder = registry({"x": {"file_nam": "a.json", "file_name": "a.json", "columns": {"promt": "q"}}}, a_json=ROWS)
    for _ in range(2):
        named("x", folder)
    assert [record.message.partition("x: ")[2] for record in caplog.records] == [
        "'file_nam' has no effect; did you mean 'file_name'?",
        "columns.promt has no effect; did you mean 'prompt'?",
    ]
    with pytest.raises(ValueError, match="unknown formatting 'sharegbt'.*did you mean 'sharegpt'"):
        named("y", registry({"y": {"file_name": "a.json", "formatting": "sharegbt", "columns": {"prompt": "q"}}}))


def test_num_samples_are_so_many_rows(registry):
    assert rows_of(named("x", registry({"x": {"file_name": "a.json", "num_samples": 1}}, a_json=ROWS))) == ROWS[:1]


def test_a_changed_file_is_said_by_name(registry, caplog):
    folder = registry({}, a_json=ROWS)
    sha1 = hashlib.sha1((folder / "a.json").read_bytes()).hexdigest()
    folder = registry({"x": {"file_name": "a.json", "file_sha1": sha1}})
    assert rows_of(named("x", folder)) == ROWS
    assert caplog.records == []
    (folder / "a.json").write_text(json.dumps(ROWS).replace("q", "r"))
    assert len(rows_of(named("x", folder))) == 2
    assert "sets/a.json: its SHA-1 is" in caplog.text
    with pytest.raises(DataError, match=rf"a\.json: its SHA-1 is \w+, and {sha1} is registered.*fetch it again"):
        _ = named("x", folder, strict=True).files


def test_one_hash_cannot_be_that_of_several_files(registry, caplog):
    folder = registry({"x": {"file_name": "many", "file_sha1": "0" * 40}}, many__a_json=ROWS, many__b_json=ROWS)
    assert len(rows_of(named("x", folder))) == 4
    assert "a.json and 1 more: one SHA-1 is registered" in caplog.text


def test_a_script_is_never_run_and_its_rows_are_read(registry, caplog, tmp_path):
    rows = [{"instruction": "q2", "input": "", "output": "a2", "history": [["q0", "a0"], ["q1", "a1"]]}] * 2
    columns = {"prompt": "instruction", "query": "input", "response": "output", "history": "history"}
    entries = {name: {"script_url": where, "columns": columns} for name, where in [("x", "s"), ("y", "s/s.py")]}
    folder = registry(entries, s__examples_json=rows)
    (folder / "s/s.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for name in ("x", "y"):
        assert [len(sample.messages) for sample in read(named(name, folder))] == [6, 6]
    assert not (tmp_path / "ran").exists()
    assert [record.message.count("runs no script") for record in caplog.records] == [1, 1]


def test_a_script_without_rows_says_so(registry):
    folder = registry({"x": {"script_url": "s"}, "y": {"script_url": "none"}}, s__examples_json=ROWS)
    (folder / "s/examples.json").rename(folder / "s/s.py")
    with pytest.raises(ValueError, match="holds a script, which danlu does not run, and no file of rows"):
        named("x", folder)
    with pytest.raises(ValueError, match="no folder .*none; put the files of rows there"):
        named("y", folder)


def test_twins_of_every_kind_give_the_same_rows(registry):
    folder = registry({name: {"file_name": f"a.{name}"} for name in ("csv", "json", "jsonl")}, a_json=ROWS)
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with open(folder / "a.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(ROWS[0]))
        table.writeheader()
        table.writerows(ROWS)
    assert rows_of(named("csv", folder)) == rows_of(named("json", folder)) == rows_of(named("jsonl", folder)) == ROWS


def test_text_and_its_twin_give_the_same_rows(registry):
    folder = registry({name: {"file_name": f"a.{name}"} for name in ("txt", "json")}, a_json=[{"text": "一"}])
    (folder / "a.txt").write_text("一\n", encoding="utf-8")
    assert rows_of(named("txt", folder)) == rows_of(named("json", folder)) == [{"text": "一"}]


def test_a_folder_of_files_is_one_set_and_a_mixed_one_is_refused(registry):
    folder = registry({"x": {"file_name": "many"}}, many__a_json=ROWS, many__deep__b_json=ROWS)
    assert rows_of(named("x", folder)) == ROWS * 2
    (folder / "many/c.txt").write_text("words")
    with pytest.raises(DataError, match="files of several kinds"):
        _ = named("x", folder).files


def test_a_folder_that_datasets_saved_gives_the_same_rows(tmp_path, caplog):
    whole = datasets.Dataset.from_list(ROWS)
    whole.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict({"train": whole, "test": whole.select([0])}).save_to_disk(tmp_path / "two")
    assert rows_of(Source(path=str(tmp_path / "one"))) == rows_of(Source(path=str(tmp_path / "two"))) == ROWS
    assert rows_of(Source(path=str(tmp_path / "two/test"))) == ROWS[:1]
    jsonl = tmp_path / "a.jsonl"
    jsonl.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert rows_of(Source(path=str(jsonl))) == ROWS


def test_twins_and_a_saved_folder_give_the_same_ids(tmp_path, loaded):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    made = [loaded(sources=str(tmp_path / name)).sets[0] for name in ("saved", "a.json", "a.jsonl")]
    assert made[0].ids.tolist() == made[1].ids.tolist() == made[2].ids.tolist()


def test_a_saved_folder_that_lost_a_file_or_its_end_says_so(tmp_path):
    datasets.Dataset.from_list(ROWS * 100).save_to_disk(tmp_path / "one")
    [file] = (tmp_path / "one").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:-3000])
    with pytest.raises(DataError, match=r"\.arrow: damaged or no Arrow data after row 0"):
        rows_of(Source(path=str(tmp_path / "one")))
    file.unlink()
    with pytest.raises(DataError, match=r"one: data-00000-of-00001\.arrow is missing"):
        find_files(str(tmp_path / "one"))
    shutil.copy(tmp_path / "one/dataset_info.json", tmp_path / "one/state.json")
    with pytest.raises(DataError, match=r"state\.json: not what `save_to_disk` writes"):
        find_files(str(tmp_path / "one"))


def test_every_shipped_name_resolves_or_says_what_to_type():
    assert len(NAMES) == 33
    for name in NAMES:
        source = Source(path=name)
        assert (source.dataset, source.label) == (name, name)
        try:
            assert source.files
        except (DataError, SetupError) as error:
            told = str(error)
            assert f"danlu data fetch {name}" in told or "if you have it, put it at" in told or "download them" in told


def test_our_own_sets_are_here():
    assert len(rows_of(Source(path="identity"))) > 20
    assert len(rows_of(Source(path="general"))) > 20
    assert [len(sample.messages) for sample in read(Source(path="example"))] == [6, 6]


def test_the_list_says_where_each_set_is(registry):
    folder = registry({"mine": {"file_name": "a.json"}, "gone": {"file_name": "b.json"}}, a_json=ROWS)
    known = {one.name: one for one in every_known(str(folder))}
    assert {*NAMES, "identity", "general", "mine", "gone"} <= known.keys()
    states = {name: known[name].state for name in ("mine", "gone", "identity", "alpaca_en", "belle_2m", "sharegpt_zh")}
    assert states == {
        "mine": "here", "gone": "missing", "identity": "here", "alpaca_en": "fetch", "belle_2m": "hub",
        "sharegpt_zh": "missing",
    }  # fmt: skip
    assert all(one.licence for one in known.values() if one.origin == "danlu")


def test_each_entry_of_the_catalogue_can_be_made():
    for name, entry in catalogue().items():
        assert bool(entry.result) == (entry.process != "none" or not (entry.hub or entry.shipped)), name
        assert len(entry.remotes) <= 1 or entry.process in ("merge", "sharegpt"), name
        assert entry.shape in formats, name
        assert entry.licence, name
        assert entry.page, name


def test_a_set_that_was_fetched_is_read_from_where_it_lies(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/alpaca_en.json").write_text(json.dumps(ROWS))
    assert rows_of(Source(path="alpaca_en")) == ROWS


def test_a_file_comes_before_a_name(tmp_path):
    (tmp_path / "identity").mkdir()
    (tmp_path / "identity/a.jsonl").write_text('{"text": "mine"}\n')
    assert rows_of(Source(path="identity")) == [{"text": "mine"}]


def test_the_registry_in_data_needs_no_mention(tmp_path, registry):
    registry({"mine": {"file_name": "a.json"}}, a_json=ROWS).rename(tmp_path / "data")
    config = DataConfig(sources=listed(["mine", {"dataset": "identity", "max_rows": 2}]))
    assert [len(rows_of(source)) for source in config.sources] == [2, 2]
    [renamed] = DataConfig(sources={"identity": {"max_rows": 3}}).sources
    assert (renamed.label, len(rows_of(renamed))) == ("identity", 3)


def test_the_run_as_it_is_kept_needs_no_registry(registry):
    folder = registry({"x": {"file_name": "a.json", "columns": {"prompt": "input", "response": "output"}}}, a_json=ROWS)
    source = named("x", folder)
    kept = source.model_dump(mode="json")
    (folder / "dataset_info.json").unlink()
    assert Source.model_validate(kept) == source


def test_a_source_of_nothing_says_what_it_needs():
    with pytest.raises(ValueError, match="a source needs a path, or a dataset"):
        Source(max_rows=3)


def test_a_misspelt_name_is_offered_the_nearest():
    with pytest.raises(DataError, match=r"alpaca_eng: no such file.*did you mean 'alpaca_en'"):
        _ = Source(path="alpaca_eng").files


def test_so_many_files_and_so_many_rows(tmp_path):
    for name in ("c/1.jsonl", "a/x/2.jsonl", "b/3.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text('{"text": "1"}\n{"text": "2"}\n')
    source = Source(path=str(tmp_path), max_files=2)
    assert [file.name for file in source.files] == ["2.jsonl", "3.jsonl"]
    assert len(rows_of(source)) == 4
    assert len(rows_of(Source(path=str(tmp_path), max_rows=5))) == 5
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        Source(path=str(tmp_path), max_rows=0)


def test_other_columns_are_other_tokens(loaded, rows_file):
    path = str(rows_file([{"a": "first", "b": "second", "output": "o"}]))
    ids = {key: loaded(sources={"path": path, "columns": {"instruction": key}}).sets[0].row(0)[0] for key in "ab"}
    assert ids["a"].tolist() != ids["b"].tolist()


keys = st.sampled_from("abcd")


@given(row=st.dictionaries(keys, st.integers()), columns=st.dictionaries(keys, keys | st.none()))
def test_a_renamed_row_has_what_was_asked_for_and_no_value_twice(row, columns):
    found = renamed(row, columns)
    for ours, theirs in columns.items():
        assert found.get(ours) == (row.get(theirs) if theirs else None)
        assert (ours in found) == (theirs in row)
    assert {key: found[key] for key in found if key not in columns} == {
        key: row[key] for key in row if key not in columns and key not in columns.values()
    }


def test_rows_that_are_no_mappings_stay_as_they_are():
    assert renamed(["a"], {"x": "y"}) == ["a"]


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("tatsu-lab/alpaca", HubSet("tatsu-lab/alpaca")),
        ("tatsu-lab/alpaca@v1", HubSet("tatsu-lab/alpaca", "v1")),
        ("hf://datasets/o/n@1a2b/x/y.jsonl", HubSet("o/n", "1a2b", "x/y.jsonl")),
        ("o/n?subset=en&split=test", HubSet("o/n", None, "", "en", "test")),
        ("hf://datasets/o/n?folder=x", HubSet("o/n", None, "x")),
        ("here/anything", None),
        ("o/file.jsonl", None),
        ("o/file.jsonl.zst", None),
        ("/o/n", None),
        ("./o/n", None),
        ("o/n/deeper", None),
        ("s3://o/n", None),
    ],
)
def test_what_is_an_id_of_the_hub_and_what_a_path(path, wanted, tmp_path):
    (tmp_path / "here").mkdir()
    assert hub_set(path) == wanted


def test_a_wrong_address_shows_a_right_one():
    with pytest.raises(DataError, match="is written hf://datasets/OWNER/NAME@REVISION"):
        hub_set("o/n?splitt=test")


FILES_IN_WORDS = """
README.md .gitattributes dataset.py dataset_infos.json
en/train-00000-of-00002.parquet en/train-00001-of-00002.parquet en/test-00000-of-00001.parquet zh/train.parquet
raw/train.jsonl ../outside.parquet
"""
FILES = FILES_IN_WORDS.split()


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (HubSet("o/n", subset="en"), ["en/train-00000-of-00002.parquet", "en/train-00001-of-00002.parquet"]),
        (HubSet("o/n", subset="en", split="test"), ["en/test-00000-of-00001.parquet"]),
        (HubSet("o/n", inside="raw"), ["raw/train.jsonl"]),
        (HubSet("o/n", inside="en/test-00000-of-00001.parquet"), ["en/test-00000-of-00001.parquet"]),
        (HubSet("o/n", inside="zh/*"), ["zh/train.parquet"]),
        (HubSet("o/n", split="dev"), []),
        (HubSet("o/n", inside="../outside.parquet"), []),
    ],
)
def test_which_files_of_a_data_set_are_read(wanted, names):
    assert chosen(FILES, wanted) == names


def test_without_splits_all_files_of_one_kind_are_read():
    assert chosen(["a.json", "b.json", "c.csv", "load.py"], HubSet("o/n")) == ["a.json", "b.json"]
    assert chosen(["train_0.jsonl", "train_1.jsonl", "test_0.jsonl"], HubSet("o/n")) == [
        "train_0.jsonl",
        "train_1.jsonl",
    ]


def test_without_a_network_the_answer_comes_at_once(caplog):
    caplog.set_level(logging.ERROR)
    before = time.monotonic()
    with pytest.raises(
        SetupError, match=r"tatsu-lab/alpaca: .* cannot be reached .* put them into a folder such as data"
    ):
        _ = Source(path="tatsu-lab/alpaca").files
    assert time.monotonic() - before < 5

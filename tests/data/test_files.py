"""Files are read as they are, and a broken one says where it is broken."""

import csv
import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from danlu.core.errors import DataError
from danlu.data.files.find import find_files, stem_of
from danlu.data.files.read import read_rows

ROWS = [{"a": "one", "b": "two"}, {"a": "三", "b": 'quoted "x", y'}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def rows_of(path) -> list:
    return [row for _, row in read_rows(path)]


def write_every_kind(folder) -> dict:
    made = {
        name: folder / name
        for name in ("a.jsonl", "b.json", "c.json", "d.csv", "e.parquet", "f.jsonl.zst", "g.jsonl.gz")
    }
    made["a.jsonl"].write_bytes(LINES)
    made["b.json"].write_text(json.dumps(ROWS, indent=1))
    made["c.json"].write_bytes(LINES)
    with open(made["d.csv"], "w", newline="") as file:
        table = csv.DictWriter(file, ["a", "b"])
        table.writeheader()
        table.writerows(ROWS)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), made["e.parquet"])
    made["f.jsonl.zst"].write_bytes(zstandard.compress(LINES[:20]) + zstandard.compress(LINES[20:]))
    made["g.jsonl.gz"].write_bytes(gzip.compress(LINES))
    return made


def test_every_kind_of_file_gives_the_same_rows(tmp_path):
    for path in write_every_kind(tmp_path).values():
        assert list(read_rows(path)) == [(1, ROWS[0]), (2, ROWS[1])], path


def test_a_byte_order_mark_is_dropped(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + LINES)
    assert rows_of(path) == ROWS


def test_a_line_separator_inside_a_value_splits_nothing(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": "x\u2028y\u2029z\x85"}\r\n\r\n{"a": "b"}', encoding="utf-8")
    assert list(read_rows(path)) == [(1, {"a": "x\u2028y\u2029z\x85"}), (3, {"a": "b"})]


def test_a_text_file_gives_its_lines(tmp_path):
    path = tmp_path / "a.txt.zst"
    path.write_bytes(zstandard.compress("one\n\n三".encode()))
    assert list(read_rows(path)) == [(1, {"text": "one"}), (2, {"text": ""}), (3, {"text": "三"})]


def test_folders_globs_and_lists_are_files_in_order(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(LINES)
    assert [path.name for path in find_files(str(tmp_path))] == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert [path.name for path in find_files(f"{tmp_path}/*.jsonl")] == ["a.jsonl", "b.jsonl"]
    assert [path.name for path in find_files([f"{tmp_path}/b.jsonl", f"{tmp_path}/a.jsonl"])] == ["b.jsonl", "a.jsonl"]


def test_a_name_without_its_kinds_names_a_source(tmp_path):
    assert stem_of(tmp_path / "alpaca_en.v2.jsonl.zst") == "alpaca_en.v2"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", LINES + b'{"a": \n', r"a\.jsonl:3: not JSON"),
        (
            "a.jsonl",
            LINES + '{"a": "法国的首都"}\n'.encode("gbk"),
            r"a\.jsonl:3: byte 8 .* not UTF-8 \(it reads as GBK\)",
        ),
        ("a.json", b'[{"a": 1},\n {"a" 2}]', r"a\.json:2: not JSON at column 7"),
        ("a.jsonl.zst", zstandard.compress(LINES * 99)[:-9], "cut off in the middle of its zstd data"),
        ("a.jsonl.zst", b"no zstd at all", "damaged zstd data"),
        ("a.jsonl.gz", gzip.compress(LINES * 99)[:-12], "cut off or damaged gzip data"),
        ("a.csv", b"a,b\n1,2,3\n", r"a\.csv:2: more values than columns \(a, b\)"),
        ("a.csv", b"a,b\n1\n", r"a\.csv:2: fewer values"),
        ("a.parquet", b"nothing", "not a readable Parquet file"),
        ("a.xlsx", b"", "not a kind of file that holds rows"),
        ("a", b"", "not a kind of file that holds rows"),
    ],
)
def test_a_broken_file_says_where_and_what(name, content, says, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=says):
        rows_of(path)


def test_a_missing_file_names_its_nearest(tmp_path):
    (tmp_path / "alpaca_en.jsonl").write_bytes(LINES)
    with pytest.raises(DataError, match=r"no such file; did you mean '.*alpaca_en\.jsonl'"):
        find_files(str(tmp_path / "alpaca_eng.jsonl"))
    with pytest.raises(DataError, match="nor a folder"):
        find_files(str(tmp_path / "nowhere" / "alpaca.jsonl"))
    with pytest.raises(DataError, match="no file matches"):
        find_files(f"{tmp_path}/*.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="an empty folder"):
        find_files(str(tmp_path / "empty"))


def test_a_folder_of_several_kinds_is_refused(tmp_path):
    write_every_kind(tmp_path)
    with pytest.raises(DataError, match="files of several kinds"):
        find_files(str(tmp_path))


values = st.recursive(st.text(max_size=8) | st.integers() | st.none() | st.booleans(), st.lists, max_leaves=4)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(st.text(max_size=4), values, min_size=1, max_size=3), min_size=1, max_size=8))
def test_what_was_written_is_read(rows, tmp_path):
    plain, packed, listed = tmp_path / "a.jsonl", tmp_path / "a.jsonl.zst", tmp_path / "a.json"
    text = "\r\n".join(json.dumps(row, ensure_ascii=False).replace("\ud800", "") for row in rows).encode(
        "utf-8", "replace"
    )
    plain.write_bytes(text)
    packed.write_bytes(zstandard.compress(text))
    listed.write_text(json.dumps(rows))
    assert rows_of(plain) == rows_of(packed) == rows_of(listed) == rows

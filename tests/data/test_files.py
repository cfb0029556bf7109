"""Files are read as they are, and a broken one says where it is broken."""

import bz2
import csv
import gzip
import json
import lzma
import tracemalloc
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from random import random
from threading import Thread

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from danlu.core.errors import DataError, UserError
from danlu.data.files import url
from danlu.data.files.damage import Damaged
from danlu.data.files.find import find_files, stem_of
from danlu.data.files.read import num_rows, read_files, read_rows

ROWS = [{"a": "one", "b": "two"}, {"a": "三", "b": 'quoted "x", y'}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def rows_of(path) -> list:
    return [row for _, row in read_rows(path)]


def write_every_kind(folder) -> dict:
    packed = ("f.jsonl.zst", "g.jsonl.gz", "h.jsonl.bz2", "i.jsonl.xz")
    made = {name: folder / name for name in ("a.jsonl", "b.json", "c.json", "d.csv", "e.parquet", *packed)}
    made["a.jsonl"].write_bytes(LINES)
    made["b.json"].write_text(json.dumps(ROWS, indent=1))
    made["c.json"].write_bytes(LINES)
    with open(made["d.csv"], "w", newline="") as file:
        table = csv.DictWriter(file, ["a", "b"])
        table.writeheader()
        table.writerows(ROWS)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), made["e.parquet"])
    made["f.jsonl.zst"].write_bytes(zstandard.compress(LINES[:20]) + zstandard.compress(LINES[20:]))
    for name, pack in (("g.jsonl.gz", gzip), ("h.jsonl.bz2", bz2), ("i.jsonl.xz", lzma)):
        made[name].write_bytes(pack.compress(LINES[:20]) + pack.compress(LINES[20:]))
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


def test_half_written_folders_are_not_read_and_numbers_sort_as_numbers(tmp_path):
    for name in ("part-10.jsonl", "part-2.jsonl", ".part-3.jsonl", ".news.tmp-1a/part-1.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(LINES)
    assert [path.name for path in find_files(str(tmp_path))] == ["part-2.jsonl", "part-10.jsonl"]


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
        ("a.jsonl.gz", gzip.compress(LINES * 99)[:-12], "cut off in the middle of its gzip data"),
        ("a.jsonl.gz", b"no gzip at all", "damaged gzip data"),
        ("a.jsonl.bz2", bz2.compress(LINES * 99)[:-12], "cut off in the middle of its bzip2 data"),
        ("a.jsonl.xz", lzma.compress(LINES * 99)[:-12], "cut off in the middle of its xz data"),
        ("a.jsonl", LINES + b'{"a": "\\ud83d"}\n', r"a\.jsonl:3: holds half of a character"),
        ("a.json", b'[{"a": 1},\n{"a": 2}', r"a\.json:2: not JSON at column 9 \(expected , or \], found the end\)"),
        ("a.json", b'[{"a": 1}\n]]', r"a\.json:2: not JSON at column 2 \(the list has ended"),
        ("a.json", b'[{"a": "\\ude00"}]', r"a\.json: item 1: holds half of a character"),
        ("a.json", b"[[1],\n2,]", r"a\.json:2: not JSON at column 3 \(Expecting value"),
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


def in_small_blocks(monkeypatch, size: int) -> None:
    monkeypatch.setattr(url, "BLOCK", size)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(values | st.floats(allow_nan=False), max_size=6),
    size=st.integers(1, 9),
    indent=st.sampled_from([None, 1]),
)
def test_a_list_read_in_small_blocks_is_the_list(rows, size, indent, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(" " + json.dumps(rows, indent=indent) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        in_small_blocks(patch, size)
        assert rows_of(path) == json.loads(path.read_text())


@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_rows_after_the_first_few_are_the_same_rows(size, tmp_path, monkeypatch):
    in_small_blocks(monkeypatch, size)
    text = tmp_path / "j.txt"
    text.write_text("one\n\ntwo\nthree")
    for path in [*write_every_kind(tmp_path).values(), text]:
        every = list(read_rows(path))
        assert num_rows(path) == len(every)
        for start in range(len(every) + 2):
            assert list(read_rows(path, start)) == every[start:], (path, start)


def test_rows_of_several_files_are_counted_through(tmp_path):
    files = list(write_every_kind(tmp_path).values())
    every = list(read_files(files))
    assert len(every) == 2 * len(files)
    for start in (0, 1, 2, 7, 10, len(every)):
        assert list(read_files(files, start)) == every[start:]


def test_row_groups_before_the_start_are_not_read(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": range(10)}), path, row_group_size=3)
    assert [list(read_rows(path, start)) for start in range(12)] == [
        [(n + 1, {"a": n}) for n in range(start, 10)] for start in range(12)
    ]


@pytest.mark.parametrize(
    ("unit", "rows"),
    [
        ("line", [(1, ""), (2, "one"), (3, "two"), (4, " "), (5, ""), (6, "three")]),
        ("document", [(2, "one\ntwo"), (6, "three")]),
        ("file", [(1, "\none\ntwo\n \n\nthree")]),
    ],
)
def test_a_text_is_lines_documents_or_one(unit, rows, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\none\r\ntwo\n \n\nthree\n")
    assert [(number, row["text"]) for number, row in read_rows(path, unit=unit)] == rows
    assert [number for number, _ in read_rows(path, 1, unit=unit)] == [number for number, _ in rows[1:]]


@pytest.mark.parametrize(
    ("name", "content", "lost", "kept"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a"\n\xff\n{"a": "\\ud800"}\n{"a": 2}', ["not JSON", "not UTF-8", "half of"], 2),
        ("a.txt", b"one\n\xff\ntwo", ["not UTF-8"], 2),
        ("a.csv", b"a,b\n1,2\n1,2,3\n4,5", ["more values"], 2),
        ("a.jsonl.zst", zstandard.compress(LINES) + zstandard.compress(LINES)[:-9], ["the rest of a file"], 2),
        ("a.json", b"[1, 2, x]", ["the rest of a list"], 2),
        ("a.parquet", b"nothing", ["the rest of a damaged Parquet"], 0),
    ],
)
def test_damage_may_be_skipped_and_is_counted(name, content, lost, kept, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    found = [row for _, row in read_rows(path, on_damage="skip")]
    damaged = [row.reason for row in found if isinstance(row, Damaged)]
    assert [reason.startswith(start) for reason, start in zip(damaged, lost, strict=True)] == [True] * len(lost)
    assert len(found) - len(damaged) == kept


def test_a_file_that_has_gone_is_damage_too(tmp_path):
    assert [row.reason for _, row in read_rows(tmp_path / "gone.jsonl", on_damage="skip")] == [
        "a file that cannot be read"
    ]
    with pytest.raises(DataError, match=r"gone\.jsonl: cannot be read \(No such file"):
        rows_of(tmp_path / "gone.jsonl")


def test_a_line_of_ten_megabytes_is_a_row(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": "' + b"x" * 10_000_000 + b'"}\n{"a": "y"}')
    assert [len(row["a"]) for row in rows_of(path)] == [10_000_000, 1]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt", "a.jsonl.zst"])
def test_memory_does_not_grow_with_a_file(name, tmp_path, monkeypatch):
    in_small_blocks(monkeypatch, 1 << 14)
    path, texts = tmp_path / name, [f"{random() * 1e99:.0f}" for _ in range(20_000)]
    rows = [json.dumps({"a": text}) for text in texts]
    whole = {"a.json": "[" + ",\n".join(rows) + "]", "a.csv": "\n".join(["a", *texts])}
    content = whole.get(name, "\n".join(rows)).encode()
    path.write_bytes(zstandard.compress(content) if name.endswith("zst") else content)
    tracemalloc.start()
    count = sum(1 for _ in read_rows(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count >= 20_000
    assert peak < len(content) / 2


def test_files_behind_a_url_are_streamed(tmp_path, monkeypatch):
    memory = fsspec.filesystem("memory")
    for name in ("part-10.jsonl", "part-2.jsonl.zst"):
        memory.pipe(f"/danlu-test/{name}", zstandard.compress(LINES) if name.endswith("zst") else LINES)
    files = find_files("memory://danlu-test")
    assert [str(file) for file in files] == [f"memory:///danlu-test/part-{n}" for n in ("2.jsonl.zst", "10.jsonl")]
    assert [row for _, _, row in read_files(files)] == ROWS * 2
    assert find_files("memory://danlu-test/part-1*.jsonl") == files[1:]
    assert rows_of(find_files(f"file://{write_every_kind(tmp_path)['a.jsonl']}")[0]) == ROWS
    with pytest.raises(DataError, match=r"memory://gone\.jsonl: cannot be read \(FileNotFoundError"):
        rows_of(*find_files("memory://gone.jsonl"))
    with pytest.raises(UserError, match="a password in a URL"):
        rows_of(*find_files("https://me:secret@host/a.jsonl"))
    with pytest.raises(UserError, match="no such kind of storage"):
        rows_of(*find_files("nosuch://host/a.jsonl"))


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


def test_a_web_address_is_a_file(tmp_path):
    pytest.importorskip("aiohttp")
    write_every_kind(tmp_path)
    handler = partial(Silent, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        for name in ("a.jsonl", "f.jsonl.zst", "e.parquet"):
            assert rows_of(*find_files(f"{address}/{name}")) == ROWS
        with pytest.raises(DataError, match=r"gone\.jsonl: cannot be read \(FileNotFoundError"):
            rows_of(*find_files(f"{address}/gone.jsonl"))
        server.shutdown()

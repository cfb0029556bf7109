"""Shards hold the rows as they were, and a folder of them is whole, old or absent, whatever happens to who packs it."""

import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from danlu.core.errors import DataError, SetupError, UserError
from danlu.data.files import read
from danlu.data.files.find import find_files
from danlu.data.files.manifest import sha256_of
from danlu.data.files.read import num_rows, read_files, read_rows
from danlu.data.shards import unpack, write_shards
from danlu.data.sources import Source
from danlu.runs.compress import compress
from tests.faults import Fault, every, run

SHARED = Path(__file__).parents[3] / "shared/data"


@pytest.fixture
def news(tmp_path) -> Path:
    """100 rows, one of them with a line separator and other odd bytes."""
    path = tmp_path / "src/MNBVC_news.jsonl"
    path.parent.mkdir()
    rows = [{"text": f"第 {n} 条\u2028新闻 \x7f"} for n in range(100)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def packed(source: Path | str, to: Path, shard_size: int, **options) -> dict:
    return {Path(said).name: made for said, made in compress([str(source)], to, shard_size, 1, **options)}


def shards_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_data_set_becomes_numbered_shards_with_its_own_bytes(news, tmp_path):
    made = packed(news, tmp_path / "out", 10)["MNBVC_news.jsonl"]
    folder = tmp_path / "out/MNBVC_news"
    assert shards_of(folder) == sorted([*(f"part-{n}.jsonl.zst" for n in range(1, 11)), "manifest.json"])
    assert (made.rows, len(made.shards)) == (100, 10)
    files = [folder / f"part-{n}.jsonl.zst" for n in range(1, 11)]
    # any zstd reads them, and nothing was written in other words
    assert (
        b"".join(zstandard.ZstdDecompressor().decompressobj().decompress(file.read_bytes()) for file in files)
        == news.read_bytes()
    )
    told = json.loads((folder / "manifest.json").read_text())
    assert [(one["name"], one["first_row"], one["rows"]) for one in told["shards"]][1] == ("part-2.jsonl.zst", 11, 10)
    assert [(one["bytes"], one["sha256"]) for one in told["shards"]] == [
        (f.stat().st_size, sha256_of(f)) for f in files
    ]
    assert (told["rows"], told["bytes"]) == (100, sum(file.stat().st_size for file in files))


def test_they_read_as_the_file_did(news, tmp_path):
    packed(news, tmp_path / "out", 9)
    source = Source(path=str(tmp_path / "out/MNBVC_news"))
    assert source.label == "MNBVC_news"
    assert [row for _, row in source.rows()] == [row for _, row in read_rows(news)]
    assert unpack(str(tmp_path / "out/MNBVC_news"), tmp_path / "back.jsonl") == 100
    assert (tmp_path / "back.jsonl").read_bytes() == news.read_bytes()


def test_packing_again_in_fewer_shards_leaves_none_of_the_old(news, tmp_path):
    packed(news, tmp_path / "out", 10)
    packed(news, tmp_path / "out", 60)
    assert shards_of(tmp_path / "out/MNBVC_news") == ["manifest.json", "part-1.jsonl.zst", "part-2.jsonl.zst"]
    stray = tmp_path / "out/MNBVC_news/part-3.jsonl.zst"
    stray.write_bytes(b"left by somebody")
    assert len(find_files(str(tmp_path / "out"))) == 2


def test_a_folder_packs_every_data_set_in_it_at_once(news, tmp_path):
    (news.parent / "MNBVC_qa.jsonl").write_bytes(b"".join(news.read_bytes().splitlines(keepends=True)[:50]))
    told = {said: (made.rows, len(made.shards)) for said, made in compress([str(news.parent)], tmp_path / "out", 10, 2)}
    assert told == {f"{news}": (100, 10), f"{news.parent}/MNBVC_qa.jsonl": (50, 5)}
    one = {name: (tmp_path / "out" / name / "part-1.jsonl.zst").read_bytes() for name in ("MNBVC_news", "MNBVC_qa")}
    list(compress([str(news.parent)], tmp_path / "again", 10, 1))
    assert one == {name: (tmp_path / "again" / name / "part-1.jsonl.zst").read_bytes() for name in one}


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.parquet", "a.txt", "a.jsonl.gz"])
def test_other_kinds_become_json_lines(name, tmp_path):
    rows = [{"text": "三 \u2028 x"}, {"text": "b"}]
    path = tmp_path / name
    if name == "a.parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        text = {"a.json": json.dumps(rows), "a.csv": "text\n三 \u2028 x\nb\n", "a.txt": "三 \u2028 x\nb"}.get(
            name, lines
        )
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    packed(path, tmp_path / "out", 10)
    assert [row for _, row in read_rows(tmp_path / "out/a/part-1.jsonl.zst")] == rows
    unpack(str(tmp_path / "out/a"), tmp_path / "b.jsonl")
    assert "三" in (tmp_path / "b.jsonl").read_text(encoding="utf-8")


rows_of_bytes = st.lists(
    st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")).filter(bytes.strip), min_size=1, max_size=20
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows_of_bytes, size=st.integers(1, 7))
def test_any_bytes_come_back_in_order(rows, size, tmp_path):
    source, folder = tmp_path / "a.jsonl", tmp_path / "out/a"
    source.write_bytes(b"\xef\xbb\xbf" + b"\n\n".join(rows))
    made = write_shards([source], folder, size)
    assert [shard.rows for shard in made.shards] == [len(rows[n : n + size]) for n in range(0, len(rows), size)]
    assert [shard.first_row for shard in made.shards] == list(range(1, len(rows) + 1, size))
    assert unpack(str(folder), tmp_path / "b.jsonl") == len(rows)
    assert (tmp_path / "b.jsonl").read_bytes() == b"".join(row + b"\n" for row in rows)


def test_reading_from_a_row_opens_no_shard_before_it(news, tmp_path, monkeypatch):
    packed(news, tmp_path / "out", 10)
    files = find_files(str(tmp_path / "out"))
    opened = []
    whole = read.reader
    monkeypatch.setattr(read, "reader", lambda file, *rest: opened.append(file.name) or whole(file, *rest))
    every_row = list(read_files(files))
    opened.clear()
    assert list(read_files(files, 75)) == every_row[75:]
    assert opened == ["part-8.jsonl.zst", "part-9.jsonl.zst", "part-10.jsonl.zst"]
    assert list(Source(path=str(tmp_path / "out"), max_rows=80).rows(75)) == [
        ((at, n), row) for at, n, row in every_row[75:80]
    ]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip, lambda path: path.write_bytes(path.read_bytes()[:-20]), Path.unlink])
def test_a_damaged_shard_stops_or_is_skipped_whole_and_counted(damage, news, tmp_path, loaded):
    packed(news, tmp_path / "out", 10)
    folder = tmp_path / "out/MNBVC_news"
    damage(folder / "part-3.jsonl.zst")
    with pytest.raises(DataError, match=r"part-3\.jsonl\.zst: (its SHA-256 is .* damaged or changed|cannot be read)"):
        loaded(sources=str(folder))
    with pytest.raises(DataError, match=r"part-3"):
        unpack(str(folder), tmp_path / "b.jsonl")
    assert not (tmp_path / "b.jsonl").exists()
    report = loaded(sources={"news": {"path": str(folder), "on_damage": "skip"}}).report.sources["news"]
    assert (report.rows_in, report.rows_out) == (100, 90)
    assert [found.count for found in report.dropped.values()] == [10]


def test_a_cut_off_shard_without_a_manifest_is_found_too(news, tmp_path):
    packed(news, tmp_path / "out", 50)
    shard = tmp_path / "out/MNBVC_news/part-2.jsonl.zst"
    (shard.parent / "manifest.json").unlink()
    assert num_rows(shard) == 50
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(DataError, match="cut off in the middle of its zstd data"):
        list(read_rows(shard))


def test_shards_behind_a_url_are_checked_and_skipped_by_their_manifest(news, tmp_path):
    packed(news, tmp_path / "out", 10)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "out/MNBVC_news"), "/danlu-shards", recursive=True)
    files = find_files("memory://danlu-shards")
    assert [file.name for file in files] == [f"part-{n}.jsonl.zst" for n in range(1, 11)]
    assert [row for *_, row in read_files(files, 42)] == [row for _, row in read_rows(news, 42)]
    memory.pipe("/danlu-shards/part-9.jsonl.zst", b"other")
    with pytest.raises(DataError, match=r"memory://danlu-shards/part-9\.jsonl\.zst: its SHA-256"):
        list(read_files(files))


def test_a_manifest_may_name_only_files_of_its_folder(news, tmp_path):
    packed(news, tmp_path / "out", 50)
    path = tmp_path / "out/MNBVC_news/manifest.json"
    path.write_text(path.read_text().replace("part-2.jsonl.zst", "../../secret.jsonl"))
    with pytest.raises(DataError, match="names '../../secret.jsonl', which is no file of its folder"):
        find_files(str(path.parent))
    path.write_text('{"kind": "shards", "shards": [{"sha256": 1}]}')
    with pytest.raises(DataError, match="a damaged manifest"):
        find_files(str(path.parent))


def test_what_would_be_lost_is_refused(news, tmp_path):
    mine = tmp_path / "out/MNBVC_news/mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match="exists and holds no manifest of shards"):
        packed(news, tmp_path / "out", 10)
    assert mine.read_text() == "mine"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/MNBVC_news.json").write_text("[]")
    with pytest.raises(UserError, match="would both be called MNBVC_news"):
        compress([str(news), str(tmp_path / "other")], tmp_path / "out", 10)
    with pytest.raises(DataError, match="no rows in it"):
        packed(tmp_path / "other/MNBVC_news.json", tmp_path / "empty", 10)
    with pytest.raises(UserError, match="at least 1"):
        packed(news, tmp_path / "out", 0)


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.slow), 6])
def test_a_kill_at_any_moment_leaves_the_old_shards_the_new_ones_or_none(stride, news, tmp_path):
    def work(folder: Path) -> int:
        return write_shards([news], folder / "a", 30).rows

    clean = run(lambda: work(tmp_path / "clean"), under=tmp_path / "clean")
    assert clean.value == 100, clean.error
    for fault in every(clean.operations, stride, kill=True, tear=True):
        folder = tmp_path / f"{fault.kind}-{fault.at}"
        write_shards([news], folder / "a", 50)
        assert run(lambda folder=folder: work(folder), fault, under=folder).died, fault
        left = list(folder.glob("*"))
        assert [path.name for path in left if not path.name.startswith(".")] in (["a"], []), fault
        if (folder / "a").exists():
            assert [row for *_, row in read_files(find_files(str(folder)))] == [row for _, row in read_rows(news)], (
                fault
            )
        assert work(folder) == 100
        assert [path.name for path in folder.glob("*")] == ["a"], fault


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8])
def test_a_full_disk_says_so_and_leaves_what_was_there(at, news, tmp_path):
    clean, folder = tmp_path / "clean", tmp_path / "disk"
    operations = run(lambda: pack_again(news, clean / "a"), under=clean).operations
    writes = [number for number, name in enumerate(operations) if name == "write"]
    write_shards([news], folder / "a", 50)
    before = {path.name: path.read_bytes() for path in (folder / "a").iterdir()}
    fault = Fault(writes[int(at * len(writes))], "full")
    found = run(lambda: pack_again(news, folder / "a"), fault, under=folder)
    assert "no room is left on this disk" in found.value
    assert {path.name: path.read_bytes() for path in (folder / "a").iterdir()} == before
    assert [path.name for path in folder.iterdir()] == ["a"]


def pack_again(source: Path, folder: Path) -> str:
    try:
        return str(write_shards([source], folder, 30).rows)
    except SetupError as error:
        return str(error)


def test_a_killed_command_leaves_nothing_that_is_read(tmp_path):
    source = tmp_path / "big.jsonl"
    source.write_bytes(b'{"text": "%s"}\n' % (b"abcdefgh" * 20) * 300_000)
    words = [
        sys.executable,
        "-m",
        "danlu",
        "data",
        "compress",
        str(source),
        "--to",
        str(tmp_path / "out"),
        "--shard-size",
        "500",
    ]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not list(tmp_path.glob("out/.big.tmp-*/part-3.jsonl.zst")):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(DataError, match="an empty folder"):
        find_files(str(tmp_path / "out"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data")
@pytest.mark.parametrize(("name", "rows", "files"), [("mnbvc_wiki_zh_100", 100, 10), ("chinese_pt_10k", 10_000, 1000)])
def test_real_files(name, rows, files, tmp_path):
    [source] = SHARED.glob(f"{name}.*")
    [made] = packed(source, tmp_path / "out", 10).values()
    assert (made.rows, len(made.shards)) == (rows, files)
    assert [row for *_, row in read_files(find_files(str(tmp_path / "out")))] == [row for _, row in read_rows(source)]

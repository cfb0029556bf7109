"""Damaged files and rows, end to end: each is an error with its place, or a count."""

import json

import pytest
import zstandard

from danlu.core.errors import DataError
from danlu.samples import Document
from danlu.tokens.encode import encode_samples
from danlu.tokens.templates.default import Default

ROW = b'{"instruction": "q", "output": "a"}\n'


@pytest.fixture
def load(loaded, tmp_path):
    """`load(content, name)`: the report of a file of these bytes."""

    def run(content: bytes, name: str = "rows.jsonl", **settings):
        (tmp_path / name).write_bytes(content)
        data = loaded(sources={"rows": str(tmp_path / name)}, **settings)
        return data.report.sources["rows"]

    return run


def test_a_truncated_zst_is_an_error(load):
    whole = zstandard.compress(b"".join(ROW[:-3] + b'%d"}\n' % n for n in range(5000)))
    with pytest.raises(DataError, match=r"rows\.jsonl\.zst: cut off in the middle of its zstd data"):
        load(whole[: len(whole) // 2], "rows.jsonl.zst")


def test_bad_json_is_an_error_with_its_line(load):
    with pytest.raises(DataError, match=r"rows\.jsonl:31: not JSON .* near .*mend or remove this line"):
        load(ROW * 30 + b'{"instruction": "q", "output": }\n' + ROW)


def test_wrong_types_are_counted(load):
    odd = b'{"instruction": ["q"], "output": "a"}\n{"instruction": "q", "output": 5}\n'
    report = load(ROW * 25 + odd)
    assert report.rows_out == 25
    assert sum(found.count for found in report.dropped.values()) == 2
    assert sorted(found.first[-2:] for found in report.dropped.values()) == ["26", "27"]


@pytest.mark.parametrize("content", [b"", b"\n\n  \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_an_error(load, content):
    with pytest.raises(DataError, match=r"rows\.jsonl: no rows in it"):
        load(content)


def test_a_byte_order_mark_is_no_part_of_the_data(load):
    assert load(b"\xef\xbb\xbf" + ROW * 2).rows_out == 2


def test_half_a_character_is_an_error_or_counted(load, loaded, tmp_path):
    half = json.dumps({"instruction": "q", "output": "a \ud83d b"}).encode() + b"\n"
    whole = json.dumps({"instruction": "q", "output": "a \U0001f600 b"}).encode() + b"\n"
    with pytest.raises(DataError, match=r"rows\.jsonl:2: holds half of a character"):
        load(ROW + half + whole)
    source = {"path": str(tmp_path / "rows.jsonl"), "on_damage": "skip"}
    report = loaded(sources={"rows": source}).report.sources["rows"]
    assert report.rows_out == 2
    [(reason, found)] = report.dropped.items()
    assert "half of a character" in reason
    assert found.first.endswith("rows.jsonl:2")


def test_half_a_character_from_elsewhere_reaches_no_tokenizer(tokenizer):
    [encoded] = encode_samples([Document("a \ud83d b")], tokenizer, Default())
    assert "half of a character" in encoded.problem


@pytest.mark.slow
def test_a_line_of_ten_megabytes_is_a_row(load):
    long = json.dumps({"instruction": "q", "output": "word " * 2_000_000}).encode() + b"\n"
    report = load(ROW + long + ROW, max_length=100)
    assert (report.rows_in, report.rows_out, report.longest) == (3, 3, 100)
    assert report.truncated.count == 1
    assert report.truncated.first.endswith("rows.jsonl:2")


def test_a_line_that_is_no_utf8_is_an_error_with_its_place(load):
    with pytest.raises(DataError, match=r"rows\.jsonl:3: byte \d+ of the line is not UTF-8"):
        load(ROW * 2 + '{"instruction": "问", "output": "答"}\n'.encode("gbk"))


def test_a_row_that_is_nested_too_deep_is_an_error_with_its_line(load):
    with pytest.raises(DataError, match=r"rows\.jsonl:2: not JSON"):
        load(ROW + b'{"output":' + b"[" * 200_000 + b"\n")

"""What people see of their data is what is trained, and slots are filled before they are taught."""

import io
import json

import pytest
from rich.console import Console

from danlu.core.errors import DataError
from danlu.data.config import DataConfig
from danlu.runs.fill import fill
from danlu.runs.show import row_text, show
from danlu.samples import Conversation


def spans_in(text, style: str) -> list[str]:
    return [text.plain[span.start : span.end] for span in text.spans if style in str(span.style)]


def test_the_trained_words_are_underlined_whole(loaded, rows_file, tokenizer):
    data = loaded(sources=str(rows_file([{"instruction": "火 <|im_end|>", "output": "炉 😀"}])))
    text = row_text(data.sets[0], 0, tokenizer)
    assert spans_in(text, "underline") == ["炉 😀", "<|im_end|>"]
    assert "火 <|im_end|>" in text.plain
    assert "火 <|im_end|>" not in "".join(spans_in(text, "magenta"))


def test_a_cut_row_says_so(loaded, rows_file, tokenizer):
    data = loaded(sources=str(rows_file([{"instruction": "q", "output": "word " * 99}])), max_length=40)
    assert row_text(data.sets[0], 0, tokenizer).plain.endswith("cut at max_length")


def test_data_cannot_command_the_terminal(loaded, rows_file, tokenizer):
    nasty = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202eback"
    data = loaded(sources=str(rows_file([{"instruction": nasty, "output": "a"}])))
    assert "red2Jback" in row_text(data.sets[0], 0, tokenizer).plain


def test_show_prints_rows_and_counts(alpaca_file, tokenizer, tmp_path):
    console = Console(file=io.StringIO(), width=200)
    config = DataConfig(sources=str(alpaca_file), cache=tmp_path / "cache", workers=1)
    show(config, tokenizer, (Conversation,), examples=1, ids=True, console=console)
    said = console.file.getvalue()
    assert "alpaca.jsonl:1" in said
    assert "120 rows read, 120 kept" in said


def test_every_slot_is_filled(tmp_path):
    source, to = tmp_path / "a.jsonl", tmp_path / "out/b.jsonl"
    source.write_text('{"output": "I am {{name}} by {{ author }}, not <NAME>; 1 <X> 2"}\n')
    assert fill(source, to, {"name": 'No"va', "author": "炉"}) == 3
    assert json.loads(to.read_text()) == {"output": 'I am No"va by 炉, not No"va; 1 <X> 2'}


def test_a_slot_without_a_value_is_refused_by_name(tmp_path):
    source = tmp_path / "a.jsonl"
    source.write_text('{"a": "{{name}}"}\n{"a": "{{author}} <AUTHOR>"}\n')
    with pytest.raises(DataError, match=r"no value for \{\{author\}\} \(first .*a.jsonl:2\), <AUTHOR>"):
        fill(source, tmp_path / "b.jsonl", {"name": "Nova"})
    assert not (tmp_path / "b.jsonl").exists()
    source.write_text('{"a": "b"}\n')
    with pytest.raises(DataError, match="holds no slot"):
        fill(source, tmp_path / "b.jsonl", {"name": "Nova"})

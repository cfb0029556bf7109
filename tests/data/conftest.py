"""A small tokenizer, a cache of its own for each test, and files of rows."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from danlu.data.config import DataConfig
from danlu.data.pipeline import Data, load_data
from danlu.models.builtin.tiny_tokenizer import tiny_tokenizer
from danlu.samples import Conversation, Document


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture
def rows_file(tmp_path) -> Callable[..., Path]:
    """`rows_file(rows)`: a .jsonl file of them."""

    def write(rows: list, name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def loaded(tmp_path, tokenizer) -> Callable[..., Data]:
    """`loaded(sources=..., ...)`: tokenised data."""

    def load(**settings) -> Data:
        config = DataConfig(**{"cache": tmp_path / "cache", "workers": 1, **settings})
        return load_data(config, tokenizer, (Conversation, Document), seed=7)

    return load


def alpaca(count: int) -> list[dict[str, str]]:
    """Rows of different lengths."""
    return [{"instruction": f"count {n}", "input": "", "output": "one two three " * (n % 13 + 1)} for n in range(count)]


@pytest.fixture
def alpaca_file(rows_file) -> Path:
    return rows_file(alpaca(120), "alpaca.jsonl")

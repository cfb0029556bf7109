"""Tokenizers are loaded safely and known again."""

import json

import pytest

from danlu.core.errors import UserError
from danlu.models.builtin.tiny_tokenizer import tiny_tokenizer
from danlu.tokens.tokenizer import fingerprint, load_tokenizer


def test_a_saved_tokenizer_is_the_same_tokenizer(tmp_path):
    saved = tiny_tokenizer()
    saved.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert fingerprint(loaded) == fingerprint(saved)
    assert loaded.pad_token == saved.pad_token


def test_another_template_or_token_is_another_fingerprint():
    one, other, third = tiny_tokenizer(), tiny_tokenizer(), tiny_tokenizer()
    other.chat_template = "{{ messages }}"
    third.add_tokens(["furnace"])
    assert len({fingerprint(one), fingerprint(other), fingerprint(third)}) == 3


def test_padding_takes_a_token_that_is_there(tmp_path):
    bare = tiny_tokenizer()
    bare.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    told = json.loads(path.read_text())
    del told["pad_token"]
    path.write_text(json.dumps(told))
    loaded = load_tokenizer(tmp_path)
    assert loaded.pad_token == loaded.unk_token
    assert len(loaded) == len(bare)


def test_saved_truncation_shortens_nothing(tmp_path):
    saved = tiny_tokenizer()
    saved.backend_tokenizer.enable_truncation(4)
    saved.save_pretrained(tmp_path)
    assert len(load_tokenizer(tmp_path).backend_tokenizer.encode("one two three four five six").ids) > 4


def test_a_folder_without_a_tokenizer_says_what_it_lacks(tmp_path):
    with pytest.raises(UserError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        load_tokenizer(tmp_path / "none")

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from danlu.generate.pieces import decode, pieces
from danlu.models.builtin.tiny_tokenizer import tiny_tokenizer
from danlu.tokens.tokenizer import load_tokenizer

tokenizer = cache(tiny_tokenizer)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(max_examples=200, deadline=None)
def test_pieces_join_to_the_whole_and_never_cut_a_character(text):
    ids = tokenizer().encode(text, add_special_tokens=False)
    found = list(pieces(tokenizer(), ids))
    assert "".join(found) == decode(tokenizer(), ids)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in found)


@given(st.lists(st.integers(0, 511), max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_ids_join_to_what_they_decode_to(ids):
    assert "".join(pieces(tokenizer(), ids)) == decode(tokenizer(), ids)


def test_a_character_comes_with_its_last_byte():
    ids = tokenizer().encode("a🔥b", add_special_tokens=False)
    assert len(ids) == 6
    assert list(pieces(tokenizer(), ids)) == ["a", "🔥", "b"]


@pytest.mark.parametrize("text", ["炼丹 is 🔥🔥, isn't it?  \n\n  yes", "e\u0301 👩‍👩‍👧"])
def test_with_smollm2s_tokenizer(text, smollm2):
    real = load_tokenizer(smollm2)
    ids = real.encode(text, add_special_tokens=False)
    found = list(pieces(real, ids))
    assert "".join(found) == text
    assert len(found) > 5


def test_a_tokenizer_with_byte_fallback():
    vocab = {"<unk>": 0, "▁a": 1, "b": 2} | {f"<0x{byte:02X}>": byte + 3 for byte in range(256)}
    spm = Tokenizer(models.BPE(vocab, [], byte_fallback=True, unk_token="<unk>"))
    spm.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=spm)
    fire, stove = ([byte + 3 for byte in word.encode()] for word in ("🔥", "炉"))
    ids = [1, *stove, *fire, 1, 2, *fire, 2]
    assert list(pieces(tokenizer, ids)) == ["a", "炉", "🔥", " a", "b", "🔥", "b"]
    assert "".join(pieces(tokenizer, ids[:6])).startswith("a炉\ufffd")

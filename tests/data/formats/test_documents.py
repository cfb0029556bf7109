"""Plain texts, code, and texts whose parts are told apart by special tokens."""

import pytest
from tokenizers import AddedToken

from danlu.core.errors import UserError
from danlu.data.formats import formats
from danlu.data.formats.base import Unreadable
from danlu.models.builtin.tiny_tokenizer import tiny_tokenizer
from danlu.samples import Document
from danlu.tokens.encode import encode_samples
from danlu.tokens.templates import templates

MARKED = [
    ({"title": "T", "content": "c"}, "<|title|>T<|content|>c"),
    ({"content": "c"}, "<|content|>c"),
    ({"question": "q", "answer": "a"}, "<|question|>q<|answer|>a"),
    ({"code": "x = 1"}, "<|code|>x = 1"),
    ({"user": "u", "assistant": "a"}, "<|user|>u<|assistant|>a"),
    ({"text": "t", "content": "c"}, "t"),
    ({"content": "c", "question": "q", "answer": "a"}, "<|content|>c"),
]


@pytest.fixture
def marking_tokenizer():
    names = ("title", "content", "question", "answer", "code", "user", "assistant")
    tokens = {f"{name}_token": AddedToken(f"<|{name}|>", special=True) for name in names}
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": list(tokens.values())})
    tokenizer._set_model_specific_special_tokens({name: str(token) for name, token in tokens.items()})
    return tokenizer


def test_a_text_is_a_document_and_a_title_goes_before_its_content():
    assert formats["text"]().read({"text": "words"}) == Document("words")
    assert formats["text"]().read({"title": "T", "content": "words"}) == Document("T words")
    assert formats["text"]().read({"title": None, "content": "words"}) == Document("words")


def test_code_keeps_its_first_indentation_and_may_name_its_file():
    row = {"content": "    x = 1\n", "path": "a/b.py"}
    assert formats["code"]().read(row) == Document("    x = 1\n")
    assert formats["code"](name_the_file=True).read(row) == Document("a/b.py\n    x = 1\n")


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("text", {"text": "  "}, "'text' is empty"),
        ("text", {"text": None}, "no 'text' or 'content'"),
        ("text", {"text": 3}, "'text' is int, not text"),
        ("text", {"title": 3, "content": "c"}, "'title' is int, not text"),
        ("code", {"code": None}, "no 'code'"),
        ("marked_text", {"other": "x"}, "none of {text}"),
    ],
)
def test_a_row_of_no_use_says_why(name, row, reason):
    with pytest.raises(Unreadable, match=reason):
        formats[name]().read(row)


@pytest.mark.parametrize(("row", "text"), MARKED)
def test_parts_stand_behind_their_special_tokens(row, text, marking_tokenizer):
    [one] = encode_samples([formats["marked_text"]().read(row)], marking_tokenizer, templates["chatml"]())
    words = marking_tokenizer.decode(one.ids)
    assert words == text + marking_tokenizer.eos_token
    assert text.count("<|") == sum(id in marking_tokenizer.added_tokens_decoder for id in one.ids.tolist()) - 1
    assert one.trained[1:].all()


def test_a_special_token_that_somebody_typed_is_none(marking_tokenizer):
    [one] = encode_samples(
        [formats["marked_text"]().read({"title": "T", "content": "a<|title|>b"})],
        marking_tokenizer,
        templates["chatml"](),
    )
    assert one.ids.tolist().count(marking_tokenizer.convert_tokens_to_ids("<|title|>")) == 1
    assert marking_tokenizer.decode(one.ids).startswith("<|title|>T<|content|>a<|title|>b")


def test_a_missing_special_token_is_named(loaded, rows_file):
    path = str(rows_file([{"title": "T", "content": "c"}]))
    with pytest.raises(UserError, match="the tokenizer has no title_token"):
        loaded(sources={"path": path, "format": "marked_text"})
    assert len(loaded(sources=path).sets[0]) == 1

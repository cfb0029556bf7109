"""Long documents: every policy gives the rows it promises, and says what it loses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.data.chunks import Chunk, hashes_of
from danlu.data.length import HEADS, fit
from danlu.data.report import SourceReport
from danlu.data.together import joined
from danlu.tokens.encode import Encoded

LENGTH = 32


@pytest.fixture
def document(tokenizer, rows_file):
    """A file with one document of exactly 3 x LENGTH + 5 ids, its end included."""
    text = " ".join("abcdefghij"[n % 10] for n in range(400))
    ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    end = ids.offsets[3 * LENGTH + 5 - 2][1]
    return str(rows_file([{"text": text[:end]}], "long.jsonl"))


def lengths_of(data) -> list[int]:
    return data.sets[0].lengths.tolist()


@pytest.mark.parametrize(
    ("too_long", "rows"),
    [
        ("truncate_right", [LENGTH]),
        ("truncate_left", [LENGTH]),
        ("sample", [LENGTH]),
        ("split", [LENGTH, LENGTH, LENGTH, 5]),
    ],
)
def test_a_document_of_three_lengths_and_five(too_long, rows, loaded, document):
    data = loaded(sources={"long": document}, max_length=LENGTH, too_long=too_long)
    report = data.report.sources["long"]
    assert lengths_of(data) == rows
    assert report.tokens + report.tokens_lost == 3 * LENGTH + 5
    assert report.trained_tokens + report.trained_tokens_lost == 3 * LENGTH + 4
    assert (report.truncated.count, report.split.count) == ((0, 1) if too_long == "split" else (1, 0))


def test_what_is_cut_is_noticed(loaded, document):
    said = "\n".join(loaded(sources={"long": document}, max_length=LENGTH).report.lines())
    assert "1 rows cut: 69 tokens lost, 69 of them trained (first " in said
    assert "long.jsonl:1" in said


def test_a_document_ends_with_eos_and_a_piece_does_not(loaded, document, tokenizer):
    data = loaded(sources=document, max_length=LENGTH, too_long="split")
    last = [int(data.sets[0].row(number)[0][-1]) for number in range(4)]
    assert [id == tokenizer.eos_token_id for id in last] == [False, False, False, True]


def test_a_sample_ends_with_eos(loaded, document, tokenizer):
    ids, trained = loaded(sources=document, max_length=LENGTH, too_long="sample").sets[0].row(0)
    assert ids[-1] == tokenizer.eos_token_id
    assert trained.tolist() == [False] + [True] * (LENGTH - 1)


def test_samples_come_from_everywhere_and_a_quarter_from_the_beginning(loaded, rows_file, tokenizer):
    text = " ".join(str(n % 10) for n in range(300))
    path = str(rows_file([{"text": text}] * 400))

    def firsts(seed_of):
        data = loaded(sources=path, max_length=LENGTH, too_long="sample", cache=path + seed_of)
        return [data.sets[0].row(number)[0].tolist() for number in range(400)]

    one = firsts("one")
    assert one == firsts("again")
    heads = sum(row[:-1] == one_of(tokenizer, text)[: LENGTH - 1] for row in one) / 400
    assert abs(heads - HEADS) < 0.15  # digits repeat, so some windows look like heads too
    assert len({tuple(row) for row in one}) > 9


def one_of(tokenizer, text: str) -> list[int]:
    return tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids


@given(count=st.integers(LENGTH + 1, 200), luck=st.floats(0, 1, exclude_max=True))
def test_a_sample_is_a_window_of_the_document(count, luck):
    row = Encoded(np.arange(count, dtype=np.uint32), np.ones(count, bool))
    [piece] = fit(row, LENGTH, "sample", luck=luck, eos=999)
    start = int(piece.ids[0])
    assert piece.ids.tolist() == [*range(start, start + LENGTH - 1), 999]
    assert 0 <= start <= count - LENGTH
    assert start == 0 or luck >= HEADS
    assert row.ids.tolist() == list(range(count))


documents = st.lists(st.lists(st.booleans(), min_size=1, max_size=40), min_size=1, max_size=12)


@given(documents=documents, length=st.integers(2, 30), per_chunk=st.integers(1, 5))
def test_documents_together_are_the_same_ids_in_full_rows(documents, length, per_chunk):
    chunks = [chunk_of(documents, at, per_chunk) for at in range(0, len(documents), per_chunk)]
    whole, masks = np.concatenate([c.ids for c in chunks]), np.concatenate([c.trained for c in chunks])
    made = list(joined(iter(chunks), length))
    lengths = np.concatenate([chunk.lengths for chunk in made])
    assert np.concatenate([chunk.ids for chunk in made]).tolist() == whole.tolist()
    assert (lengths[:-1] == length).all()
    assert 0 < lengths[-1] <= length
    starts = np.arange(0, len(whole), length)
    want = masks.copy()
    want[starts] = False
    assert np.concatenate([chunk.trained for chunk in made]).tolist() == want.tolist()
    document_at = np.repeat(np.arange(len(documents)), [len(one) for one in documents])
    assert np.concatenate([chunk.places for chunk in made])[:, 1].tolist() == document_at[starts].tolist()
    told = SourceReport()
    for chunk in made:
        told.add(chunk.report)
    assert (told.rows_in, told.rows_out, told.tokens) == (len(documents), len(lengths), len(whole))
    assert told.trained_tokens + told.trained_tokens_lost == masks.sum()


def chunk_of(documents: list[list[bool]], at: int, count: int) -> Chunk:
    some = documents[at : at + count]
    lengths = np.array([len(one) for one in some])
    before = sum(map(len, documents[:at]))
    ids = np.arange(before, before + lengths.sum(), dtype=np.uint16)
    places = np.array([(0, at + n, 0) for n in range(len(some))], np.uint32)
    trained = np.array([learnt for one in some for learnt in one])
    return Chunk(ids, trained, lengths, places, hashes_of(ids, lengths), SourceReport(rows_in=len(some)))


def test_documents_together_see_each_other_and_apart_they_do_not(loaded, rows_file, tokenizer):
    path = str(rows_file([{"text": "one two three"}, {"text": "four five"}, {"text": "six"}] * 20))
    apart = loaded(sources=path, pack_tokens=64, batch={"tokens": 64})
    together = loaded(sources=path, pack_tokens=64, batch={"tokens": 64}, documents="together", max_length=4)
    packs = [pack for step in together.loader(epochs=1) for pack in step.packs]
    assert {len(pack.segments) for pack in packs} == {1}
    assert sorted(pack.num_tokens for pack in packs)[1:] == [64] * (len(packs) - 1)
    assert all(len(pack.segments) > 1 for step in apart.loader(epochs=1) for pack in step.packs)
    ids = together.sets[0].ids.tolist()
    assert ids == apart.sets[0].ids.tolist()
    assert ids.count(tokenizer.eos_token_id) == 60
    assert together.sets[0].key != apart.sets[0].key

"""Each shape of row is known by its keys alone, as exactly one format for what an objective learns from."""

import logging

import pytest

from danlu.core.errors import DataError
from danlu.data.config import DataConfig
from danlu.data.formats import formats
from danlu.data.pipeline import load_data
from danlu.data.reading import samples_of
from danlu.data.recognise import format_of, formats_of
from danlu.data.report import SourceReport
from danlu.data.sources import Source
from danlu.samples import Conversation, Document, Message, PreferencePair, Prompt, Rating
from danlu.tokens.encode import encode_prompt
from tests.data.formats.rows import CHAT, ROWS, SHAREGPT, A, Q

LESSONS = (Conversation, Document)
EACH = [(name, row) for name, rows in ROWS.items() for row in rows]


def learned_with(kind: type) -> tuple[type, ...]:
    """What an objective that learns from this kind of sample learns from."""
    return LESSONS if kind in LESSONS else (kind,)


def read_all(path, learns_from=LESSONS, **settings):
    """Every sample of a file, and the report."""
    source, report = Source(path=str(path), **settings), SourceReport()
    format = format_of(source, learns_from)
    return [one for place, row in source.rows() for one in samples_of(source, format, place, row, report)], report


def test_every_format_has_a_row_here():
    assert sorted(ROWS) == list(formats)


@pytest.mark.parametrize(("name", "row"), EACH)
def test_a_row_has_exactly_one_format(name, row):
    kind = formats[name]
    found = [formats.name_of(one()) for one in formats_of([row]) if one.gives in learned_with(kind.gives)]
    if kind.recognised:
        assert found == [name]
    else:
        assert kind.fits(row)
        assert name not in found


@pytest.mark.parametrize(("name", "row"), EACH)
def test_a_row_of_a_shape_is_read(name, row):
    samples = formats[name]().samples(row)
    assert samples
    assert {type(one) for one in samples} == {formats[name].gives}


def test_the_format_is_known_by_the_rows_and_not_by_the_path(rows_file, caplog):
    path = rows_file([{"conversations": SHAREGPT}], "alpaca_data.jsonl")
    with caplog.at_level(logging.INFO):
        assert formats.name_of(format_of(Source(path=str(path)), (Conversation,))) == "messages"
    assert "alpaca_data.jsonl: its rows have the format messages" in caplog.text


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"no 'evol'.*known: alpaca, .*self_instruct"):
        Source(path="x.jsonl", format="evol")


def test_rows_of_no_known_shape_name_their_keys_and_the_shapes(rows_file):
    path = rows_file([{"frage": "q", "antwort": "a"}])
    with pytest.raises(
        DataError, match=r"rows\.jsonl:1: a row of keys frage, antwort fits no format(.|\n)*alpaca: \{instruction"
    ):
        format_of(Source(path=str(path)), (Conversation,))


def test_the_shapes_that_are_shown_are_those_most_like_the_row(rows_file):
    path = rows_file([{"Questions": "q", "answers": "a"}])
    with pytest.raises(
        DataError, match=r"fits no format(.|\n)*\n  question_answer: (.|\n)*\n  others: .*self_instruct"
    ):
        format_of(Source(path=str(path)), LESSONS)


def test_rows_for_another_objective_are_refused_in_words(rows_file):
    path = str(rows_file([{"text": "words"}]))
    with pytest.raises(DataError, match="gives Document; this objective learns from Conversation"):
        format_of(Source(path=path), (Conversation,))
    with pytest.raises(DataError, match="learns from PreferencePair"):
        format_of(Source(path=path, format="text"), (PreferencePair,))


@pytest.mark.parametrize("judged", [{"chosen": A, "rejected": "No."}, {"label": False}])
def test_answers_that_are_judged_are_not_learned_as_if_they_were_good(judged, rows_file):
    path = rows_file([{"messages": CHAT, **judged}])
    with pytest.raises(DataError, match="which gives (PreferencePair|Rating); this objective learns from Conv"):
        format_of(Source(path=str(path)), LESSONS)


def test_rows_of_two_shapes_ask_for_a_choice(rows_file):
    path = rows_file([{"instruction": "q", "output": "a", "messages": CHAT}])
    with pytest.raises(DataError, match="alpaca and messages; say which with format: alpaca"):
        format_of(Source(path=str(path)), (Conversation,))


def test_an_empty_file_is_an_error(rows_file):
    with pytest.raises(DataError, match="no rows in it"):
        format_of(Source(path=str(rows_file([]))), (Conversation,))


@pytest.mark.parametrize("before", [1, 30])
def test_a_file_of_several_shapes_is_refused_at_the_first_row_of_another(before, rows_file):
    path = rows_file([*[{"instruction": Q, "output": A}] * before, {"messages": CHAT}, {"text": "words"}])
    told = rf"rows\.jsonl:{before + 1}: a row of keys messages among rows of alpaca, \{{instruction, input\?, output"
    with pytest.raises(DataError, match=told):
        read_all(path)


def test_a_row_that_is_no_mapping_is_refused_among_others(rows_file):
    with pytest.raises(DataError, match=r"rows\.jsonl:2: a row that is str among rows of text"):
        read_all(rows_file([{"text": "words"}, "words"]))


def test_a_named_format_drops_and_counts_what_it_cannot_read(rows_file):
    path = rows_file([{"instruction": Q, "output": A}, {"messages": CHAT}])
    samples, report = read_all(path, format="alpaca")
    assert len(samples) == 1
    assert {reason: found.first[-1] for reason, found in report.dropped.items()} == {"no 'instruction'": "2"}


def test_a_bad_value_in_the_right_shape_is_dropped_and_counted(rows_file):
    rows = [{"instruction": Q, "output": said} for said in (A, None, 3, "", {"a": 1})]
    samples, report = read_all(rows_file(rows))
    assert len(samples) == 1
    assert {reason: (one.count, one.first[-1]) for reason, one in report.dropped.items()} == {
        "no 'output'": (1, "2"),
        "'output' is int, not text": (1, "3"),
        "'output' is empty": (1, "4"),
        "'output' is dict, not text": (1, "5"),
    }


def test_prompts_become_the_ids_that_a_model_is_served(rows_file, tokenizer, tmp_path):
    path = rows_file([{"turns": [Q, "and then?"]}, {"turns": [Q * 50]}])
    config = DataConfig(
        sources=str(path), cache=tmp_path / "cache", workers=1, template="chatml", max_length=64, too_long="drop"
    )
    data = load_data(config, tokenizer, (Prompt,), seed=0)
    [tokens] = data.sets
    ids, trained = tokens.row(0)
    assert ids.tolist() == encode_prompt([Message("user", Q)], tokenizer, data.template)
    assert not trained.any()
    assert len(tokens) == 1
    assert "longer than 64 tokens" in tokens.report.dropped
    assert tokens.report.changed["only the first question is asked"].count == 1


def test_a_prompts_end_is_never_cut_off(rows_file, tokenizer, tmp_path):
    path = rows_file([{"prompt": Q}])
    config = DataConfig(sources=str(path), cache=tmp_path / "cache", workers=1)
    with pytest.raises(DataError, match="truncate_right cuts off the end of a prompt.*say drop, truncate_left"):
        load_data(config, tokenizer, (Prompt,), seed=0)


def test_each_source_says_its_own_system_prompt(rows_file):
    rows = {
        Conversation: {"instruction": Q, "output": A},
        PreferencePair: {"prompt": Q, "chosen": A, "rejected": "No."},
        Rating: {"prompt": Q, "completion": A, "label": True},
    }
    for kind, row in rows.items():
        for said in ("Speak A.", "Speak B."):
            [sample], _ = read_all(rows_file([row]), (kind,), system=said)
            first = (sample.prompt if kind is PreferencePair else sample.messages)[0]
            assert (first.role, first.content) == ("system", said)

"""Real files of every shape load without options, and every row of them is accounted for."""

from pathlib import Path

import pytest

from danlu.data.formats import formats
from danlu.data.reading import samples_of
from danlu.data.recognise import format_of
from danlu.data.report import SourceReport
from danlu.data.sources import Source
from danlu.samples import Conversation, Document, PreferencePair, Prompt, Rating

SHARED = Path(__file__).parents[4] / "shared/data"
LESSONS, PAIRS = (Conversation, Document), (PreferencePair,)
EMPTY = "'output' is empty"

FILES = [  # name, format, what is learned from, rows, samples, rows or samples dropped
    ("alpaca_en_9k.jsonl.zst", "alpaca", LESSONS, 9_229, 9_225, {EMPTY: 4}),
    ("alpaca_en_extra_10k.jsonl.zst", "alpaca", LESSONS, 10_057, 10_050, {EMPTY: 7}),
    ("alpaca_gpt4_zh_1k.jsonl.zst", "alpaca", LESSONS, 1_000, 1_000, {}),
    ("belle_zh_1k.jsonl.zst", "alpaca", LESSONS, 1_000, 1_000, {}),
    ("c4_demo.jsonl.zst", "text", LESSONS, 293, 293, {}),
    ("chinese_pt_10k.txt.zst", "text", LESSONS, 10_000, 9_065, {"'text' is empty": 935}),
    ("dolly_3k.jsonl.zst", "dolly", LESSONS, 2_996, 2_996, {}),
    ("dpo_en_300.jsonl.zst", "chosen_rejected", PAIRS, 300, 300, {}),
    ("dpo_zh_300.jsonl.zst", "chosen_rejected", PAIRS, 300, 300, {}),
    ("evol_instruct_61.jsonl.zst", "messages", LESSONS, 61, 55, {"an empty answer": 6}),
    ("fastchat_identity_sharegpt.jsonl.zst", "messages", LESSONS, 500, 500, {}),
    ("flan_cot_2800.jsonl.zst", "flan", LESSONS, 2_800, 2_800, {}),
    ("gaokao_mcq_zh.jsonl.zst", "multiple_choice", LESSONS, 890, 890, {}),
    ("gsm8k_test_1319.jsonl.zst", "question_answer", LESSONS, 1_319, 1_319, {}),
    ("gsm8k_train_2k.jsonl.zst", "question_answer", LESSONS, 2_000, 2_000, {}),
    ("identity_91.jsonl", "alpaca", LESSONS, 91, 91, {}),
    ("kto_en_300.jsonl.zst", "rated", (Rating,), 300, 300, {}),
    ("mnbvc_wiki_zh_100.jsonl.zst", "text", LESSONS, 100, 100, {}),
    ("movie_reviews_en_10k.jsonl.zst", "text", LESSONS, 10_605, 10_605, {}),
    ("mt_bench_80.jsonl", "prompts", (Prompt,), 80, 80, {}),
    ("mt_bench_zh_80.jsonl", "prompts", (Prompt,), 80, 80, {}),
    ("oasst_en_lima_shape.jsonl.zst", "turns", LESSONS, 100, 100, {}),
    ("oasst_en_pairs.jsonl.zst", "hh_rlhf", PAIRS, 212, 212, {}),
    (
        "oasst_en_trees_100.jsonl.zst",
        "openassistant",
        LESSONS,
        100,
        538,
        {"a tree without a thread of people's own words that ends with an answer": 5},
    ),
    (
        "oasst_en_trees_100.jsonl.zst",
        "openassistant_ranked",
        PAIRS,
        100,
        207,
        {"a tree without two ranked replies to one question": 5},
    ),
    ("oasst_zh_rm.jsonl.zst", "alpaca_ranked", PAIRS, 775, 772, {"both replies are the same": 3}),
    ("oasst_zh_sft.jsonl.zst", "alpaca", LESSONS, 689, 689, {}),
    ("p3_t0.jsonl.zst", "prompt_completion", LESSONS, 1_587, 1_587, {}),
    ("self_instruct_seeds_en_175.jsonl.zst", "self_instruct", LESSONS, 175, 175, {}),
    ("self_instruct_seeds_zh_175.jsonl.zst", "self_instruct", LESSONS, 175, 175, {}),
    ("sharegpt_zh.jsonl.zst", "messages", LESSONS, 991, 990, {"no answer to learn from": 1}),
    ("tinyshakespeare.txt.zst", "text", LESSONS, 40_000, 32_777, {"'text' is empty": 7_223}),
    ("toolcall_en_300.jsonl.zst", "messages", LESSONS, 300, 300, {}),
    ("user_oriented_252.jsonl.zst", "self_instruct", LESSONS, 252, 252, {}),
    ("wiki_demo_en.txt.zst", "text", LESSONS, 30, 30, {}),
    ("wizardlm_testset_218.jsonl.zst", "prompts", (Prompt,), 218, 218, {}),
    ("zh_review_pairs_3k.jsonl.zst", "chosen_rejected", PAIRS, 3_000, 3_000, {}),
]

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data")


def read(name, learns_from):
    """A file's format, its samples, how many rows it has, and the report."""
    source, report = Source(path=str(SHARED / name)), SourceReport()
    format = format_of(source, learns_from)
    rows = list(source.rows())
    samples = [one for place, row in rows for one in samples_of(source, format, place, row, report)]
    return formats.name_of(format), samples, len(rows), report


@pytest.mark.parametrize(
    ("name", "format", "learns_from", "rows", "samples", "dropped"),
    [pytest.param(*file, marks=[pytest.mark.slow] if file[3] > 5000 else []) for file in FILES],
)
def test_a_file_loads_without_options(name, format, learns_from, rows, samples, dropped):
    found, read_samples, read_rows, report = read(name, learns_from)
    assert (found, read_rows, len(read_samples)) == (format, rows, samples)
    assert {why: one.count for why, one in report.dropped.items()} == dropped


def test_every_file_is_here():
    told = (SHARED / "README.md").read_text(encoding="utf-8")
    listed = {line.split("|")[1].strip() for line in told.splitlines() if line.startswith("| ") and ".jsonl" in line}
    assert listed - {name for name, *_ in FILES} == set()


def test_pairs_of_the_trees_are_those_of_the_file_made_from_them():
    _, ours, *_ = read("oasst_en_trees_100.jsonl.zst", PAIRS)
    _, theirs, *_ = read("oasst_en_pairs.jsonl.zst", PAIRS)
    made = {(pair.prompt[-1].content.strip(), pair.chosen[0].content.strip()) for pair in theirs}
    assert {(pair.prompt[-1].content.strip(), pair.chosen[0].content.strip()) for pair in ours} <= made


def test_four_answers_train_on_the_first_two():
    _, pairs, *_ = read("oasst_zh_rm.jsonl.zst", PAIRS)
    rows = [row for _, row in Source(path=str(SHARED / "oasst_zh_rm.jsonl.zst")).rows()]
    first_two = [tuple(row["output"][:2]) for row in rows if row["output"][0] != row["output"][1]]
    assert [(pair.chosen[0].content, pair.rejected[0].content) for pair in pairs] == first_two
    assert max(len(row["output"]) for row in rows) == 10


def test_calls_of_tools_are_found():
    _, chats, *_ = read("toolcall_en_300.jsonl.zst", LESSONS)
    assert sum("tool_calls" in message.facts for chat in chats for message in chat.messages) == 211
    assert sum(message.role == "tool" for chat in chats for message in chat.messages) == 211

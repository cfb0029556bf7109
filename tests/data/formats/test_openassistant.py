"""Trees of messages: which threads become chats, and which replies become pairs."""

from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from danlu.data.formats import formats
from danlu.data.formats.base import Unreadable


def said(text, *replies, **facts):
    """A message with its replies; a capital letter is the prompter's."""
    role = "prompter" if text[0].isupper() else "assistant"
    return {"text": text, "role": role, "lang": "en", "review_result": True, "replies": list(replies), **facts}


def tree(root, **facts):
    return {"message_tree_id": "1", "tree_state": "ready_for_export", "prompt": root, **facts}


def chats(row, **settings):
    """Each chat's words end to end."""
    read = formats["openassistant"](**settings).read(row)
    return ["".join(message.content for message in chat.messages) for chat in read]


def pairs(row, **settings):
    read = formats["openassistant_ranked"](**settings).read(row)
    return [
        ("".join(one.content for one in pair.prompt), pair.chosen[0].content, pair.rejected[0].content) for pair in read
    ]


FORKED = said("Q", said("a", said("R", said("b"), said("c"))), said("d", rank=1), said("e", said("S"), said("T")))


def test_each_leaf_is_a_chat_and_shared_turns_repeat():
    assert chats(tree(FORKED)) == ["QaRb", "QaRc", "Qd", "Qe"]


def test_every_chat_alternates_and_ends_with_an_answer():
    for chat in formats["openassistant"]().read(tree(FORKED)):
        assert [message.role for message in chat.messages] == ["user", "assistant"] * (len(chat.messages) // 2)
        assert [message.train for message in chat.messages] == [False, True] * (len(chat.messages) // 2)


def test_of_unanswered_questions_only_the_first_stands_for_their_parent():
    assert chats(tree(said("Q", said("a", said("R"), said("S"), said("T", said("b")))))) == ["Qa", "QaTb"]
    # the first reply went on, so the parent is in a longer chat already
    assert chats(tree(said("Q", said("a", said("R", said("b")), said("S"))))) == ["QaRb"]


@pytest.mark.parametrize("flaw", [{"deleted": True}, {"synthetic": True}])
def test_a_thread_with_a_message_that_no_person_stands_by_is_left_out(flaw):
    assert chats(tree(said("Q", said("a", said("R", said("b")), **flaw), said("c")))) == ["Qc"]
    with pytest.raises(Unreadable, match="without a thread of people's own words"):
        chats(tree(said("Q", said("a"), **flaw)))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (tree(FORKED, tree_state="growing"), "a tree that is 'growing'"),
        (tree(FORKED | {"review_result": False}), "no review has approved"),
        (tree({key: value for key, value in FORKED.items() if key != "review_result"}), "no review has approved"),
        (tree(FORKED | {"lang": "de"}), r"a tree in 'de' \(languages: en\)"),
        (tree(said("Q")), "without a thread"),
        (tree(said("Q", said("R"))), "where 'assistant' speaks"),
        (tree(said("Q", said("a") | {"text": None})), "holds NoneType, not text"),
        (tree(said("Q") | {"replies": [3]}), "'replies' is not a list of messages"),
        (tree(None), "'prompt' is no message"),
    ],
)
def test_a_tree_that_is_not_read_says_why(row, reason):
    with pytest.raises(Unreadable, match=reason):
        chats(row)


def test_other_languages_are_an_option():
    assert chats(tree(FORKED | {"lang": "de"}), languages=["de", "zh"]) == ["QaRb", "QaRc", "Qd", "Qe"]


def test_only_the_best_ranks_are_an_option():
    row = tree(said("Q", said("a", rank=1), said("b", rank=0), said("c", rank=2), said("d", rank=None)))
    assert chats(row, top_k=1) == ["Qb"]
    assert chats(row, top_k=2) == ["Qa", "Qb"]
    assert chats(tree(said("Q", said("a", said("R", said("b", rank=0)), rank=None))), top_k=1) == ["QaRb"]


RANKED = said(
    "Q", said("a", rank=2), said("b", said("R", said("d", rank=1), said("e", rank=0)), rank=0), said("c", rank=1)
)


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("best_worst", [("Q", "b", "a"), ("QbR", "e", "d")]),
        ("neighbours", [("Q", "b", "c"), ("Q", "c", "a"), ("QbR", "e", "d")]),
        ("all", [("Q", "b", "c"), ("Q", "b", "a"), ("Q", "c", "a"), ("QbR", "e", "d")]),
    ],
)
def test_ranked_replies_are_pairs(which, expected):
    assert pairs(tree(RANKED), pairs=which) == expected


def test_replies_without_a_rank_are_in_no_pair():
    row = tree(said("Q", said("a", rank=1), said("b"), said("c", rank=0)))
    assert pairs(row) == [("Q", "c", "a")]
    with pytest.raises(Unreadable, match="without two ranked replies"):
        pairs(tree(said("Q", said("a", rank=0), said("b"))))


@st.composite
def trees(draw, depth=0):
    """A tree of messages whose roles alternate."""
    letter = draw(st.sampled_from("ABC" if depth % 2 == 0 else "abc"))
    replies = draw(st.lists(trees(depth + 1), max_size=3)) if depth < 4 else []
    flaws = draw(st.sampled_from([{}, {}, {}, {"deleted": True}, {"synthetic": True}]))
    return said(letter, *replies, **flaws)


def leaves(node, clean=True, first=True):
    """How many chats a tree holds, counted from the leaves up."""
    clean = clean and not (node.get("deleted") or node.get("synthetic"))
    if node["replies"]:
        return sum(leaves(reply, clean, n == 0) for n, reply in enumerate(node["replies"]))
    return int(clean and (node["role"] == "assistant" or first))


@settings(max_examples=50, deadline=None)
@given(trees())
def test_there_are_as_many_chats_as_kept_leaves(root):
    row, alone = tree(root), not root["replies"]
    before = deepcopy(row)
    try:
        found = len(chats(row))
    except Unreadable:
        found = 0
    assert found == (0 if alone else leaves(root))
    assert row == before

"""Three numbers of DeepSpeed's and one of ours: the same rows a step, whichever of the three are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.core.errors import UserError
from danlu.dialects.batch_size import ACCUMULATION, MICRO, TOTAL
from danlu.dialects.deepspeed import deepspeed

numbers = st.integers(1, 40)


@given(micro=numbers, passes=numbers, ranks=numbers, left_out=st.sampled_from([TOTAL, MICRO, ACCUMULATION, "none"]),
       word=st.sampled_from([None, "auto"]))  # fmt: skip
def test_any_valid_triple_gives_the_same_rows(micro, passes, ranks, left_out, word):
    tree = {TOTAL: micro * passes * ranks, MICRO: micro, ACCUMULATION: passes}
    tree |= {left_out: word} if left_out != "none" else {}
    assert deepspeed(tree, ranks).settings["data.batch"] == {"rows": micro * passes * ranks}


@given(total=numbers, micro=numbers | st.none(), passes=numbers | st.none(), ranks=st.integers(1, 8))
def test_what_deepspeed_refuses_is_refused_and_what_it_takes_is_the_same(total, micro, passes, ranks):
    # DeepSpeed divides with what is left over dropped, then asks whether the product is what was said
    theirs_micro = micro or total // ranks // (passes or 1)
    theirs_passes = passes or (total // micro // ranks if micro else 1)
    agrees = theirs_micro > 0 and theirs_passes > 0 and total == theirs_micro * theirs_passes * ranks
    tree = {TOTAL: total, MICRO: micro, ACCUMULATION: passes}
    if agrees or (micro is None and passes is None):  # alone, the total contradicts nothing: shares need not be equal
        assert deepspeed(tree, ranks).settings["data.batch"] == {"rows": total}
    else:
        with pytest.raises(UserError, match="do not agree"):
            deepspeed(tree, ranks)


def test_a_micro_batch_alone_is_one_pass():
    assert deepspeed({MICRO: 4}, 2).settings["data.batch"] == {"rows": 8}


def test_the_effective_batch_is_told():
    reading = deepspeed({MICRO: 4, ACCUMULATION: 8}, 2, "ds.json")
    assert f"ds.json: {MICRO} 4 x {ACCUMULATION} 8 x 2 ranks -> data.batch: {{rows: 64}}" in reading.told


def test_numbers_that_contradict_each_other_are_named():
    with pytest.raises(UserError) as error:
        deepspeed({TOTAL: 60, MICRO: 4, ACCUMULATION: 8}, 2, "ds.json")
    assert "train_batch_size 60, train_micro_batch_size_per_gpu 4, gradient_accumulation_steps 8" in str(error.value)
    assert "ds.json: train_batch_size" in str(error.value)


@pytest.mark.parametrize("tree", [{}, {TOTAL: "auto", MICRO: "auto"}, {ACCUMULATION: 4}])
def test_without_rows_the_recipe_keeps_its_batch(tree):
    assert "data.batch" not in deepspeed(tree, 4).settings


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "four", float("inf"), float("nan")])
def test_what_is_no_number_of_rows_is_refused(wrong):
    with pytest.raises(UserError, match=MICRO):
        deepspeed({MICRO: wrong}, 1)

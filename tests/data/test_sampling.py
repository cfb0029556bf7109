"""The arithmetic of sampling policies, apart from every screen."""

import pytest

from danlu.core.errors import UserError
from danlu.data.sampling import Sampling, size_of


def test_raw_sizes_become_shares():
    assert Sampling.of({"news": 253, "qa": 121, "wiki": 130}).original() == {
        "news": 0.502,
        "qa": 0.2401,
        "wiki": 0.2579,
    }


def test_a_share_says_how_much_is_drawn_and_how_often_each_row_comes():
    sampling = Sampling.of({"zh": 1.62, "en": 14.37}).with_ratio("zh", 0.3)
    chinese, english = sampling.sources
    assert chinese.share == pytest.approx(0.101313, abs=1e-6)
    assert chinese.epochs == 2.96  # 0.3 / 0.1013
    assert chinese.drawn == pytest.approx(0.3 * 15.99)
    assert (english.epochs, english.drawn) == (1.0, pytest.approx(14.37))
    assert sampling.left == pytest.approx(1 - 0.3 - 14.37 / 15.99)  # more is drawn than there is: allowed, and told
    assert sampling.policy() == {"zh": 0.3, "en": 0.8987}


def test_what_is_not_given_is_left():
    sampling = Sampling.of({"a": 1, "b": 1, "c": 2}, {"a": 0.1, "b": 0.2, "c": 0.3})
    assert sampling.left == pytest.approx(0.4)
    assert [one.epochs for one in sampling.sources] == [0.4, 0.8, 0.6]


@pytest.mark.parametrize("sizes", [{}, {"a": 0}, {"a": -1, "b": 2}])
def test_sizes_are_above_zero(sizes):
    with pytest.raises(UserError, match="numbers above 0"):
        Sampling.of(sizes)


def test_an_unknown_source_is_refused():
    with pytest.raises(UserError, match="no source is called 'c'; the sources are a, b"):
        Sampling.of({"a": 1, "b": 1}, {"c": 0.1})


def test_sizes_are_written_for_people():
    assert [size_of(n) for n in (200, 1300, 1.3e9, 2e12)] == ["200B", "1.3KB", "1.3GB", "2.0TB"]

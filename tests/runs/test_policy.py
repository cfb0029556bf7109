"""`danlu data policy`: sizes in, a policy file out that a mixture reads."""

import io
import json

import pytest
from rich.console import Console

from danlu.core.errors import UserError
from danlu.data.config import DataConfig
from danlu.data.mixtures.policy import Policy
from danlu.runs.policy import policy, sizes_of, sizes_of_sources


@pytest.fixture
def screen() -> Console:
    return Console(file=io.StringIO(), width=200)


def written(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


@pytest.mark.parametrize("text", ['{"中文维基":1.62,"英文维基":14.37}', "中文维基,英文维基\n1.62, 14.37\n"])
def test_sizes_are_pasted_as_json_or_as_two_lines(text):
    assert sizes_of(text) == {"中文维基": 1.62, "英文维基": 14.37}


WRONG = [
    "__import__('os').getcwd()", "{'a': 1}", "a,b\n1", '{"a": 0}', '{"a": true}', '{"a": "1"}', "a,b\nx,y", "[1]",
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_whatever_else_is_pasted_is_refused_and_never_run(text):
    with pytest.raises(UserError, match="sizes are"):
        sizes_of(text)


def test_shares_are_given_and_the_file_is_what_a_mixture_reads(tmp_path, screen):
    to = tmp_path / "policy.json"
    policy({"wiki": 130, "news": 253, "qa": 121}, ["news=50.2", "qa=80.01%", "wiki=10"], to=to, console=screen)
    assert json.loads(to.read_text()) == {"wiki": 0.1, "news": 0.502, "qa": 0.8001}
    Policy(file=to).check(["wiki", "news", "qa"])
    assert "40.21% more is drawn than there is" in written(screen)
    assert "3.33" in written(screen)  # epochs of qa
    assert 'original: {"wiki": 0.2579, "news": 0.502, "qa": 0.2401}' in written(screen)


def test_shares_are_typed_until_nothing_more_is(tmp_path, screen):
    typed = iter(["wiki 30", "wikki 3", "wiki many", "wiki 100", "the news 20", ""])
    found = policy({"wiki": 1, "the news": 1}, ask=lambda _: next(typed), console=screen)
    assert found.policy() == {"wiki": 0.3, "the news": 0.2}
    for words in ("did you mean 'wiki'", "'many' is no percentage", "below 100 %", "50.00% is left"):
        assert words in written(screen)


@pytest.mark.parametrize("share", ["wiki", "wiki=0", "wiki=100", "wiki=nan", "news=3"])
def test_a_wrong_share_is_refused(share, screen):
    with pytest.raises(UserError):
        policy({"wiki": 1, "qa": 1}, [share], console=screen)


def test_a_recipe_is_weighed_by_its_files(tmp_path, screen):
    for name, size in (("one", 300), ("two", 100)):
        (tmp_path / f"{name}.txt").write_bytes(b"x" * size)
    sizes = sizes_of_sources(DataConfig(sources=[str(tmp_path / "one.txt"), str(tmp_path / "two.txt")]))
    assert sizes == {"one": 300, "two": 100}
    assert policy(sizes, console=screen).policy() == {"one": 0.75, "two": 0.25}


def test_a_policy_of_one_source_alone_is_not_written(tmp_path, screen):
    with pytest.raises(UserError, match="give it a share"):
        policy({"one": 1}, to=tmp_path / "policy.json", console=screen)

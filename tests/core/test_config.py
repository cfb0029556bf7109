"""A recipe says what is meant or what is wrong with it, and can start nothing but what danlu has."""

import subprocess
import sys

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from danlu.core.config import LIMIT_BYTES, load, read_tree, to_yaml
from danlu.core.errors import UserError


@pytest.fixture
def read(shop, tmp_path):
    """Load a recipe's text, with overrides, into `shop.Run`."""

    def read(text: str, *overrides: str):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return load(shop.Run, read_tree(path), overrides, origin="recipe.yaml")

    return read


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "0.0001"])
def test_a_number_in_any_spelling_is_a_number(read, text):
    assert read(f"lr: {text}").lr == 1e-4
    assert read("", f"lr={text}").lr == 1e-4


def test_an_empty_recipe_is_all_defaults(read, shop):
    assert read("") == read("# nothing\n") == shop.Run()


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        ("lrr: 1", [], "recipe.yaml: lrr: unknown key; did you mean 'lr'?"),
        ("model: {pth: x}", [], "recipe.yaml: model.pth: unknown key; did you mean 'path'?"),
        ("loss: {name: dpo, betta: 1}", [], "recipe.yaml: loss.betta: unknown key; did you mean 'beta'?"),
        ("loss: {name: hinge, margin: 1, slope: {lft: 1}}", [], "loss.slope.lft: unknown key; did you mean 'left'?"),
        ("extra_losses: [{name: dpo, betta: 1}]", [], "extra_losses.0.betta: unknown key; did you mean 'beta'?"),
        ("zzz: 1", [], "zzz: unknown key (known: model, loss, extra_losses, lr, epochs, note, allow_code)"),
        ("loss: dpoo", [], "recipe.yaml: loss: shop.losses has no 'dpoo'; did you mean 'dpo'?"),
        ("loss: dpo", ["loss.betta=1"], "loss.betta: unknown key; did you mean 'beta'?"),
        ("", ["lrr=1"], "lrr: unknown key; did you mean 'lr'?"),
        ("", ["loss.beta=1"], "loss: needs a name, one of: dpo, exotic, hinge"),
        ("loss: hinge", [], "recipe.yaml: loss.margin: Field required"),
        ("lr: quick", [], "recipe.yaml: lr: Input should be a valid number"),
        ("lr: quick", [], "(found 'quick')"),
        ("epochs: 1.5", [], "recipe.yaml: epochs: Input should be a valid integer"),
        ("lr: .nan", [], "recipe.yaml: lr: Input should be a finite number"),
        ("", ["lr"], "'lr': an override is written key=value"),
        ("", ["=1"], "'=1': an override is written key=value"),
        ("", ["lr={"], "recipe.yaml: "),
        ("- lr: 1", [], "a recipe is a mapping of keys to values, found ListConfig"),
        ("lr: 1\nlr: 2", [], "found duplicate key lr"),
        ("lr: [1", [], "recipe.yaml: not a YAML recipe"),
        ("model: {path: '${nowhere}'}", [], "Interpolation key 'nowhere' not found"),
        ("model: {path: '${model.path}'}", [], "Recursive interpolation"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(read, text, overrides, words):
    with pytest.raises(UserError) as caught:
        read(text, *overrides)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_every_wrong_place_has_its_line(read):
    with pytest.raises(UserError) as caught:
        read("model: {pth: x}\nloss: {name: dpo, betta: 1}\nlr: quick")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["model.pth", "loss.betta", "lr"]


def test_overrides_win_in_their_order(read):
    run = read("loss: {name: dpo, beta: 0.2}\nlr: 1", "loss.beta=0.3", "lr=2", "lr=3", "model.path=there")
    assert (run.loss.beta, run.lr, run.model.path) == (0.3, 3.0, "there")


def test_an_override_reaches_into_a_part_given_by_its_name_alone(read):
    assert read("loss: dpo", "loss.beta=0.3").loss.beta == 0.3


def test_an_override_may_choose_another_part(read):
    run = read("loss: dpo", "loss={name: hinge, margin: 2}")
    assert (type(run.loss).__name__, run.loss.margin) == ("Hinge", 2.0)


def test_a_chosen_part_inherits_nothing_from_the_one_before(read):
    run = read("loss: {name: dpo, steps: 3}", "loss={name: dpo, beta: 0.5}")
    assert (run.loss.beta, run.loss.steps) == (0.5, 10)


def test_an_override_reaches_into_a_list(read):
    run = read("extra_losses: [dpo, {name: hinge, margin: 1}]", "extra_losses[1].margin=4")
    assert run.extra_losses[1].margin == 4.0


def test_an_override_may_quote_a_key(read):
    assert read("lr: 0.5\nloss: dpo", "loss.beta=${lr}").loss.beta == 0.5


def test_an_override_may_hold_equals_signs(read):
    assert read("", "model.path=a=b").model.path == "a=b"


def test_one_key_may_quote_another(read):
    assert read("lr: 0.5\nloss: {name: dpo, beta: '${lr}'}").loss.beta == 0.5
    assert read("lr: 0.5\nloss: {name: dpo, beta: '${lr}'}", "lr=0.25").loss.beta == 0.25
    assert read("model: {path: 'models/${loss.name}'}\nloss: {name: dpo}").model.path == "models/dpo"


def test_code_from_outside_runs_only_when_the_recipe_says_so(read):
    with pytest.raises(UserError, match=r"loss: 'outside:Mine' is code from outside danlu.*allow_code: true"):
        read("loss: {name: 'outside:Mine'}")
    assert "outside" not in sys.modules
    run = read("allow_code: true\nloss: {name: 'outside:Mine', tau: 3.0}")
    assert run.loss.of(1) == 4.0
    assert "outside:Mine" in to_yaml(run)


@pytest.mark.parametrize("answer", ["'true'", "1", "yes please", "[true]", "{a: true}", "'yes'"])
def test_only_true_allows_code(read, answer):
    with pytest.raises(UserError, match="outside danlu"):
        read(f"allow_code: {answer}\nloss: {{name: 'outside:Mine'}}")


@pytest.mark.parametrize(
    "name", ["os:system", "builtins:eval", "shop.losses.base:Loss2", "torch:load", "outside:Nobody"]
)
def test_allowed_code_must_still_be_a_part(read, name):
    with pytest.raises(UserError, match="should be one Loss"):
        read(f"allow_code: true\nloss: {{name: '{name}'}}")


def test_the_resolved_run_reads_back_equal(read):
    run = read(
        "loss: {name: hinge, margin: 2}\nextra_losses: [dpo, {name: dpo, beta: 1e-5}]\nlr: 3e-4\nmodel: {path: 模型}"
    )
    text = to_yaml(run)
    assert yaml.safe_load(text)["loss"] == {"name": "hinge", "margin": 2.0, "slope": {"left": 1.0}}
    assert "模型" in text
    assert read(text) == run
    assert to_yaml(read(text)) == text


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lr=st.floats(allow_nan=False, allow_infinity=False),
    epochs=st.integers(-(2**53), 2**53),
    path=st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="$\\")),
)
def test_any_run_reads_back_equal(read, shop, lr, epochs, path):
    run = shop.Run(lr=lr, epochs=epochs, model={"path": path})
    assert read(to_yaml(run)) == run


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {marker}']",
        "lr: !!python/object/apply:os.system ['touch {marker}']",
        "lr: !!python/object:os.system {{}}",
        "lr: !!python/name:os.system",
        "lr: !!python/module:os",
        "lr: !!binary aGk=",
        "_target_: os.system\nargs: ['touch {marker}']",
        "loss: {{_target_: os.system, _args_: ['touch {marker}']}}",
        "loss: {{name: dpo, _target_: os.system}}",
        "loss: {{name: 'os:system'}}",
    ],
)
def test_no_recipe_starts_code(read, tmp_path, text):
    with pytest.raises(UserError):
        read(text.format(marker=tmp_path / "marker"))
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:DANLU_SECRET}",
        "${oc.env:DANLU_SECRET,none}",
        "a ${oc.env:DANLU_SECRET} b",
        "${oc.decode:'1'}",
        "${ oc.env:DANLU_SECRET}",
        "${${note}.env:DANLU_SECRET}",
    ],
)
def test_a_recipe_cannot_read_the_environment(shop, monkeypatch, text):
    monkeypatch.setenv("DANLU_SECRET", "hush")
    for tree, overrides in [({"model": {"path": text}}, []), ({}, [f"model.path={text}"])]:
        with pytest.raises(UserError) as caught:
            load(shop.Run, {"note": "oc", **tree}, overrides)
        assert "hush" not in str(caught.value)


def test_an_override_below_a_reference_follows_no_forbidden_one(shop, monkeypatch):
    monkeypatch.setenv("DANLU_SECRET", "hush")
    with pytest.raises(UserError, match=r"loss: only `\$\{key\}` is known, found '\$\{oc.env:DANLU_SECRET\}'"):
        load(shop.Run, {"loss": "${oc.env:DANLU_SECRET}"}, ["loss.beta=1"])


@pytest.mark.parametrize("text", [r"\${lr}", "${.lr}", "${lr", "${}", "${lr, 1}"])
def test_a_text_that_is_almost_a_reference_is_refused(read, text):
    with pytest.raises(UserError):
        read(f"note: '{text}'")


BOMBS = {
    "aliases": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)),
    "references": "a0: [x]\n" + "".join(f"a{i}: [{', '.join([f'${{a{i - 1}}}'] * 10)}]\n" for i in range(1, 12)),
    "words": "a0: x\n" + "".join(f"a{i}: '{f'${{a{i - 1}}}' * 10}'\n" for i in range(1, 12)),
    "itself": "a: &a [*a]",
    "depth": "a: " + "[" * 5000 + "]" * 5000,
    "keys": "{" * 5000 + "}" * 5000,
    "length": "a: " + "x" * LIMIT_BYTES,
    "nothing but zeros": "\0" * 100,
}
READ_A_BOMB = """
import resource, sys
from pathlib import Path
from danlu.core.config import load, read_tree
from danlu.core.errors import UserError
from danlu.core.parts import Config
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
try:
    load(Config, read_tree(Path(sys.argv[1])))
except UserError as error:
    print("refused:", str(error)[:80])
"""


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_in_little_time_and_memory(bomb, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(BOMBS[bomb])
    command = [sys.executable, "-c", READ_A_BOMB, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.startswith("refused: "), done.stderr[-500:]


def test_a_recipe_that_is_no_text_is_refused(read, tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"lr: \xff\xfe")
    with pytest.raises(UserError, match="not a YAML recipe"):
        read_tree(tmp_path / "bytes.yaml")

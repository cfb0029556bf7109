"""A part is its own settings; a folder is the list of parts; the file name is the part's name."""

import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from danlu.core.optional import extras, install_command


def test_a_folder_lists_its_files_and_imports_none(shop):
    assert list(shop.losses) == ["dpo", "exotic", "hinge"]
    assert "shop.losses.dpo" not in sys.modules


def test_a_part_is_found_by_its_file_name_and_tells_it(shop):
    part = shop.losses["dpo"]
    assert part.__name__ == "DPO"
    assert shop.losses.name_of(part()) == "dpo"


def test_a_new_file_is_a_new_part(shop):
    (shop.root / "shop/losses/square.py").write_text(
        "from shop.losses.base import Loss\nclass Square(Loss):\n    def of(self, x): return x * x\n"
    )
    assert "square" in shop.losses
    assert shop.Run(loss="square").loss.of(3) == 9


def test_an_unknown_name_is_told_the_nearest_one(shop):
    with pytest.raises(ValueError, match="no 'dpoo'; did you mean 'dpo'"):
        shop.losses["dpoo"]
    with pytest.raises(ValueError, match=r"no 'zzz' \(known: dpo, exotic, hinge\)"):
        shop.losses["zzz"]


@pytest.mark.parametrize("name", ["base", "_draft", "..run", "dpo.x", "", "os"])
def test_only_parts_are_parts(shop, name):
    with pytest.raises(ValueError, match=r"has no|should be one"):
        shop.losses[name]


def test_a_file_of_two_parts_is_refused(shop):
    (shop.root / "shop/losses/two.py").write_text(
        "from shop.losses.base import Loss\nclass Two(Loss): pass\nclass Three(Loss): pass\n"
    )
    with pytest.raises(ValueError, match="should be one Loss"):
        shop.losses["two"]


def test_a_part_may_stand_alone_or_with_settings(shop):
    assert shop.Run(loss="dpo") == shop.Run(loss={"name": "dpo"}) == shop.Run()
    assert shop.Run(loss={"name": "dpo", "beta": 0.5}).loss.of(2) == 1.0
    ready = shop.losses["dpo"](beta=0.5)
    assert shop.Run(loss=ready).loss is ready


@pytest.mark.parametrize("value", [3, {}, {"name": 3}, {"beta": 0.1}, ["dpo"], None])
def test_a_part_without_a_name_is_asked_for_one(shop, value):
    with pytest.raises(ValidationError, match="needs a name, one of: dpo, exotic, hinge"):
        shop.Run(loss=value)


def test_parts_in_a_list(shop):
    run = shop.Run(extra_losses=["dpo", {"name": "hinge", "margin": 1.0}])
    assert [type(loss).__name__ for loss in run.extra_losses] == ["DPO", "Hinge"]


def test_a_part_whose_package_is_missing_says_how_to_get_it(shop):
    with pytest.raises(ValidationError, match="needs the package 'bitsandbytes_of_another_planet': pip install"):
        shop.Run(loss="exotic")


def test_the_schema_carries_the_help_and_the_choices(shop):
    (shop.root / "shop/losses/hinge.py").unlink()
    schema = shop.Run.model_json_schema()
    dpo, exotic = schema["properties"]["loss"]["oneOf"]
    assert schema["properties"]["lr"]["description"] == "the step size"
    assert dpo["properties"]["name"] == {"const": "dpo"}
    assert dpo["properties"]["beta"]["description"] == "how strongly the policy is held to the reference"
    assert dpo["required"] == ["name"]
    assert exotic["description"].startswith("needs bitsandbytes_of_another_planet: pip install")


def test_a_part_with_a_section_of_its_own_has_a_schema(shop):
    schema = shop.Run.model_json_schema()
    hinge = schema["properties"]["loss"]["oneOf"][2]
    assert hinge["required"] == ["name", "margin"]
    section = schema["$defs"][hinge["properties"]["slope"]["$ref"].rpartition("/")[2]]
    assert section["properties"]["left"]["description"] == "below the margin"


def test_parts_and_configs_are_frozen(shop):
    run = shop.Run()
    with pytest.raises(ValidationError, match="frozen"):
        run.lr = 1.0
    with pytest.raises(ValidationError, match="frozen"):
        run.loss.beta = 1.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "fast", None])
def test_a_number_is_a_finite_number(shop, value):
    with pytest.raises(ValidationError, match="lr"):
        shop.Run(lr=value)


def test_defaults_are_checked_too(shop):
    (shop.root / "shop/losses/wrong.py").write_text(
        "from shop.losses.base import Loss\nclass Wrong(Loss):\n    beta: float = 'much'\n"
    )
    with pytest.raises(ValidationError, match="valid number"):
        shop.losses["wrong"]()


def test_the_extras_are_those_of_pyproject():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    listed = [
        f"{need}; extra == '{name}'" for name, needs in project["optional-dependencies"].items() for need in needs
    ]
    found = extras([*project["dependencies"], *listed])
    assert found["bitsandbytes"] == "quant"
    assert found["lm_eval"] == "eval"  # installed as lm-eval
    assert found["datasets"] == "data"  # in dev too
    assert "torch" not in found
    assert "pytest" not in found


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr("danlu.core.optional.requires", lambda name: ["wandb>=0.21; extra == 'tracking'", "torch>=2"])
    assert install_command("wandb.sdk") == "pip install 'danlu[tracking]'"
    assert install_command("torch") == "pip install torch"

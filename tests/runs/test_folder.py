"""A run's folder: found, named, never written over, and complete without secrets."""

import json
from pathlib import Path

import pytest

from danlu.core.errors import UserError
from danlu.core.lock import Lock
from danlu.runs.environment import commit, environment
from danlu.runs.folder import RunFolder, is_run_folder

YAML = "objective: {name: sft}\n"


def begin(path: Path) -> RunFolder:
    folder = RunFolder(path)
    with Lock(folder.lock):
        folder.create(YAML)
    return folder


def test_a_begun_run_keeps_its_recipe_and_machine(tmp_path):
    folder = begin(tmp_path / "runs" / "sft")
    assert is_run_folder(folder.path)
    assert folder.run_yaml.read_text() == YAML
    facts = json.loads(folder.environment.read_text())
    assert {"torch", "transformers", "danlu", "python"} <= set(facts["versions"])
    assert facts["cpu"]["threads"] >= 1
    assert not folder.lock.exists()


@pytest.mark.parametrize("name", ["run.yaml", "metrics.jsonl", "checkpoints", "final"])
def test_a_folder_that_holds_a_run_is_never_written_over(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=rf"already holds a run \({name}\).*danlu resume {tmp_path}"):
        begin(tmp_path)


def test_other_peoples_files_are_no_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert not is_run_folder(tmp_path)
    begin(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_resumed_run_keeps_what_it_ran_on_before(tmp_path):
    folder = begin(tmp_path)
    for starts in (2, 3):
        folder.record_environment()
        facts = json.loads(folder.environment.read_text())
        assert len(facts["earlier"]) == starts - 1
        assert "earlier" not in facts["earlier"][0]


def test_runs_of_a_recipe_are_numbered_and_the_newest_is_found(tmp_path):
    assert RunFolder.latest("sft", tmp_path) is None
    names = []
    for _ in range(11):
        folder = RunFolder.fresh("sft", tmp_path)
        begin(folder.path)
        names.append(folder.path.name)
    assert names == ["sft", *(f"sft-{number}" for number in range(2, 12))]
    begin(tmp_path / "sft-lora")
    begin(tmp_path / "sft-lora-40")
    assert RunFolder.latest("sft", tmp_path).path.name == "sft-11"


def test_a_fresh_folder_is_not_one_that_holds_something_else(tmp_path):
    (tmp_path / "sft").mkdir()
    assert RunFolder.fresh("sft", tmp_path).path.name == "sft"
    (tmp_path / "sft" / "notes.txt").write_text("mine")
    assert RunFolder.fresh("sft", tmp_path).path.name == "sft-2"


def test_a_removed_run_in_between_is_not_filled_again(tmp_path):
    begin(tmp_path / "sft")
    begin(tmp_path / "sft-3")
    assert RunFolder.fresh("sft", tmp_path).path.name == "sft-4"


def test_recipe_names_are_not_patterns(tmp_path):
    begin(tmp_path / "a.b")
    begin(tmp_path / "axb")
    assert RunFolder.latest("a.b", tmp_path).path.name == "a.b"


def test_the_environment_holds_no_secrets(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("sys.argv", ["danlu", "--token=hf_secret"])
    assert "hf_secret" not in json.dumps(environment())


def test_outside_git_there_is_no_commit(tmp_path):
    assert commit(tmp_path) is None

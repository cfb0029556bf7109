"""Files and folders are whole or absent, also when the process is killed while it writes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from danlu.core.files import folder_at_once, fsync, sha256_of, sweep, write_atomic, write_json

# Writes for ever: first an even file, then an odd one. Whoever reads must find one of the two, whole.
WRITE_FILES = """
import sys
from pathlib import Path
from danlu.core.files import write_atomic
path, turn = Path(sys.argv[1]) / "state", 0
while True:
    write_atomic(path, str(turn % 10) * 300_000)
    turn += 1
"""
WRITE_FOLDERS = """
import sys
from pathlib import Path
from danlu.core.files import folder_at_once
step = 0
while True:
    with folder_at_once(Path(sys.argv[1]) / f"step-{step}") as folder:
        for name in ("a", "b", "c"):
            (folder / name).write_text(str(step) * 50_000)
    step += 1
"""
# Dies (no clean-up runs) at its N-th call of anything that changes the disk.
DIE_AT = """
import os, sys
from pathlib import Path
from danlu.core import files
count, last = 0, int(sys.argv[2])
def deadly(real):
    def call(*args, **kwargs):
        global count
        count += 1
        if count > last:
            os._exit(9)
        return real(*args, **kwargs)
    return call
for name in ("rename", "replace", "fsync", "mkdir"):
    setattr(os, name, deadly(getattr(os, name)))
root = Path(sys.argv[1])
with files.folder_at_once(root / "step") as folder:
    (folder / "weights").write_text("w" * 1000)
    files.write_json(folder / "manifest.json", {"weights": 1000})
"""


def killed_after(code: str, folder: Path, seconds: float) -> None:
    """Run a program and kill it without warning."""
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    deadline = time.monotonic() + 30
    while not any(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(seconds)
    process.kill()
    process.wait()


@pytest.mark.parametrize("seconds", [0.0, 0.011, 0.023, 0.037, 0.05])
def test_a_killed_writer_leaves_a_whole_file(tmp_path, seconds):
    write_atomic(tmp_path / "state", "9" * 300_000)
    killed_after(WRITE_FILES, tmp_path, seconds)
    text = (tmp_path / "state").read_text()
    assert len(text) == 300_000
    assert len(set(text)) == 1
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("seconds", [0.0, 0.011, 0.023, 0.037, 0.05])
def test_a_killed_writer_leaves_only_whole_folders(tmp_path, seconds):
    killed_after(WRITE_FOLDERS, tmp_path, seconds)
    sweep(tmp_path)
    for folder in tmp_path.iterdir():
        step = folder.name.removeprefix("step-")
        assert {path.name: path.read_text() for path in folder.iterdir()} == dict.fromkeys("abc", step * 50_000)


def test_a_death_at_every_step_leaves_all_or_nothing(tmp_path):
    seen = []
    for last in range(40):
        root = tmp_path / str(last)
        root.mkdir()
        done = subprocess.run([sys.executable, "-c", DIE_AT, str(root), str(last)], check=False)
        whole = root / "step"
        if whole.exists():
            assert (whole / "weights").read_text() == "w" * 1000
            assert json.loads((whole / "manifest.json").read_text()) == {"weights": 1000}
        seen.append(whole.exists())
        sweep(root)
        assert [path.name for path in root.iterdir()] == ["step"] * whole.exists()
        if done.returncode == 0:
            break
    assert done.returncode == 0
    assert seen == sorted(seen)  # once it is there, it stays
    assert seen.count(False) > 5


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), folder_at_once(tmp_path / "deep/step") as folder:
        write_atomic(folder / "nowhere/a", "half")
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    write_atomic(tmp_path / "state", "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "state", "new")
    assert (tmp_path / "state").read_text() == "old"


def test_a_folder_takes_its_name_only_when_it_is_full(tmp_path):
    with folder_at_once(tmp_path / "step") as folder:
        (folder / "inner").mkdir()
        (folder / "inner/a").write_text("1")
        assert not (tmp_path / "step").exists()
    assert (tmp_path / "step/inner/a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_a_folder_that_is_there_is_not_replaced(tmp_path):
    (tmp_path / "step").mkdir()
    (tmp_path / "step/a").write_text("first")
    with pytest.raises(OSError, match="empty"), folder_at_once(tmp_path / "step") as folder:
        write_atomic(folder / "a", "second")
    assert (tmp_path / "step/a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_everything_reaches_the_disk_before_it_is_named(tmp_path, monkeypatch):
    calls = []
    real_rename, real_fsync = os.rename, fsync
    monkeypatch.setattr("danlu.core.files.fsync", lambda path: (calls.append(path.name), real_fsync(path)))
    monkeypatch.setattr(os, "rename", lambda old, new: (calls.append("rename"), real_rename(old, new)))
    with folder_at_once(tmp_path / "step") as folder:
        (folder / "a").write_text("1")
        (folder / "b").write_text("2")
    assert calls[:2] == ["a", "b"]
    assert calls[3:] == ["rename", tmp_path.name]  # the folder itself is the third, the parent comes last


@pytest.mark.parametrize("content", ["", "丹炉\n", b"\x00\xff"])
def test_what_is_written_is_read(tmp_path, content):
    write_atomic(tmp_path / "a", content)
    assert (tmp_path / "a").read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_json_is_for_people(tmp_path):
    write_json(tmp_path / "a.json", {"name": "丹炉"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "name": "丹炉"\n}\n'


def test_a_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_sweeping_removes_only_what_was_half_written(tmp_path):
    for name in (".step.tmp-12345678", ".hidden", "tmp-1", "step.tmp-1"):
        (tmp_path / name).mkdir()
    (tmp_path / ".state.tmp-12345678").write_text("half")
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "step.tmp-1", "tmp-1"]

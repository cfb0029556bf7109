"""Checkpoints that are whole or absent: written aside, sealed, renamed; verified before they are trusted."""

import errno
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from danlu.core.errors import CheckpointError
from danlu.core.files import folder_at_once, sweep, write_atomic
from danlu.core.ranks import Ranks
from danlu.engine.checkpoint_folder import Checkpoint, Content, Writer, step_of, verified
from danlu.engine.manifest import Damaged, Manifest, Verify, differences, hash_of, versions

log = logging.getLogger(__name__)

NAME = re.compile(r"step-(\d+)")
PIN = "pinned"
"""a file of this name inside a checkpoint, made with `touch`, keeps it for ever"""
SPARE = 1.2
"""free space wanted before a save, in sizes of the last checkpoint"""


class Checkpoints:
    """The checkpoints of one run. The holder of its lock saves, sweeps and resumes; anybody may `Checkpoint.open`.

    `config` is the JSON tree that must not change between saving and resuming; `limit` is how many to keep, besides the
    best and the pinned ones (None keeps all). `failures` counts the saves that failed since the last that worked.
    """

    def __init__(
        self,
        folder: Path,
        limit: int | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        ranks: Ranks | None = None,
        verify: Verify = "hash",
    ) -> None:
        assert limit is None or limit > 0, "a limit of 0 would keep nothing to resume from"
        self.folder, self.limit, self.ranks = folder, limit, ranks or Ranks()
        self.verify: Verify = verify
        self.config = json.loads(json.dumps(dict(config or {})))  # as it will be read back: tuples are lists
        self.failures = 0
        self._may_differ = False

    def __iter__(self) -> Iterator[Path]:
        """The folders of all checkpoints, newest first; not verified."""
        found = [path for path in self.folder.glob("step-*") if NAME.fullmatch(path.name) and path.is_dir()]
        return iter(sorted(found, key=step_of, reverse=True))

    def sweep(self) -> None:
        """Clear what a killed process left half-written or half-deleted."""
        sweep(self.folder)

    def save(self, step: int, content: Content, *, best: bool = False) -> Path | None:
        """Write a checkpoint, every process its share of it; the first one begins it, seals it and names it.

        A step that is already saved is left as it is. A disk that is full, read-only or broken never stops the
        training: the half-written folder goes, the failure is logged and counted, and None is returned.
        """
        final = self.folder / f"step-{step:06d}"
        if not self.ranks.leads:
            return final if self._help(content) else None
        try:
            if not self._is_saved(final):
                self._make_room()
                self._write(final, partial(self._write_content, content, step, best))
        except (OSError, SafetensorError) as error:
            self.failures += 1
            log.error("%s WAS NOT SAVED (%s); training goes on. Failures in a row: %d", final, error, self.failures)
            self.ranks.first(False)
            return None
        self.failures = 0
        self._tidy(final, best)
        self.ranks.first(True)
        return final

    def _write_content(self, content: Content, step: int, best: bool, folder: Path) -> None:
        self.ranks.first(folder)
        problem = None
        try:
            content.write(folder, self.ranks.rank)
        except (OSError, SafetensorError) as error:
            problem = error
        problems = [each for each in self.ranks.gather(problem and str(problem)) if each is not None]
        if problem is not None or problems:
            raise problem or OSError(problems[0])
        facts = {"step": step, "config": self.config, "best": best, "world_size": self.ranks.count}
        Manifest.of(folder, **facts).write(folder)

    def _help(self, content: Content) -> bool:
        """Write this process's share wherever the first one says, until it says how it ended."""
        while not isinstance(word := self.ranks.first(None), bool):
            assert isinstance(word, Path)
            problem = None
            try:
                content.write(word, self.ranks.rank)
            except (OSError, SafetensorError) as error:
                problem = str(error)
            self.ranks.gather(problem)
        return word

    def latest_valid(self, *, allow_config_change: bool = False) -> Checkpoint | None:
        """The same on every process: the first one looks."""
        if self.ranks.leads:
            found = self._latest_valid(allow_config_change)
            self.ranks.first(found and (found.path, found.skipped))
            return found
        told = self.ranks.first(None)
        return told and Checkpoint(told[0], Manifest.read(told[0]), told[1])

    def _latest_valid(self, allow_config_change: bool) -> Checkpoint | None:
        """The newest checkpoint that verifies; damaged newer ones are renamed `.bad`, logged, and listed in `skipped`.

        None when there never was one. A `CheckpointError` when there are some and none can be trusted, when a newer
        danlu wrote it, or when it belongs to another configuration.
        """
        self._may_differ |= allow_config_change  # a later return to a checkpoint needs no second consent
        skipped: list[str] = []
        for path in self:
            try:
                manifest = verified(path, self.verify)
            except Damaged as damage:
                skipped.append(self._quarantine(path, damage))
                continue
            self._refuse_other_config(path, manifest)
            if changed := differences(manifest.versions, versions()):
                log.warning("%s is from other versions; the last digits may differ: %s", path.name, ", ".join(changed))
            self._mend_pointers(path)
            return Checkpoint(path, manifest, tuple(skipped))
        bad = sorted(path.name for path in self.folder.glob("step-*.bad*"))
        if bad:
            raise CheckpointError(
                f"{self.folder}: no checkpoint can be trusted ({'; '.join(skipped) or ', '.join(bad)}). "
                "Nothing was trained. Bring back a good copy, or begin another run without --resume"
            )
        return None

    def mark_best(self, path: Path) -> None:
        """Point `best` at a checkpoint, which is then never removed."""
        write_atomic(self.folder / "best", path.name + "\n")

    def pointer(self, name: str) -> Path | None:
        """The checkpoint that `latest` or `best` names."""
        try:
            path = self.folder / (self.folder / name).read_text().strip()
        except FileNotFoundError:
            return None
        return path if path.is_dir() and NAME.fullmatch(path.name) else None

    def _is_saved(self, final: Path) -> bool:
        """Whether a step is on disk already, as after a request to save just before a save was due."""
        if not final.exists():
            return False
        try:
            verified(final, self.verify)
        except Damaged as damage:
            self._quarantine(final, damage)
            return False
        return True

    def _quarantine(self, path: Path, damage: Damaged) -> str:
        """Take a damaged checkpoint out of the list and say why."""
        words = f"{path.name}: {damage}"
        log.warning("skipping a damaged checkpoint: %s", words)
        os.rename(path, _free_name(path.with_suffix(".bad")))
        return words

    def _write(self, final: Path, write: Writer) -> None:
        """Write a folder aside and rename it; on a full disk once more in the place of the oldest."""
        try:
            with folder_at_once(final) as aside:
                write(aside)
        except (OSError, SafetensorError) as error:
            if not (_is_full(error) and self._remove_oldest()):
                raise
            log.warning("%s: the disk is full; removed the oldest checkpoint and trying again", final.name)
            with folder_at_once(final) as aside:
                write(aside)

    def _make_room(self) -> None:
        """Remove the oldest while the disk has less room than the next save is likely to need."""
        self.folder.mkdir(parents=True, exist_ok=True)
        newest = next(iter(self), None)
        if newest is None:
            return
        needed = SPARE * sum(path.stat().st_size for path in newest.rglob("*"))
        while shutil.disk_usage(self.folder).free < needed and self._remove_oldest():
            log.warning("%s: little room is left on the disk; removed the oldest checkpoint", self.folder)

    def _tidy(self, final: Path, best: bool) -> None:
        """Move the pointers, then remove what is over the limit; a disk that refuses is only a warning."""
        try:
            write_atomic(self.folder / "latest", final.name + "\n")
            if best:
                self.mark_best(final)
            for path in self._removable()[(self.limit or 0) - 1 :] if self.limit else ():
                self._remove(path)
        except OSError as error:
            log.warning("%s is saved, but the folder could not be tidied: %s", final, error)

    def _removable(self) -> list[Path]:
        """All but the newest, the best and the pinned, newest first."""
        best = self.pointer("best")
        return [path for path in list(self)[1:] if path != best and not (path / PIN).exists()]

    def _remove_oldest(self) -> bool:
        """Remove the oldest that may go, if the newest is known to be good; whether one went."""
        removable = self._removable()
        if not removable or not self._is_saved(next(iter(self))):
            return False
        self._remove(removable[-1])
        return True

    def _remove(self, path: Path) -> None:
        # first a name that no reader takes for a checkpoint, so that a kill half-way leaves nothing to distrust
        doomed = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:8]}")
        os.rename(path, doomed)
        shutil.rmtree(doomed)

    def _refuse_other_config(self, path: Path, manifest: Manifest) -> None:
        if self._may_differ or hash_of(manifest.config) == hash_of(self.config):
            return
        changed = "\n  ".join(differences(manifest.config, self.config))
        raise CheckpointError(
            f"{path} was written with other settings:\n  {changed}\n"
            "Resume with the old ones, or say --allow-config-change if the change is meant"
        )

    def _mend_pointers(self, newest: Path) -> None:
        """A kill between a save and its pointers leaves old ones; the manifests know better."""
        write_atomic(self.folder / "latest", newest.name + "\n")
        marked, best = self.pointer("best"), next((path for path in self if _was_best(path)), None)
        if best is not None and (marked is None or step_of(best) > step_of(marked)):
            self.mark_best(best)
        elif marked is None:
            (self.folder / "best").unlink(missing_ok=True)


def _was_best(path: Path) -> bool:
    try:
        return Manifest.read(path).best
    except (Damaged, CheckpointError):
        return False


def _is_full(error: Exception) -> bool:
    """Whether a disk or quota is full; safetensors says so only in words."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in full or any(f"(os error {number})" in str(error) for number in full)


def _free_name(path: Path) -> Path:
    """`step-000100.bad`, or `.bad-2` when that is taken."""
    others = (path.with_name(f"{path.name}-{number}") for number in range(2, 1000))
    return path if not path.exists() else next(other for other in others if not other.exists())

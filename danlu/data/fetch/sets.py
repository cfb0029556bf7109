"""A public set onto this disk: its files under raw_train/NAME, and what is made of them beside."""

import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
from huggingface_hub import get_token

from danlu.core.errors import DataError, SetupError
from danlu.core.files import sha256_of, write_json
from danlu.core.lock import Lock
from danlu.core.parts import did_you_mean
from danlu.data.catalogue import FETCHED, HUB, Entry, Remote, catalogue, raw_folder
from danlu.data.checksum import sha1_of
from danlu.data.fetch.download import Download, Fetched, Progress
from danlu.data.fetch.results import make
from danlu.data.hub.address import hub_set, url_of
from danlu.data.hub.files import listing
from danlu.data.registry import how_to_fetch

log = logging.getLogger(__name__)

Watch = Callable[[str], Progress]
"""gives what is told of the bytes of a file"""


@dataclass(frozen=True)
class Outcome:
    """What became of a set: where its rows are now, and how many files had to be downloaded."""

    path: Path
    downloaded: int
    state: Literal["fetched", "here", "shipped", "yours"]


def known(name: str) -> Entry:
    """The entry of a name."""
    if name in catalogue():
        return catalogue()[name]
    hint = did_you_mean(name, list(catalogue())) or "; `danlu data list` prints every name"
    raise DataError(f"{name}: no public set of that name{hint}")


def fetch_set(name: str, to: Path, client: httpx.Client, watch: Watch) -> Outcome:
    """Everything of a set, in `to`; what is there and whole is not downloaded again."""
    entry = known(name)
    if entry.shipped:
        return Outcome(entry.here(name, to) or to, 0, "shipped")
    if not entry.files and not entry.hub:
        raise DataError(f"{name}: {how_to_fetch(name, entry)} ({entry.page})")
    to.mkdir(parents=True, exist_ok=True)
    raw = raw_folder(name, to)
    with Lock(raw.parent / f".{name}.lock", wait=True, purpose=f"the download of {name}"):
        return Set(name, entry, to, raw, client, watch).fetch()


@dataclass
class Set:
    """A set on its way, whose lock we hold."""

    name: str
    entry: Entry
    to: Path
    raw: Path
    client: httpx.Client
    watch: Watch

    def fetch(self) -> Outcome:
        """Download what is missing, then make what is made of it."""
        record = self.record()
        result = self.to / self.entry.result if self.entry.result else None
        if result and result.exists() and not record:
            return Outcome(result, 0, "yours")
        files = record.get("files", {})
        whole = bool(files) and all(self.is_whole(file, fact) for file, fact in files.items())
        downloaded = 0
        if not whole:
            files, downloaded = self.download(files)
            record = {"name": self.name, "files": files}
            write_json(self.raw / FETCHED, record)
        if not result:
            return Outcome(self.raw, downloaded, "fetched" if downloaded else "here")
        made = self.make(result, record)
        return Outcome(result, downloaded, "fetched" if made or downloaded else "here")

    def record(self) -> dict[str, Any]:
        """What was fetched before."""
        try:
            found = json.loads((self.raw / FETCHED).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise DataError(
                f"{self.raw / FETCHED}: not JSON ({error}); delete it and fetch {self.name} again"
            ) from error
        return found if isinstance(found, dict) else {}

    def is_whole(self, file: str, fact: dict[str, Any]) -> bool:
        """Whether a file is still what was fetched."""
        path = self.raw / file
        if not path.is_file():
            return False
        if path.stat().st_size == fact["bytes"] and sha256_of(path) == fact["sha256"]:
            return True
        log.warning("%s: not what was fetched any more; it is fetched again", path)
        path.unlink()
        return False

    def download(self, before: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """Every file of the set that is not here; (what they are, how many came)."""
        if self.entry.gated and not get_token():
            raise SetupError(
                f"{self.name}: open to those who accept its terms; do so at {self.entry.page}, "
                "then set HF_TOKEN to a token of your account (or `hf auth login`)"
            )
        files, count = {}, 0
        for file, (remote, url) in self.remotes().items():
            path = self.raw / file
            if path.is_file() and file in before:
                files[file] = before[file]
            elif path.is_file() and self.fits(path, remote):
                files[file] = asdict(Fetched(remote.url, sha256_of(path), path.stat().st_size))
            else:
                log.info("%s: %s", self.name, url)
                files[file] = asdict(Download(self.client, remote, url, path, self.watch(path.name)).run())
                count += 1
        return files, count

    def fits(self, path: Path, remote: Remote) -> bool:
        """Whether a file that somebody put there, or we before we were killed, has the hash that is known of it."""
        wrong = (remote.sha256 and sha256_of(path) != remote.sha256) or (remote.sha1 and sha1_of(path) != remote.sha1)
        if wrong:
            log.warning("%s: not the file that is meant; it is fetched again", path)
        return not wrong

    def remotes(self) -> dict[str, tuple[Remote, str]]:
        """The files of the set by the name that they are kept under: what is known of each, and its address."""
        found: list[tuple[str, Remote, str]] = []
        for remote in self.entry.remotes:
            url, inner = remote.url, remote.file
            if url.startswith(HUB):
                owner, name, inner = url.removeprefix(HUB).split("/", 2)
                url = url_of(f"{owner}/{name}", "main", inner)
            found.append((inner, remote, url))
        for id in self.entry.hubs:
            wanted = hub_set(f"hf://datasets/{id}")
            assert wanted is not None
            meant = listing(wanted)
            prefix = f"{wanted.id.partition('/')[2]}/" if len(self.entry.hubs) > 1 else ""
            for each in meant.names:
                remote = Remote(url=f"{HUB}{wanted.id}/{each}")
                found.append((prefix + each, remote, url_of(wanted.id, meant.sha, each)))
        last = Counter(inner.rpartition("/")[2] for inner, _, _ in found)
        plain = max(last.values(), default=0) == 1
        return {inner.rpartition("/")[2] if plain else inner: (remote, url) for inner, remote, url in found}

    def make(self, result: Path, record: dict[str, Any]) -> bool:
        """Make the result if it is not there; one that was changed since is left as it is."""
        files = record["files"]
        made_of = [fact["sha256"] for fact in files.values()]
        made = record.get("result") or {}
        if result.is_file() and made.get("of") == made_of and made.get("by") == self.entry.process:
            if sha256_of(result) != made["sha256"]:
                log.warning("%s: changed since it was made, and left as it is; delete it to have it made again", result)
            return False
        log.info("%s: making %s", self.name, result)
        sha256 = make(self.entry.process, [self.raw / file for file in files], result)
        result_facts = {"file": result.name, "sha256": sha256, "of": made_of, "by": self.entry.process}
        write_json(self.raw / FETCHED, record | {"result": result_facts})
        return True

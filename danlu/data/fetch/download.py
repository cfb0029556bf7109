"""One file over HTTP: goes on where it was cut off, is checked, and has its name only when it is whole."""

import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from danlu.core.errors import DataError, SetupError
from danlu.core.files import fsync, write_json
from danlu.data.catalogue import Remote
from danlu.data.fetch.ask import Refused, asked

log = logging.getLogger(__name__)

TRIES = 6
LONGEST_WAIT_SECONDS = 60.0
BLOCK = 1 << 20
Progress = Callable[[int, int | None], None]
"""told how many bytes are here, of how many"""


class Cut(Exception):
    """The transfer ended early, or the server is busy; it can go on. `wait` is what the server asked for.

    With `no_way`, not even a connection could be made.
    """

    def __init__(self, message: str, wait: float | None = None, *, no_way: bool = False) -> None:
        super().__init__(message)
        self.wait, self.no_way = wait, no_way


@dataclass
class Fetched:
    """A file that is whole: what it hashes to and where it came from."""

    url: str
    sha256: str
    bytes: int


@dataclass
class Download:
    """A file on its way. Beside it lies `.NAME.part` with the bytes that are here, and which version they are of."""

    client: httpx.Client
    remote: Remote
    url: str
    to: Path
    progress: Progress = lambda here, total: None
    sleep: Callable[[float], None] = time.sleep

    @property
    def part(self) -> Path:
        """The bytes that are here so far."""
        return self.to.with_name(f".{self.to.name}.part")

    @property
    def tag(self) -> Path:
        """Which version of the file they are of."""
        return self.to.with_name(f".{self.to.name}.part.json")

    def run(self) -> Fetched:
        """Fetch the file, trying again as long as bytes arrive."""
        self.to.parent.mkdir(parents=True, exist_ok=True)
        failed, received = 0, False
        while True:
            before = self.here()
            try:
                return self.attempt()
            except Cut as cut:
                moved = self.here() > before
                failed, received = 1 if moved else failed + 1, received or moved
                if failed >= TRIES or (cut.no_way and not received):
                    # without a network people should know at once
                    raise SetupError(f"{self.url}: {cut}; {self.kept()}") from cut
                wait = cut.wait if cut.wait is not None else 2.0 ** (failed - 1)
                log.warning("%s: %s; trying again in %.0f s", self.to.name, cut, wait)
                self.sleep(min(wait, LONGEST_WAIT_SECONDS))
            except OSError as error:
                raise self.disk(error) from error

    def here(self) -> int:
        """How many bytes have arrived."""
        return self.part.stat().st_size if self.part.is_file() else 0

    def kept(self) -> str:
        """What becomes of the bytes that have arrived."""
        here = self.here()
        return (
            f"{here:,} bytes are kept, and the next try goes on from there"
            if here
            else f"try later, or put it at {self.to}"
        )

    def disk(self, error: OSError) -> Exception:
        """What a full disk means for people."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return SetupError(
                f"{self.to}: the disk is full; make room, and the next try goes on ({self.here():,} bytes)"
            )
        return SetupError(f"{self.to}: {error.strerror or error}")

    def attempt(self) -> Fetched:
        """One request for what is missing."""
        known, start = self.known(), self.here()
        headers = {"Accept-Encoding": "identity"}
        if start and known:
            headers |= {"Range": f"bytes={start}-", "If-Range": known["tag"]}
        try:
            with asked(self.client, self.url, headers) as (response, linked_sha256):
                return self.answered(response, start, linked_sha256)
        except Refused as refused:
            if refused.passing:
                raise Cut(str(refused), refused.wait) from refused
            raise
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Cut(f"cannot be reached ({first_line(error)})", no_way=True) from error
        except (httpx.TransportError, httpx.StreamError) as error:
            raise Cut(f"the connection broke ({first_line(error)})") from error

    def answered(self, response: httpx.Response, start: int, linked_sha256: str | None) -> Fetched:
        """Go on with the part, or begin anew, as the server says."""
        packed = response.headers.get("Content-Encoding", "identity")
        if packed != "identity":
            raise Refused(f"{self.url}: sent as {packed}, which was not asked for")
        status, total = response.status_code, total_of(response, start)
        if status == 200:
            return self.take(response, 0, linked_sha256)
        if status == 206 and starts_at(response) == start:
            return self.take(response, start, linked_sha256)
        if status == 416 and start and total == start:  # all of it was here, and only its name was missing
            return self.finish(Hashes.of(self.part, start), start, linked_sha256)
        self.drop()
        raise Cut(f"the part that was here does not fit the file any more ({status})", wait=0)

    def known(self) -> dict[str, Any] | None:
        """Which version of the file the part is of; a part of nobody knows what is dropped."""
        try:
            known = json.loads(self.tag.read_text(encoding="utf-8"))
            if known["url"] == self.url and isinstance(known["tag"], str):
                return known
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass
        self.drop()
        return None

    def drop(self) -> None:
        """Begin anew."""
        self.part.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)

    def take(self, response: httpx.Response, start: int, linked_sha256: str | None) -> Fetched:
        """Write what comes."""
        total = total_of(response, start)
        self.check_room(total, start)
        if not start:
            self.drop()
            if tag := strong_tag(response):
                write_json(self.tag, {"url": self.url, "tag": tag})
        hashes, here = Hashes.of(self.part, start), start
        with open(self.part, "ab", buffering=0) as file:
            for block in response.iter_raw():
                write_all(file.fileno(), block)
                hashes.update(block)
                here += len(block)
                self.progress(here, total)
            os.fsync(file.fileno())
        if total is not None and here != total:
            raise Cut(f"{here:,} of {total:,} bytes came")
        return self.finish(hashes, here, linked_sha256)

    def finish(self, hashes: "Hashes", size: int, linked_sha256: str | None) -> Fetched:
        """Check all the bytes, and give the file its name."""
        self.check(hashes, linked_sha256)
        os.replace(self.part, self.to)
        self.tag.unlink(missing_ok=True)
        fsync(self.to.parent)
        return Fetched(self.remote.url, hashes.sha256.hexdigest(), size)

    def check_room(self, total: int | None, start: int) -> None:
        """Say that a file will not fit before it fills the disk."""
        free = shutil.disk_usage(self.to.parent).free
        if total is not None and total - start > free:
            raise SetupError(f"{self.to}: {total - start:,} bytes are to come and {free:,} are free; make room")

    def check(self, hashes: "Hashes", linked_sha256: str | None) -> None:
        """Compare the bytes with every hash that is known of them."""
        expected = [("SHA-256", self.remote.sha256, hashes.sha256), ("SHA-1", self.remote.sha1, hashes.sha1)]
        expected.append(("SHA-256", linked_sha256, hashes.sha256))
        for kind, wanted, found in expected:
            if wanted and found.hexdigest() != wanted.lower():
                self.drop()
                raise DataError(
                    f"{self.url}: its {kind} is {found.hexdigest()}, expected {wanted}; nothing of it is kept. "
                    f"It was changed or damaged: try again, or put the right file at {self.to}"
                )


class Hashes:
    """Both hashes of the bytes that have gone by."""

    def __init__(self) -> None:
        self.sha256, self.sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)

    @classmethod
    def of(cls, part: Path, size: int) -> "Hashes":
        """Those of a part that is here already."""
        hashes = cls()
        if size:
            with open(part, "rb") as file:
                while block := file.read(BLOCK):
                    hashes.update(block)
        return hashes

    def update(self, block: bytes) -> None:
        """Count some bytes in."""
        self.sha256.update(block)
        self.sha1.update(block)


def write_all(file: int, block: bytes) -> None:
    """All of it: a disk that is nearly full takes a part of a block without an error."""
    rest = memoryview(block)
    while rest:
        rest = rest[os.write(file, rest) :]


def strong_tag(response: httpx.Response) -> str | None:
    """What names these very bytes; a weak tag does not."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def starts_at(response: httpx.Response) -> int | None:
    """The first byte of a partial answer."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else None


def total_of(response: httpx.Response, start: int) -> int | None:
    """How long the whole file is, if the server says."""
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    if total.isdigit():
        return int(total)
    length = response.headers.get("Content-Length", "")
    return int(length) + start if length.isdigit() else None


def first_line(error: Exception) -> str:
    """Somebody else's error in a few words."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__

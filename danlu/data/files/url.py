"""Files that lie behind a URL (s3://, hf://, https://, memory://, …), read through fsspec as a stream.

Credentials come from where each kind of storage looks for them itself (environment, ~/.aws, …), never from a recipe.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import fsspec

from danlu.core.errors import DataError, SetupError, UserError
from danlu.core.optional import install_command
from danlu.data.files.damage import Damage

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
BLOCK = 1 << 20
UNREADABLE = "a file that cannot be read"
WEB = ("http", "https")
DRIVERS = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}


@dataclass(frozen=True, slots=True)
class Url:
    """A file behind a URL, with the name that a path would have."""

    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def name(self) -> str:
        """The last part: part-1.jsonl.zst."""
        return PurePosixPath(unquote(urlsplit(self.text).path) or self.text).name

    @property
    def suffix(self) -> str:
        """.zst"""
        return PurePosixPath(self.name).suffix

    @property
    def suffixes(self) -> list[str]:
        """[.jsonl, .zst]"""
        return PurePosixPath(self.name).suffixes

    def beside(self, name: str) -> "Url":
        """Another file of the same folder."""
        place = urlsplit(self.text)
        return Url(place._replace(path=f"{place.path.rpartition('/')[0]}/{name}").geturl())


File = Path | Url


def is_url(path: str) -> bool:
    """Whether a path names a file behind a URL."""
    return SCHEME.match(path) is not None and not path.startswith(("file://", "local://"))


def beside(file: File, name: str) -> File:
    """Another file of the same folder."""
    return file.beside(name) if isinstance(file, Url) else file.with_name(name)


def storage(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    place = urlsplit(url)
    if place.password or (place.username and place.scheme in WEB):
        raise UserError(
            f"{place.scheme}://…@{place.hostname}: a password in a URL would be kept in every run; "
            "leave it out and give it in the environment"
        )
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        driver = DRIVERS.get(place.scheme, "")
        command = install_command(driver) if driver else str(error)
        raise SetupError(f"{url}: {place.scheme}:// needs a package that is not installed: {command}") from error
    except ValueError as error:
        raise UserError(f"{url}: no such kind of storage ({error})") from error


@contextmanager
def opened(file: File) -> Iterator[IO[bytes]]:
    """A file's bytes, wherever it lies; whatever goes wrong on the way names it."""
    if not isinstance(file, Url):
        try:
            with open(file, "rb") as stream:
                yield stream
        except OSError as error:
            raise Damage(f"{file}: cannot be read ({error.strerror or error})", UNREADABLE) from error
        return
    files, path = storage(str(file))
    try:
        with files.open(path, "rb") as stream:
            yield stream
    except DataError:
        raise
    except Exception as error:  # each kind of storage has errors of its own
        raise Damage(f"{file}: cannot be read ({type(error).__name__}: {error})", UNREADABLE) from error


def blocks_of(file: File) -> Iterator[bytes]:
    """A file's bytes as they lie."""
    with opened(file) as stream:
        while block := stream.read(BLOCK):
            yield block


def stored_bytes(file: File) -> int:
    """A file's size, as it lies there."""
    if isinstance(file, Path):
        return file.stat().st_size
    files, path = storage(str(file))
    try:
        size = files.size(path)
    except Exception as error:  # each kind of storage has errors of its own
        raise DataError(f"{file}: cannot be asked for its size ({type(error).__name__}: {error})") from error
    if size is None:
        raise DataError(f"{file}: its storage does not say how large it is; share by rows or tokens instead of bytes")
    return int(size)


def exists(url: Url) -> bool:
    """Whether a file is there."""
    files, path = storage(str(url))
    return bool(files.exists(path))


def listed(url: str) -> list[str]:
    """The files of a folder or pattern behind a URL."""
    files, path = storage(url)
    try:
        found = files.glob(path) if "*" in path else files.find(path)
    except (OSError, NotImplementedError) as error:
        raise DataError(f"{url}: cannot be listed ({type(error).__name__}: {error})") from error
    return [files.unstrip_protocol(one) for one in found]

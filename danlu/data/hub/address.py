"""Addresses on the Hugging Face hub: `OWNER/NAME`, or `hf://datasets/OWNER/NAME@REVISION/FOLDER?split=…`."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote

from danlu.core.errors import DataError
from danlu.data.files.find import KINDS
from danlu.data.files.unpack import UNPACKERS

SCHEME = "hf://datasets/"
ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?(\?[\w=&./*-]+)?")


@dataclass(frozen=True)
class HubSet:
    """What a path such as `hf://datasets/OWNER/NAME@main/folder?split=train` asks for."""

    id: str
    revision: str | None = None
    inside: str = ""
    """a file, folder or glob of it"""
    subset: str | None = None
    split: str | None = None

    @property
    def page(self) -> str:
        """Where people read about it."""
        return f"{endpoint()}/datasets/{self.id}"


def endpoint() -> str:
    """The hub's address: `$HF_ENDPOINT`, or its own."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def hub_set(path: str) -> HubSet | None:
    """A path read as one of the hub; None where it is a local one. What exists on this disk is local."""
    if path.startswith(SCHEME):
        body = path.removeprefix(SCHEME)
    elif ID.fullmatch(path) and not Path(path).exists() and not Path(path.partition("/")[0]).is_dir():
        body = path
        if Path(path.partition("?")[0]).suffix.lower() in (*KINDS, *UNPACKERS):
            return None  # people mean a file
    else:
        return None
    body, _, asked = body.partition("?")
    owner, _, rest = body.partition("/")
    name, _, inside = rest.partition("/")
    name, _, revision = name.partition("@")
    options = dict(parse_qsl(asked))
    inside = inside or options.get("folder", "")
    if not owner or not name or set(options) - {"subset", "split", "folder"}:
        raise DataError(f"{path}: a data set of the hub is written {SCHEME}OWNER/NAME@REVISION/FOLDER?subset=…&split=…")
    return HubSet(f"{owner}/{name}", revision or None, inside.strip("/"), options.get("subset"), options.get("split"))


def url_of(id: str, revision: str, name: str) -> str:
    """Where a file of a data set is downloaded."""
    return f"{endpoint()}/datasets/{id}/resolve/{quote(revision, safe='')}/{quote(name)}"

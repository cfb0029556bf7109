"""The public data sets that danlu knows by name: catalogue.yaml, checked."""

from functools import cache
from pathlib import Path
from typing import Literal

import yaml

from danlu.core.parts import Config

HERE = Path(__file__).parent
SHIPPED = HERE.parent / "recipes/data"
HUB = "hf:"


class Remote(Config):
    """A file somewhere else."""

    url: str
    """https://…, or hf:OWNER/NAME/FILE for a file of a data set on the hub"""
    sha1: str | None = None
    """what its bytes must hash to"""
    sha256: str | None = None
    """the same, by a better hash"""

    @property
    def file(self) -> str:
        """The name it is kept under."""
        return self.url.rpartition("/")[2]


class Entry(Config):
    """A public data set: what it is, whose, and where its files are."""

    about: str
    """what it holds"""
    licence: str
    """what its makers allow"""
    shape: str
    """the format of its rows"""
    page: str
    """where to read about it"""
    gated: bool = False
    """whether its terms must be accepted on its page first"""
    shipped: str | None = None
    """the file, where it comes with danlu"""
    hub: str | list[str] = []
    """its ids on the hub, where all their files are meant, with ?subset=…&split=… for some"""
    files: list[str | Remote] = []
    """its files, where they are named one by one"""
    process: Literal["none", "copy", "merge", "clean", "sharegpt"] = "none"
    """what is done to the files once they are here: kept as they are, or made into one `result`"""
    result: str | None = None
    """the file that is made of them"""
    columns: dict[str, str | None] = {}
    """our key -> theirs"""

    @property
    def remotes(self) -> list[Remote]:
        """Its files, all in the long form."""
        return [Remote(url=file) if isinstance(file, str) else file for file in self.files]

    @property
    def hubs(self) -> list[str]:
        """Its ids on the hub."""
        return [self.hub] if isinstance(self.hub, str) else self.hub

    @property
    def direct(self) -> list[str]:
        """Where a recipe may read it on the hub without fetching it first; nowhere if its files need work."""
        plain = self.process == "copy" and all(one.url.startswith(HUB) for one in self.remotes)
        files = [one.url.removeprefix(HUB) for one in self.remotes] if plain else []
        return [f"hf://datasets/{each}" for each in [*self.hubs, *files]]

    def here(self, name: str, folder: Path) -> Path | None:
        """Its rows on this disk, if it has been fetched into a folder or comes with danlu."""
        if self.shipped:
            return SHIPPED / self.shipped
        place = folder / self.result if self.result else raw_folder(name, folder)
        return place if place.is_file() or (place / FETCHED).is_file() else None


FETCHED = ".fetched.json"
"""in the folder of fetched files: what they are; it is written when all of them are whole"""


def raw_folder(name: str, folder: Path) -> Path:
    """Where the files of a set are kept as they came."""
    return folder / "raw_train" / name


@cache
def catalogue() -> dict[str, Entry]:
    """Every entry by its name."""
    entries = yaml.safe_load((HERE / "catalogue.yaml").read_text(encoding="utf-8"))
    return {name: Entry.model_validate(entry) for name, entry in entries.items()}

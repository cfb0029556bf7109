"""Which files of a data set on the hub are read: of one kind and one split, and never a script."""

from fnmatch import fnmatch
from pathlib import PurePosixPath

from danlu.data.files.find import KINDS
from danlu.data.files.unpack import UNPACKERS
from danlu.data.hub.address import HubSet

ORDER = ("parquet", "lines", "json", "csv", "text", "arrow")
"""which kind of file is read where a data set has several"""
SPLITS = ("train", "test", "valid", "validation", "dev", "eval")
ABOUT = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
"""files that tell of the data and hold none"""


def chosen(names: list[str], wanted: HubSet) -> list[str]:
    """Which files of a data set hold the rows that are asked for: of one kind, of one split, never a script."""
    found = [name for name in sorted(names) if kind(name) and safe(name)]
    if wanted.inside in found:
        return [wanted.inside]
    if wanted.inside:
        found = [name for name in found if inside(name, wanted.inside)]
    if wanted.subset and wanted.subset != "default":
        found = [name for name in found if wanted.subset in words_of(name)]
    split = wanted.split or "train"
    of_split = [name for name in found if split in words_of(name)]
    if wanted.split or of_split:
        found = of_split
    else:
        found = [name for name in found if not any(other in words_of(name) for other in SPLITS)] or found
    first = next((one for one in ORDER if any(kind(name) == one for name in found)), None)
    return [name for name in found if kind(name) == first]


def kind(name: str) -> str | None:
    """What kind of rows a file's name promises, if any."""
    path = PurePosixPath(name)
    if path.name.startswith((".", "README", "readme")) or path.name in ABOUT:
        return None
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in UNPACKERS]
    return KINDS.get(suffixes[-1]) if suffixes else None


def safe(name: str) -> bool:
    """Whether a name stays in its folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


def inside(name: str, wanted: str) -> bool:
    """Whether a file is the one that is meant, in the folder, or fits the glob."""
    return name == wanted or name.startswith(wanted + "/") or fnmatch(name, wanted)


def words_of(name: str) -> set[str]:
    """Folder names, and a file's name in whole and in its parts: en/train_sft-00000-of-00002.parquet."""
    path = PurePosixPath(name)
    stem = path.name.partition(".")[0]
    pieces = stem.split("-")
    return {*path.parts[:-1], stem, *pieces, *(word for piece in pieces for word in piece.split("_"))}

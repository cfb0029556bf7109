"""A path, folder, glob, URL or list of them becomes a list of files."""

import os
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from glob import glob, has_magic
from pathlib import Path

from danlu.core.errors import DataError
from danlu.data.files.arrow import saved_files
from danlu.data.files.manifest import MANIFEST, manifest_of
from danlu.data.files.unpack import UNPACKERS
from danlu.data.files.url import File, Url, beside, is_url, listed

KINDS = {
    ".json": "json",
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".txt": "text",
    ".md": "text",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}


def find_files(paths: str | Sequence[str]) -> list[File]:
    """Every file meant, in a fixed order, all of one kind."""
    found = [file for path in ([paths] if isinstance(paths, str) else paths) for file in files_of(path)]
    kinds = {kind_of(file) for file in found}
    if len(kinds) > 1:
        told = ", ".join(sorted(kinds))
        raise DataError(f"{paths}: files of several kinds ({told}); give each kind a source of its own")
    return found


def files_of(path: str) -> Sequence[File]:
    """The files of one path, folder, glob or URL."""
    if is_url(path):
        return files_behind(path)
    place = Path(re.sub(r"^(file|local)://", "", path)).expanduser()
    if place.is_file():
        return [place]
    if place.is_dir():
        if saved := saved_files(place):
            return saved
        files = shards_first(visible(place))
        if not files:
            raise DataError(f"{path}: an empty folder; put files of rows there ({', '.join(KINDS)})")
        return files
    if has_magic(path):
        files = [Path(file) for file in glob(str(place), recursive=True) if Path(file).is_file()]
        files = sorted((file for file in files if manifest_of(file) is None or file.name != MANIFEST), key=natural)
        if not files:
            raise DataError(f"{path}: no file matches")
        return files
    raise DataError(f"{path}: no such file{nearest(place)}")


def visible(folder: Path) -> list[Path]:
    """The files of a folder and of those in it; a name that begins with a dot is half-written or not meant."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(found, key=natural)


def files_behind(url: str) -> Sequence[File]:
    """The files of a URL: a file, a folder of shards, or what its storage lists."""
    if "*" not in url and KINDS.keys() & {suffix.lower() for suffix in Url(url).suffixes}:
        return [Url(url)]
    if "*" not in url and (manifest := manifest_of(Url(f"{url.rstrip('/')}/{MANIFEST}"))) is not None:
        return [Url(f"{url.rstrip('/')}/{shard.name}") for shard in manifest.shards]
    found = [Url(one) for one in listed(url) if not Url(one).name.startswith(".")]
    if not found:
        raise DataError(f"{url}: no file there")
    return shards_first(sorted(found, key=natural))


def shards_first(files: Iterable[File]) -> list[File]:
    """Where a folder has a manifest of shards, exactly those count, in its order."""
    by_folder: dict[str, list[File]] = {}
    for file in files:
        by_folder.setdefault(str(file).rpartition("/")[0], []).append(file)
    found = []
    for there in by_folder.values():
        manifest = manifest_of(there[0]) if any(file.name == MANIFEST for file in there) else None
        found += [beside(there[0], shard.name) for shard in manifest.shards] if manifest else there
    return found


def natural(file: File) -> list[list[tuple[int, str]]]:
    """Sorts part-2 before part-10."""
    parts = str(file).split("/")
    return [[(int(bit or 0), "") if n % 2 else (0, bit) for n, bit in enumerate(re.split(r"(\d+)", p))] for p in parts]


def nearest(place: Path) -> str:
    """`; did you mean 'data/alpaca.jsonl'?` with the most alike names of the same folder."""
    if not place.parent.is_dir():
        return f" (nor a folder {place.parent})"
    names = [other.name for other in place.parent.iterdir()]
    close = get_close_matches(place.name, names, n=3) or [name for name in names if name.startswith(place.name)][:3]
    return f"; did you mean {' or '.join(repr(str(place.with_name(name))) for name in close)}?" if close else ""


def kind_of(file: File) -> str:
    """What kind of rows a file's name promises."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    while suffixes and suffixes[-1] in UNPACKERS:
        suffixes.pop()
    kind = KINDS.get(suffixes[-1]) if suffixes else None
    if kind is None:
        packed = ", ".join(UNPACKERS)
        raise DataError(f"{file}: not a kind of file that holds rows ({', '.join(KINDS)}; each also as {packed})")
    return kind


def stem_of(file: File) -> str:
    """A file's name without its kind: alpaca for alpaca.jsonl.zst, and for a shard in a folder alpaca."""
    if isinstance(file, Path) and manifest_of(file) is not None:
        return file.absolute().parent.name
    name = file.name
    for suffix in (*UNPACKERS, *KINDS):
        name = name.removesuffix(suffix)
    return name

"""A path, folder, glob or list of them becomes a list of files."""

from collections.abc import Sequence
from difflib import get_close_matches
from glob import glob, has_magic
from pathlib import Path

from danlu.core.errors import DataError

PACKED = {".zst", ".gz"}
KINDS = {
    ".json": "json",
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".txt": "text",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}


def find_files(paths: str | Sequence[str]) -> list[Path]:
    """Every file meant, in a fixed order, all of one kind."""
    found = [file for path in ([paths] if isinstance(paths, str) else paths) for file in files_of(path)]
    kinds = {kind_of(file) for file in found}
    if len(kinds) > 1:
        told = ", ".join(sorted(kinds))
        raise DataError(f"{paths}: files of several kinds ({told}); give each kind a source of its own")
    return found


def files_of(path: str) -> list[Path]:
    """The files of one path, folder or glob."""
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    if place.is_dir():
        files = sorted(file for file in place.rglob("*") if file.is_file() and not file.name.startswith("."))
        if not files:
            raise DataError(f"{path}: an empty folder; put files of rows there ({', '.join(KINDS)})")
        return files
    if has_magic(path):
        files = sorted(Path(file) for file in glob(str(place), recursive=True) if Path(file).is_file())
        if not files:
            raise DataError(f"{path}: no file matches")
        return files
    raise DataError(f"{path}: no such file{nearest(place)}")


def nearest(place: Path) -> str:
    """`; did you mean 'data/alpaca.jsonl'?` with the most alike names of the same folder."""
    if not place.parent.is_dir():
        return f" (nor a folder {place.parent})"
    names = [other.name for other in place.parent.iterdir()]
    close = get_close_matches(place.name, names, n=3) or [name for name in names if name.startswith(place.name)][:3]
    return f"; did you mean {' or '.join(repr(str(place.with_name(name))) for name in close)}?" if close else ""


def kind_of(file: Path) -> str:
    """What kind of rows a file's name promises."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    while suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    kind = KINDS.get(suffixes[-1]) if suffixes else None
    if kind is None:
        raise DataError(f"{file}: not a kind of file that holds rows ({', '.join(KINDS)}; each also as .zst or .gz)")
    return kind


def stem_of(file: Path) -> str:
    """A file's name without its kind: alpaca for alpaca.jsonl.zst."""
    name = file.name
    for suffix in (*PACKED, *KINDS):
        name = name.removesuffix(suffix)
    return name

"""A file's bytes, unpacked, and its lines."""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import zstandard

from danlu.data.files.damage import Damage
from danlu.data.files.manifest import shard_of
from danlu.data.files.url import File, blocks_of

BOM = b"\xef\xbb\xbf"
SLICE = 1 << 14
"""packed bytes that are unpacked at once: data that is made to swell can swell only so far"""


def blocks(file: File) -> Iterator[bytes]:
    """The unpacked bytes of a file, a block at a time, without its byte order mark."""
    kind = UNPACKERS.get(file.suffix.lower())
    unpacked = blocks_of(file) if kind is None else unpack(file, *kind)
    first = next(unpacked, b"")
    yield first if shard_of(file) else first.removeprefix(BOM)  # a shard has none, but its first row may begin with one
    yield from unpacked


def zstd() -> Any:
    """A reader of one zstd frame."""
    return zstandard.ZstdDecompressor().decompressobj()


def gzip() -> Any:
    """A reader of one gzip member."""
    return zlib.decompressobj(wbits=31)


UNPACKERS: dict[str, tuple[str, Callable[[], Any]]] = {
    ".zst": ("zstd", zstd),
    ".gz": ("gzip", gzip),
    ".bz2": ("bzip2", bz2.BZ2Decompressor),
    ".xz": ("xz", lzma.LZMADecompressor),
}


def unpack(file: File, name: str, frame_reader: Callable[[], Any]) -> Iterator[bytes]:
    """Every frame of a packed file, one after the other. A file that ends inside a frame is an error.

    The libraries' own file readers are not used: zstandard's takes a cut-off file for a finished one.
    """
    frame, inside = frame_reader(), False
    for block in blocks_of(file):
        for start in range(0, len(block), SLICE):
            packed = block[start : start + SLICE]
            while packed:
                try:
                    yield frame.decompress(packed)
                except (zstandard.ZstdError, zlib.error, lzma.LZMAError, OSError, EOFError) as error:
                    raise broken(file, f"damaged {name} data ({error})") from error
                inside, packed = not frame.eof, frame.unused_data if frame.eof else b""
                if frame.eof:
                    frame = frame_reader()
                    packed = packed.lstrip(b"\0") if name in ("gzip", "xz") else packed  # padding between members
    if inside:
        raise broken(file, f"cut off in the middle of its {name} data")


def broken(file: File, what: str) -> Damage:
    """A file whose bytes end or go wrong somewhere."""
    return Damage(f"{file}: {what}; fetch or pack the file again", "the rest of a file that is cut off or damaged")


def raw_lines(file: File) -> Iterator[tuple[int, bytes]]:
    """Line numbers from 1 and lines without their \\n. U+2028 inside a value ends no line."""
    rest: list[bytes] = []
    number = 0
    for block in blocks(file):
        head, *whole = block.split(b"\n")
        rest.append(head)
        if not whole:
            continue  # a line of many blocks is put together once, at its end
        number += 1
        yield number, b"".join(rest)
        rest = [whole.pop()]
        yield from enumerate(whole, number + 1)
        number += len(whole)
    if last := b"".join(rest):
        yield number + 1, last


def lines(file: File) -> Iterator[tuple[int, str]]:
    """Line numbers from 1 and lines; only \\n and \\r\\n end a line."""
    for number, line in raw_lines(file):
        yield number, decode(line, file, number)


def decode(line: bytes, file: File, number: int) -> str:
    """UTF-8 text without its line end."""
    try:
        return line.removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        raise Damage(
            f"{file}:{number}: byte {error.start + 1} of the line is not UTF-8{guess(line)}; "
            "convert the file, for example with: iconv -f ENCODING -t UTF-8",
            "not UTF-8",
        ) from error


def guess(line: bytes) -> str:
    """Which other encoding the bytes look like."""
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        return " (it looks like UTF-16)"
    try:
        line.decode("gb18030")
    except UnicodeDecodeError:
        return ""
    return " (it reads as GBK)"

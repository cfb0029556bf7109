"""A file's bytes, unpacked, and its lines."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import zstandard

from danlu.core.errors import DataError

BLOCK = 1 << 20
BOM = b"\xef\xbb\xbf"


def blocks(file: Path) -> Iterator[bytes]:
    """The unpacked bytes of a file, a block at a time, without its byte order mark."""
    unpacked = {".zst": zstd_blocks, ".gz": gzip_blocks}.get(file.suffix.lower(), plain_blocks)(file)
    first = next(unpacked, b"")
    yield first.removeprefix(BOM)
    yield from unpacked


def plain_blocks(file: Path) -> Iterator[bytes]:
    """A file as it is."""
    with open(file, "rb") as stream:
        while block := stream.read(BLOCK):
            yield block


def zstd_blocks(file: Path) -> Iterator[bytes]:
    """Every frame of a zstd file. zstandard's own reader takes a cut-off file for a finished one."""
    frame, bytes_in_frame = zstandard.ZstdDecompressor().decompressobj(), False
    for block in plain_blocks(file):
        while block:
            try:
                yield frame.decompress(block)
            except zstandard.ZstdError as error:
                raise DataError(f"{file}: damaged zstd data ({error}); fetch or pack the file again") from error
            bytes_in_frame, block = not frame.eof, frame.unused_data
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
    if bytes_in_frame:
        raise DataError(f"{file}: cut off in the middle of its zstd data; fetch or pack the file again")


def gzip_blocks(file: Path) -> Iterator[bytes]:
    """A gzip file."""
    try:
        with gzip.open(file, "rb") as stream:
            while block := stream.read(BLOCK):
                yield block
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file}: cut off or damaged gzip data ({error}); fetch or pack the file again") from error


def lines(file: Path) -> Iterator[tuple[int, str]]:
    """Line numbers from 1 and lines; only \\n and \\r\\n end a line, so U+2028 inside a value ends none."""
    rest, number = b"", 0
    for block in blocks(file):
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            number += 1
            yield number, decode(line, file, number)
    if rest:
        yield number + 1, decode(rest, file, number + 1)


def decode(line: bytes, file: Path, number: int) -> str:
    """UTF-8 text without its line end."""
    try:
        return line.removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}:{number}: byte {error.start + 1} of the line is not UTF-8{guess(line)}; "
            "convert the file, for example with: iconv -f ENCODING -t UTF-8"
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

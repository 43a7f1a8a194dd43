"""The bytes of a file in blocks, decompressed where its first bytes say so, and its text in blocks."""

from __future__ import annotations

import codecs
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from escultor.errors import DataError, InputError

BLOCK_BYTES = 1 << 20  # read at a time
BOMB_RATIO, BOMB_BYTES = 200, 1 << 30  # a compressed file may grow by this factor once it is this large
EXTRA = "pip install 'escultor[data]'"
_BOMS = (  # the longer first: that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_TABLES = (".csv", ".tsv", ".tab", ".parquet", ".arrow", ".feather")
_BASE64_MARK = b";base64,"
_BASE64 = re.compile(rb"[A-Za-z0-9+/=_-]*+")
_ZIP = "a ZIP archive or a spreadsheet"
_FOREIGN = {
    b"PK\x03\x04": _ZIP,
    b"\xd0\xcf\x11\xe0": "an old spreadsheet",
    b"%PDF": "a PDF",
    b"version https://git-lfs": "a pointer of Git LFS, not the file (`git lfs pull` fetches it)",
    b"<!DOCTYPE": "a web page",
    b"<!doctype": "a web page",
    b"<html": "a web page",
    **{bytes((0x80, version)): "a pickle, which can run code" for version in range(2, 6)},
}
_TAR_AT, _TAR = 257, b"ustar"


def blocks_of(path: Path) -> Iterator[bytes]:
    """The bytes of a file, decompressed (gzip, zstd, bzip2, xz), a block at a time.

    Raises DataError for a file that cannot be read or decompressed, or that grows without end; InputError
    where zstd is not installed.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
            file.seek(0)
            _refuse_foreign(path, start)
            opener = next((o for magic, o in _OPENERS.items() if start.startswith(magic)), None)
            if opener is None:
                yield from iter(lambda: file.read(BLOCK_BYTES), b"")
            else:
                yield from _decompressed(path, opener(file))
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise DataError(f"{path} cannot be read", reason, "a file of rows", "check the path") from error
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        remedy = "copy the file again; it seems cut short"
        raise DataError(f"{path} cannot be decompressed", error, None, remedy) from error


def _refuse_foreign(path: Path, start: bytes) -> None:
    """Raise DataError for a file that is none of rows, by how it begins."""
    foreign = next((what for magic, what in _FOREIGN.items() if start.startswith(magic)), None)
    if start[_TAR_AT:].startswith(_TAR):
        foreign = "a tar archive"
    if foreign:
        remedy = "save its rows as JSON, CSV or Parquet; of an archive, import the folder of its files"
        raise DataError(f"{path} is {foreign}", None, "JSON, CSV, TSV, Parquet, Arrow", remedy)


def _decompressed(path: Path, stream: Any) -> Iterator[bytes]:
    limit, size = max(BOMB_BYTES, BOMB_RATIO * path.stat().st_size), 0
    while block := stream.read(BLOCK_BYTES):
        size += len(block)
        if size == len(block):
            _refuse_foreign(path, block)
        if size > limit:
            allowed = f"{BOMB_RATIO} times its size once that is over {BOMB_BYTES >> 30} GiB"
            what = f"{path} grows without end when it is decompressed"
            raise DataError(what, f"{size:,} bytes and more", allowed, "decompress it yourself")
        yield block


def _gzip(file: BinaryIO) -> Any:
    import gzip

    return gzip.GzipFile(fileobj=file)


def _bzip2(file: BinaryIO) -> Any:
    import bz2

    return bz2.BZ2File(file)


def _xz(file: BinaryIO) -> Any:
    return lzma.LZMAFile(file)


def _zstd(file: BinaryIO) -> Any:
    try:
        import pyarrow
    except ImportError as error:
        remedy = f"{EXTRA}, or decompress it with `zstd -d`"
        raise InputError("zstd needs pyarrow", "it is not installed", None, remedy) from error
    return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd")


_OPENERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": _gzip,
    b"\x28\xb5\x2f\xfd": _zstd,
    b"BZh": _bzip2,
    b"\xfd7zXZ\x00": _xz,
}


def without_base64(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The blocks without the data of `data:…;base64,` addresses, however long they are."""
    held, is_in_data = b"", False
    for block in blocks:
        data, held, pieces = held + block, b"", list[bytes]()
        at = 0
        while at < len(data):
            if is_in_data:
                found = _BASE64.match(data, at)
                at = found.end() if found else at
                is_in_data = at == len(data)
            elif (mark := data.find(_BASE64_MARK, at)) >= 0:
                pieces.append(data[at : mark + len(_BASE64_MARK)])
                at, is_in_data = mark + len(_BASE64_MARK), True
            else:  # a mark may begin at the end of a block
                end = max(at, len(data) - len(_BASE64_MARK) + 1)
                pieces.append(data[at:end])
                held, at = data[end:], len(data)
        yield b"".join(pieces)
    yield held


# --- text -------------------------------------------------------------------------------------


def text_blocks(blocks: Iterator[bytes], encoding: str | None = None) -> Iterator[str]:
    """The text of bytes, without a byte-order mark; lines that end in carriage returns end in newlines.

    The encoding is that of the byte-order mark; without one it is UTF-8, or UTF-16 where every second byte
    is zero. Bytes that are not valid in it become lone surrogates, as with `surrogateescape`, so that the
    rows around them can be read. Raises InputError for an encoding that does not exist.
    """
    first = next(blocks, b"")
    name, skipped = (encoding, 0) if encoding else _encoding_of(first)
    try:
        decoder = codecs.getincrementaldecoder(name)("surrogateescape")
    except LookupError as error:
        raise InputError("there is no such encoding", repr(name), "utf-8, cp1252, utf-16, …") from error
    text = decoder.decode(first[skipped:])
    only_returns = "\r" in text and "\n" not in text
    yield text.replace("\r", "\n") if only_returns else text
    for block in blocks:
        text = decoder.decode(block)
        yield text.replace("\r", "\n") if only_returns else text
    yield decoder.decode(b"", final=True)


def _encoding_of(start: bytes) -> tuple[str, int]:
    """The encoding of a file that begins so, and the length of its byte-order mark."""
    for mark, name in _BOMS:
        if start.startswith(mark):
            return name, len(mark)
    even, odd = start[:64:2].count(0), start[1:64:2].count(0)
    if len(start) >= 4 and max(even, odd) > len(start[:64]) // 4 and not min(even, odd):
        return ("utf-16-le" if odd else "utf-16-be"), 0
    return "utf-8", 0


def has_plain_lines(path: Path) -> bool:
    """Whether a file can be JSON Lines as it is: not compressed, not a table, not an array, in UTF-8.

    Raises DataError for a file that cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{path} cannot be read", reason, "a file of rows", "check the path") from error
    name, skipped = _encoding_of(start)
    text = start[skipped:].lstrip()
    return (
        name == "utf-8" and not text.startswith((b"[", *_OPENERS, *_FOREIGN)) and path.suffix not in _TABLES
    )

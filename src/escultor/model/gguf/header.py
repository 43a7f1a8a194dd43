"""A GGUF file's metadata and tensors, read strictly: nothing that its header claims is believed unchecked.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian. Every
count and offset is compared with the size of the file before it is used, so that a damaged or hostile file
ends in a ModelError, not in a crash or in more memory than the file is large.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from escultor.errors import ConfigError, ModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_HEADER_BYTES = 1 << 28  # a vocabulary of 260,000 tokens with its merges takes 15 MB
MAX_ENTRIES = 1 << 16  # metadata keys, tensors
MAX_DIMENSIONS = 4
MAX_NESTING = 4  # arrays within arrays
_STRING, _ARRAY = 8, 9
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies. `shape` is that of numpy, the slowest dimension first; `type` a name such as
    Q4_1."""

    name: str
    type: str
    shape: tuple[int, ...]
    start: int  # in bytes, from the beginning of the file
    size: int  # in bytes


@dataclass(frozen=True)
class GgufFile:
    """The header of a GGUF file; tensors are read one at a time."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """The metadata value of a key, `default` where there is none. Raises ModelError for another
        type."""
        value = self.metadata.get(key, default)
        if value is not default and (
            not isinstance(value, kind) or isinstance(value, bool) != (kind is bool)
        ):
            raise ModelError(f"{self.path}: `{key}` has another type", type(value).__name__, kind)
        return value

    @cached_property
    def _bytes(self) -> Any:
        import numpy

        return numpy.memmap(self.path, mode="r")

    def tensor(self, name: str) -> Any:
        """A tensor's values in float32, dequantised. Raises ModelError for a type that cannot be read."""
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize, quant_shape_to_byte_shape

        info = self.tensors[name]
        kind = GGMLQuantizationType[info.type]
        raw = self._bytes[info.start : info.start + info.size]
        try:
            if info.type in ("F32", "F16"):
                return raw.view("<f4" if info.type == "F32" else "<f2").reshape(info.shape).astype("float32")
            return dequantize(raw.reshape(quant_shape_to_byte_shape(info.shape, kind)), kind)
        except (NotImplementedError, ValueError) as error:
            remedy = "take a file of another quantisation, such as Q8_0 or Q4_K_M"
            what = f"{self.path}: the tensor {name} cannot be dequantised"
            raise ModelError(what, f"{info.type}: {error}", remedy=remedy) from error


def import_gguf() -> Any:
    """The library gguf, which is an extra. Raises ConfigError where it is not installed."""
    try:
        import gguf
    except ImportError as error:
        raise ConfigError(
            "GGUF files need the library gguf", remedy="pip install 'escultor[gguf]'"
        ) from error
    return gguf


def is_gguf(path: Path) -> bool:
    """Whether a file begins as a GGUF file does."""
    try:
        with path.open("rb") as file:
            return file.read(4) == MAGIC
    except OSError:
        return False


def read_header(path: Path) -> GgufFile:
    """Metadata and tensor positions of a GGUF file. Arrays of numbers are numpy's, of strings lists.

    Raises ModelError for a file that is no GGUF, is damaged, truncated, or a part of a split model.
    """
    import_gguf()
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(path, _Cursor(path, data))
    except ModelError:
        raise
    except (OSError, ValueError) as error:  # mmap refuses empty files
        raise _damaged(path, error) from error


class _Cursor:
    """A position in the bytes of a file that never leaves them."""

    def __init__(self, path: Path, data: Any):
        self.path, self.data, self.at = path, data, 0
        self.end = min(len(data), MAX_HEADER_BYTES)

    def take(self, count: int) -> int:
        """Step over `count` bytes; returns where they begin."""
        start = self.at
        if count > self.end - start:
            raise _damaged(self.path, f"{count} bytes are claimed at {start}, of {self.end}")
        self.at += count
        return start

    def number(self, code: str) -> Any:
        return struct.unpack_from(f"<{code}", self.data, self.take(struct.calcsize(f"<{code}")))[0]

    def count(self, what: str, limit: int) -> int:
        if (value := self.number("Q")) > limit:
            raise _damaged(self.path, f"{value} {what}", f"at most {limit}")
        return value

    def string(self) -> str:
        size = self.number("Q")
        start = self.take(size)
        try:
            return str(self.data[start : start + size], "utf-8")
        except UnicodeDecodeError as error:
            raise _damaged(self.path, error) from error

    def value(self, kind: int, nesting: int = 0) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY or nesting == MAX_NESTING:
            raise _damaged(self.path, f"a metadata value of type {kind}")
        inner, count = self.number("I"), self.count("values in an array", self.end)
        if inner in _SCALARS:
            import numpy

            dtype = numpy.dtype(_SCALARS[inner]).newbyteorder("<")
            return numpy.frombuffer(self.data, dtype, count, self.take(count * dtype.itemsize)).copy()
        if count * 8 > self.end - self.at:  # each takes at least its length
            raise _damaged(self.path, f"an array of {count} values in {self.end - self.at} bytes")
        return [self.value(inner, nesting + 1) for _ in range(count)]


def _read(path: Path, cursor: _Cursor) -> GgufFile:
    if cursor.data[:4] != MAGIC:
        raise ModelError(f"{path} is no GGUF file", repr(bytes(cursor.data[:4])), repr(MAGIC))
    cursor.take(4)
    if (version := cursor.number("I")) not in VERSIONS:
        raise ModelError(f"{path}: this GGUF version cannot be read", version, VERSIONS)
    tensors, keys = cursor.count("tensors", MAX_ENTRIES), cursor.count("metadata keys", MAX_ENTRIES)
    metadata: dict[str, Any] = {}
    for _ in range(keys):
        name = cursor.string()
        if name in metadata:
            raise _damaged(path, f"two values of `{name}`")
        metadata[name] = cursor.value(cursor.number("I"))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise _damaged(path, f"alignment {alignment}", "a power of 2")
    if metadata.get("split.count", 0) not in (0, 1):
        remedy = "join its parts with llama.cpp's `llama-gguf-split --merge`"
        raise ModelError(f"{path} is a part of a model in several files", remedy=remedy)
    claims = [_claim(cursor) for _ in range(tensors)]
    begin = -(-cursor.at // alignment) * alignment
    infos = [TensorInfo(name, kind, shape, begin + at, size) for name, kind, shape, at, size in claims]
    _check_places(path, infos, len(cursor.data))
    return GgufFile(path, metadata, {info.name: info for info in infos})


def _claim(cursor: _Cursor) -> tuple[str, str, tuple[int, ...], int, int]:
    """Name, type, shape, offset and size of the next tensor."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    name, dimensions = cursor.string(), cursor.number("I")
    if not 0 < dimensions <= MAX_DIMENSIONS:
        raise _damaged(cursor.path, f"{name} has {dimensions} dimensions", f"1 to {MAX_DIMENSIONS}")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
    number, offset = cursor.number("I"), cursor.number("Q")
    try:
        kind = GGMLQuantizationType(number)
    except ValueError as error:
        raise ModelError(f"{cursor.path}: {name} has a type that is not known", number) from error
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if not all(shape) or shape[-1] % block:
        raise _damaged(
            cursor.path, f"{name} of {kind.name} has shape {shape}", f"rows of whole blocks of {block}"
        )
    return name, kind.name, shape, offset, prod(shape) // block * block_bytes


def _check_places(path: Path, tensors: list[TensorInfo], file_size: int) -> None:
    """Refuse tensors outside the file, on top of one another, or of one name."""
    end = 0
    for info in sorted(tensors, key=lambda info: info.start):
        if info.start < end or info.start + info.size > file_size:
            got = f"{info.name}: bytes {info.start} to {info.start + info.size} of {file_size}"
            raise _damaged(path, got, "tensors inside the file, one after another")
        end = info.start + info.size
    if len({info.name for info in tensors}) < len(tensors):
        raise _damaged(path, "two tensors of one name")


def _damaged(path: Path, got: object, allowed: object = None) -> ModelError:
    return ModelError(f"{path} is damaged or cut off", got, allowed, "download or copy the file again")

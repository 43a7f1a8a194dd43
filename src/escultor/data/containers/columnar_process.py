"""Reads a Parquet or Arrow file as a program of its own, and writes its rows as an Arrow stream on stdout.

A few bytes of such a file can stand for any number of values, and a broken one can crash the library. Here
that ends a process whose memory is limited, and not the caller's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

MEMORY_BYTES = 2 << 30
BATCH_ROWS = 64
BATCH_SIZE, ROW_SIZE = 8 << 20, 64 << 20  # bytes and values
BLOCK_BYTES = 1 << 20  # of Parquet, read at a time
_UNBOUNDED = ("dictionary", "view", "run_end_encoded", "union")  # types of which one value may be many rows'


def main(path: str) -> None:
    """Write the rows of a file to stdout. Exits with the reason where they cannot be read."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    except (ImportError, ValueError, OSError):  # another system
        pass
    try:
        _write(path, out)
    except MemoryError:  # pyarrow's too
        sys.exit(f"it needs more than {MEMORY_BYTES >> 30} GiB of memory")
    except Exception as error:  # whatever the library raises on a broken file
        sys.exit(" ".join(str(error).split())[:300] or type(error).__name__)


def _write(path: str, out: Any) -> None:
    import pyarrow

    writer = None
    for batch in _batches(path):
        batch.validate(full=True)  # offsets outside the data would be read
        for piece in _pieces(batch):
            writer = writer or pyarrow.ipc.new_stream(out, piece.schema)
            writer.write_batch(piece)
            out.flush()
    if writer:
        writer.close()
    out.close()


def _batches(path: str) -> Iterator[Any]:
    import pyarrow.ipc
    import pyarrow.parquet

    with open(path, "rb") as file:
        magic = file.read(6)
    if magic.startswith(b"PAR1"):
        # Pages are read as they are needed: row groups can be as large as the file.
        options: dict[str, Any] = {"pre_buffer": False, "buffer_size": BLOCK_BYTES}
        with pyarrow.parquet.ParquetFile(path, **options) as table:
            yield from table.iter_batches(batch_size=BATCH_ROWS, use_threads=False)
        return
    with pyarrow.memory_map(path) as source:
        if magic == b"ARROW1":
            with pyarrow.ipc.open_file(source) as reader:
                yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            yield from pyarrow.ipc.open_stream(source)


def _pieces(batch: Any) -> Iterator[Any]:
    """A batch in pieces of few rows, without dictionaries; large rows one by one."""
    for start in range(0, batch.num_rows, BATCH_ROWS):
        piece = batch.slice(start, BATCH_ROWS)
        with suppress(MemoryError):
            plain = _plain(piece)
            if sum(map(_size, plain.columns)) <= BATCH_SIZE:
                yield plain
                continue
        for number in range(piece.num_rows):
            row = _plain(piece.slice(number, 1))
            if (size := sum(map(_size, row.columns))) > ROW_SIZE:
                sys.exit(f"a row of {size:,} bytes and values; allowed: {ROW_SIZE:,}")
            yield row


def _plain(batch: Any) -> Any:
    """The batch with values in the place of references to them."""
    import pyarrow

    schema = pyarrow.schema([field.with_type(_plain_type(field.type)) for field in batch.schema])
    for field in schema:
        if any(word in str(field.type) for word in _UNBOUNDED):
            sys.exit(f"the column {field.name[:100]!r} is of the type {str(field.type)[:100]}")
    return batch if schema.equals(batch.schema) else batch.cast(schema)


def _plain_type(given: Any) -> Any:
    from pyarrow import large_binary, large_list, large_string, list_, struct, types

    if types.is_dictionary(given):
        return _plain_type(given.value_type)
    if types.is_string_view(given):
        return large_string()
    if types.is_binary_view(given):
        return large_binary()
    if types.is_struct(given):
        return struct([field.with_type(_plain_type(field.type)) for field in given])
    if types.is_list(given) or types.is_large_list(given):
        field = given.value_field.with_type(_plain_type(given.value_type))
        return list_(field) if types.is_list(given) else large_list(field)
    return given


def _size(array: Any) -> int:
    """Bytes and values of an array; values alone can be many without a byte."""
    from pyarrow import types

    if hasattr(array, "storage"):
        return _size(array.storage)
    if types.is_struct(array.type):
        return len(array) + sum(map(_size, array.flatten()))
    if types.is_nested(array.type):
        return len(array) + _size(array.flatten())
    return len(array) + array.nbytes


if __name__ == "__main__":
    main(sys.argv[1])

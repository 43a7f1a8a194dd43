"""Training rows wherever they are: a file of ours, a file in any known format, or a dataset of the store.

Training, checks, previews and curation read through here, so that each takes what the others take. JSONL
files of our own rows are read strictly; of other files a few rows may be broken (`data.formats`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from escultor.data.containers.bytes_of_files import has_plain_lines
from escultor.data.containers.json_stream import rows_of_value
from escultor.data.containers.rows_of_files import source_of
from escultor.data.formats.reading import FormatReport, check_report, read_items, recognise
from escultor.data.formats.table import CANONICAL, fitting
from escultor.data.jsonl import JsonlContents, kind_of, read_jsonl
from escultor.data.jsonl_rows import Fault, RowKind, TrainingItem, decode
from escultor.datasets.imports import convert_file
from escultor.datasets.versions import find_version, read_rows
from escultor.errors import DataError, InputError
from escultor.ids import hash_value
from escultor.store import Store, files

_FIRST_ROWS = 20


def read_training_rows(
    source: Path, kind: RowKind | None = None, store: Store | None = None
) -> tuple[RowKind, JsonlContents]:
    """The rows of a file, or of the dataset of that name in the store, and their kind (that of the file, or
    of its first row, unless one is given).

    Raises DataError for a file that cannot be read, holds nothing, or holds rows of another kind;
    InputError where there is neither file nor dataset.
    """
    if source.is_file():
        if is_ours(source):
            known = kind or kind_of(source)
            return known, read_jsonl(source, known)
        return _read_converted(source, kind)
    if store is None or source.exists():
        what = "a folder; import it with `escultor data import`" if source.is_dir() else "nothing is there"
        raise InputError(f"{source} is no file", what, "a file, or a dataset of the store")
    version = find_version(store, str(source))
    if kind is not None and version.kind != kind:
        raise DataError(f"the dataset {source} holds no rows of kind {kind}", version.kind, kind)
    items = tuple(row.item for row in read_rows(store, version))
    return version.kind, JsonlContents(items, {"kept": len(items)}, {})


def versions_read(source: Path | str | None, store: Store | None) -> tuple[str, ...]:
    """The hash of the dataset version that `read_training_rows` reads from; none for a file."""
    if source is None or store is None or Path(source).exists():
        return ()
    return (find_version(store, str(source)).hash,)


def is_ours(path: Path) -> bool:
    """Whether a file is JSON Lines of our own rows, by its first sound row; also if it has none."""
    if not has_plain_lines(path):
        return False
    with files.wrap_os_errors("read", path), path.open("rb") as lines:
        for line in islice(lines, _FIRST_ROWS):
            try:
                row = decode(line.removeprefix(b"\xef\xbb\xbf"))
            except Fault:
                continue
            names = {format.name for format in fitting(row)}
            is_row = [row] == list(rows_of_value(row)) and not _is_text_pair(row)
            return bool(names) and names <= set(CANONICAL) and is_row
    return True


def _is_text_pair(row: dict[str, Any]) -> bool:
    return "prompt" not in row and isinstance(row.get("chosen"), str)


def _read_converted(path: Path, kind: RowKind | None) -> tuple[RowKind, JsonlContents]:
    source, report = source_of(path), FormatReport()
    format = recognise(source)
    by_id: dict[str, TrainingItem] = {}
    for line, found, item, _ in read_items(source, format, report, kind):
        kind = kind or found
        if found != kind:
            remedy = "name one kind, or import the file: `escultor data import` makes a dataset of each"
            raise DataError(f"{path}:{line}: the file makes rows of two kinds", found, kind, remedy)
        known = by_id.get(item.id)
        if known is not None and known == replace(item, origin=known.origin):
            report.counts["exact duplicate"] += 1
            continue
        id = item.id if known is None else hash_value([item.id, line])
        by_id[id] = replace(item, id=id)
    check_report(source.name, report)
    assert kind is not None  # nothing to learn from was refused
    counts = {"kept": len(by_id), **+report.counts}
    counts |= {f"key not used: {key}": n for key, n in report.unused.items()}
    skipped = {reason: tuple(lines) for reason, lines in report.skipped.items()}
    return kind, JsonlContents(tuple(by_id.values()), counts, skipped)


def as_our_files(
    sources: list[Path], folder: Path, kind: RowKind | None = None, store: Store | None = None
) -> Iterator[Path]:
    """Files of our own rows for these files and datasets, in their order: ours as they are, the others
    converted into `folder`. Datasets are named after themselves. Raises as `read_training_rows`."""
    for number, path in enumerate(sources):
        if path.is_file() and is_ours(path):
            yield path
            continue
        out = folder / str(number) / path.name
        with files.wrap_os_errors("write", out):
            out.parent.mkdir(parents=True)
        if path.is_file():
            source = source_of(path)
            convert_file(source, recognise(source), kind, out)
        elif store is not None and not path.exists():
            files.copy_file(store.blobs.file(find_version(store, str(path)).blob), out)
        else:
            raise InputError(f"{path} is no file", None, "a file, or a dataset of the store")
        yield out

"""Files of other programs as dataset versions, and as files that curation reads."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from escultor.data.containers.rows_of_files import RowSource
from escultor.data.formats.reading import DETAILS, MAX_BAD_SHARE, FormatReport, check_report, read_items
from escultor.data.formats.table import RowFormat
from escultor.data.jsonl_rows import Fault, RowKind, Skip, TrainingItem
from escultor.datasets.cards.head import card_head
from escultor.datasets.rows import CurationRow, parse_row, write_line
from escultor.datasets.versions import save_version
from escultor.errors import DataError, InputError
from escultor.ids import code_hash, hash_value
from escultor.store import Store, files
from escultor.strict_json import JsonObject
from escultor.types import DatasetVersion


@dataclass(frozen=True, slots=True)
class ImportedFiles:
    """The versions that an import made, one for each kind of row, and the report on each file."""

    versions: tuple[DatasetVersion, ...]
    reports: dict[str, FormatReport]


def import_files(
    store: Store,
    name: str,
    sources: Sequence[tuple[RowSource, RowFormat]],
    kind: RowKind | None = None,
    max_bad: float = MAX_BAD_SHARE,
) -> ImportedFiles:
    """Read files into versions of the dataset `name`; files that make several kinds of rows become one
    version for each kind, named `name` and the kind. Nothing is kept unless all files can be.

    Memory holds eight bytes a row. Raises InputError for a name that is none, DataError for a file of which
    too much is broken or nothing is left (see `check_report`), StoreError if the disk refuses.
    """
    if not name.strip() or "/" in name:
        raise InputError("a dataset needs a name", repr(name), "text without a slash", "give --name")
    with files.temporary_path(store.root / "partial") as folder, files.wrap_os_errors("write", folder):
        folder.mkdir(parents=True, exist_ok=True)
        rows, reports = _write_rows(folder, sources, kind, max_bad)
        counts = sum((Counter(report.counts) for report in reports.values()), Counter())
        versions = []
        for each in sorted(rows):
            path, sizes = rows[each].finish(counts)
            own = name if len(rows) == 1 else f"{name}-{each}"
            totals = {f"source {source}": n for source, n in sizes.items()} | dict(sorted(counts.items()))
            card = partial(
                _card, name=own, kind=each, rows=sum(sizes.values()), reports=reports, counts=totals
            )
            versions.append(
                save_version(store, own, kind=each, train=path, held_out=None, counts=totals, card=card)
            )
    return ImportedFiles(tuple(versions), reports)


def convert_file(
    source: RowSource, format: RowFormat, kind: RowKind | None, out: Path, max_bad: float = MAX_BAD_SHARE
) -> FormatReport:
    """Write the rows of a file as JSON Lines of ours, whole or not at all.

    Raises DataError for a file that makes rows of several kinds, unless one is given; and as `import_files`.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with files.temporary_path(out.parent) as folder, files.wrap_os_errors("write", out):
        folder.mkdir()
        rows, reports = _write_rows(folder, [(source, format)], kind, max_bad)
        if len(rows) > 1:
            remedy = "name one kind, or import the file: `escultor data import` makes a dataset of each"
            raise DataError(f"{source.name} makes rows of several kinds", ", ".join(rows), "one", remedy)
        path, _ = next(iter(rows.values())).finish(reports[source.name].counts)
        path.replace(out)
    return reports[source.name]


def _write_rows(
    folder: Path, sources: Sequence[tuple[RowSource, RowFormat]], kind: RowKind | None, max_bad: float
) -> tuple[dict[RowKind, _RowsOfKind], dict[str, FormatReport]]:
    rows: dict[RowKind, _RowsOfKind] = {}
    reports: dict[str, FormatReport] = {}
    try:
        for source, format in sources:
            report = reports[source.name] = FormatReport()
            for line, found, item, row in read_items(source, format, report, kind):
                if found not in rows:
                    rows[found] = _RowsOfKind(folder / f"{found}.jsonl")
                rows[found].add(_curation_row(found, item, row, source.name, line))
            if report.kept or len(sources) == 1:
                check_report(source.name, report, max_bad)
        if not rows:
            check_report(*next(iter(reports.items())), max_bad)
    finally:
        for each in rows.values():
            each.file.close()
    return rows, reports


def _curation_row(kind: RowKind, item: TrainingItem, row: JsonObject, source: str, line: int) -> CurationRow:
    """An item with its labels, figures, subject and time, where its row has them in our form."""
    try:
        return parse_row(kind, row, source, line) if row.keys() & DETAILS else CurationRow(item, source)
    except (Fault, Skip):
        return CurationRow(item, source)


class _RowsOfKind:
    """A file of rows of one kind, and a hash of the id of each."""

    def __init__(self, path: Path):
        self.path, self.file = path, path.open("wb", files.CHUNK_BYTES)
        self._ids = array("q")
        self._sources: Counter[str] = Counter()

    def add(self, row: CurationRow) -> None:
        self._ids.append(hash(row.item.id))
        self._sources[row.source] += 1
        self.file.write(write_line(row))

    def finish(self, counts: Counter[str]) -> tuple[Path, Counter[str]]:
        """The file with each row once and each id once, and its rows by source. What was repeated is
        counted."""
        hashes, times = np.unique(np.frombuffer(self._ids, dtype=np.int64), return_counts=True)
        if (repeated := hashes[times > 1]).size:
            is_repeated = np.isin(np.frombuffer(self._ids, dtype=np.int64), repeated)
            path = self.path.with_suffix(".unique.jsonl")
            with path.open("wb") as out:
                out.writelines(self._unique_lines(is_repeated, counts))
            path.replace(self.path)
        return self.path, self._sources

    def _unique_lines(self, is_repeated: np.ndarray, counts: Counter[str]) -> Iterator[bytes]:
        known: dict[str, set[str]] = {}
        with self.path.open("rb") as lines:
            for line, repeated in zip(lines, is_repeated.tolist(), strict=True):
                if not repeated:
                    yield line
                    continue
                row: dict[str, Any] = json.loads(line)
                content = hash_value({k: v for k, v in row.items() if k not in ("id", "origin", "source")})
                contents = known.setdefault(row["id"], set())
                if content in contents:
                    counts["exact duplicate"] += 1
                    self._sources[row["source"]] -= 1
                    continue
                if contents:
                    counts["another row has its id: it was given a new one"] += 1
                    row["id"] = hash_value([row["id"], content])
                contents.add(content)
                yield json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _card(
    hash: str,
    *,
    name: str,
    kind: RowKind,
    rows: int,
    reports: dict[str, FormatReport],
    counts: dict[str, int],
) -> dict[str, Any]:
    """The card of an imported dataset, in the format of all cards (`datasets.cards`)."""
    return card_head(hash, name=name, kind=kind, rows=rows) | {
        "imported": {
            source: {"format": report.format, "rows": report.rows, "broken": report.bad}
            for source, report in reports.items()
        },
        "counts": counts,
        "code": code_hash(),
    }

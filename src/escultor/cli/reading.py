"""Rows to train on: a file or a dataset of the store, without what is held out there."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escultor.cli.finding import existing_store, need_file, store_exists
from escultor.errors import DataError

if TYPE_CHECKING:
    from escultor.data.importers import Imported


def read_training(data: Path, kind: Any, url: str) -> Imported[Any]:
    """The rows of a JSONL file, or of the dataset of that name. Prompts that are held out in the store never
    get through; they are counted.

    Raises DataError when nothing is left, InputError where there is neither file nor dataset.
    """
    from escultor.data.held_out import guard_of
    from escultor.data.importers import read_jsonl

    if not store_exists(url):
        return read_jsonl(need_file(data), kind)
    with existing_store(url) as store:
        found = read_jsonl(data, kind) if data.is_file() else _dataset(store, str(data), kind)
        counts = Counter(found.counts)
        items = guard_of(store).allowed(found.items, counts)
    if not items:
        raise DataError(
            f"{data} holds nothing that may be learnt", dict(counts), "a prompt that is not held out"
        )
    counts["kept"] = len(items)
    return replace(found, items=tuple(items), counts=dict(counts))


def _dataset(store: Any, name: str, kind: Any) -> Imported[Any]:
    from escultor.data.importers import Imported
    from escultor.data.versions import find, rows_of

    version = find(store, name)
    if version.kind != kind:
        raise DataError(f"the dataset {name} holds no rows of kind {kind}", version.kind, kind)
    items = tuple(row.item for row in rows_of(store, version))
    return Imported(items, {"kept": len(items)}, {})

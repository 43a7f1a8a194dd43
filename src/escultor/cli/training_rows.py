"""Rows to train on: a file, a dataset of the store or installed documentation, without what is held out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escultor.cli.lookup import existing_store, need_file, read_corpus
from escultor.errors import DataError
from escultor.store import store_exists

if TYPE_CHECKING:
    from escultor.data.jsonl import JsonlContents
    from escultor.store import Store


def read_training(data: Path, kind: Any, url: str) -> JsonlContents:
    """The rows of a JSONL file, or of the dataset of that name. Prompts that are held out in the store never
    get through; they are counted.

    Raises DataError when nothing is left, InputError where there is neither file nor dataset.
    """
    from escultor.data.jsonl import read_jsonl

    if not store_exists(url):
        return read_jsonl(need_file(data), kind)
    with existing_store(url) as store:
        found = read_jsonl(data, kind) if data.is_file() else _dataset(store, str(data), kind)
        return _allowed(store, found, str(data))


def read_documentation(url: str) -> JsonlContents:
    """The documents of the installed packages' training side, without what is held out in the store."""
    from escultor.data.jsonl import JsonlContents

    items = tuple(read_corpus(url).documents())
    found = JsonlContents(items, {"kept": len(items)}, {})
    if not store_exists(url):
        return found
    with existing_store(url) as store:
        return _allowed(store, found, "the installed documentation")


def _allowed(store: Store, found: JsonlContents, name: str) -> JsonlContents:
    from escultor.datasets.held_out import load_guard

    counts = Counter(found.counts)
    items = load_guard(store).allowed(found.items, counts)
    if not items:
        raise DataError(
            f"{name} holds nothing that may be learnt", dict(counts), "a prompt that is not held out"
        )
    counts["kept"] = len(items)
    return replace(found, items=tuple(items), counts=dict(counts))


def _dataset(store: Any, name: str, kind: Any) -> JsonlContents:
    from escultor.data.jsonl import JsonlContents
    from escultor.datasets.versions import find_version, read_rows

    version = find_version(store, name)
    if version.kind != kind:
        raise DataError(f"the dataset {name} holds no rows of kind {kind}", version.kind, kind)
    items = tuple(row.item for row in read_rows(store, version))
    return JsonlContents(items, {"kept": len(items)}, {})

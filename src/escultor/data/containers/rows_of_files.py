"""The rows of a file, a folder of files or a dataset of the Hugging Face hub, whatever their container."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from escultor.data.containers.bytes_of_files import blocks_of, text_blocks, without_base64
from escultor.data.containers.json_lines import json_rows
from escultor.data.containers.json_stream import Numbered, json_values
from escultor.data.containers.tables import columnar_rows, csv_rows, is_columnar
from escultor.errors import DataError, InputError

HUB = "hf://"
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
_TABLES = (".csv", ".tsv", ".tab")
_SUFFIXES = (*_TABLES, ".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather")
_EVALUATION = re.compile(r"(?:^|[^a-z])(?:test|valid|validation|val|dev|eval)(?:[^a-z]|$)", re.I)


@dataclass(frozen=True, slots=True)
class RowSource:
    """Rows that can be read from the beginning any number of times, and the name they are reported under."""

    name: str
    read: Callable[[], Iterator[Numbered]]


def source_of(path: Path, encoding: str | None = None, with_base64: bool = True) -> RowSource:
    """The rows of a file; without the data of pictures embedded in its text, if that is asked for. Reading
    raises DataError for a file that is none of rows."""
    name = path.name.encode("utf-8", "replace").decode()
    return RowSource(name, partial(_rows, path, encoding, with_base64))


def _rows(path: Path, encoding: str | None, with_base64: bool) -> Iterator[Numbered]:
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{path} cannot be read", reason, "a file of rows", "check the path") from error
    if is_columnar(start):
        return columnar_rows(path)
    blocks = blocks_of(path) if with_base64 else without_base64(blocks_of(path))
    if encoding is None and _suffix(path) not in _TABLES:
        return json_rows(blocks, str(path))
    text = text_blocks(blocks, encoding)
    return (csv_rows if _suffix(path) in _TABLES else json_values)(text, str(path))


def _suffix(path: Path) -> str:
    """The suffix that tells the container: that before the one of a compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return next((s for s in reversed(suffixes) if s not in COMPRESSED), "")


def files_of(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """The files of rows in a folder and below it, in the order of their names, and why others are left out.

    Files that are named after an evaluation split are left out where there are others: what models are
    measured on must not be trained on. Raises DataError for a folder without a file of rows.
    """
    every = sorted(path for path in folder.rglob("*") if path.is_file())
    hidden = {p for p in every if any(part.startswith(".") for part in p.relative_to(folder).parts)}
    files = [path for path in every if path not in hidden and _suffix(path) in _SUFFIXES]
    left_out = {path: "not a file of rows" for path in every if path not in files and path not in hidden}
    evaluation = [path for path in files if _EVALUATION.search(str(path.relative_to(folder)))]
    if evaluation and len(evaluation) < len(files):
        left_out |= dict.fromkeys(evaluation, "named after an evaluation split: import it by its own name")
        files = [path for path in files if path not in evaluation]
    if not files:
        raise DataError(f"{folder} holds no file of rows", f"{len(every)} files", ", ".join(_SUFFIXES))
    return files, left_out


def hub_source(url: str) -> RowSource:
    """The rows of `hf://OWNER/NAME[/CONFIG][:SPLIT]`, streamed by the library `datasets`; the split is
    `train` by default. Raises InputError for another url, or where the library is not installed."""
    path, _, split = url.removeprefix(HUB).partition(":")
    parts = path.strip("/").split("/")
    if len(parts) not in (2, 3):
        raise InputError("the name of a dataset cannot be read", url, "hf://OWNER/NAME[/CONFIG][:SPLIT]")
    try:
        import datasets
    except ImportError as error:
        remedy = "pip install 'escultor[hub]'"
        raise InputError(f"{url} needs the library datasets", "it is not installed", None, remedy) from error
    load: Any = datasets.load_dataset

    def read() -> Iterator[Numbered]:
        try:
            rows = load("/".join(parts[:2]), *parts[2:], split=split or "train", streaming=True)
            yield from enumerate(rows, 1)
        except Exception as error:  # the library raises its own, the hub's and the network's
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            remedy = "check the name and the network, or download its files and import their folder"
            raise DataError(f"{url} cannot be read", reason, None, remedy) from error

    return RowSource(url, read)

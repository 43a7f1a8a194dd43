"""The files of a verdict: verdict.json, verdict.html, verdict.md, and where there is no store its inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from escultor.errors import DataError
from escultor.evaluate.gate.decision_record import DecisionRecord, document
from escultor.evaluate.report.decision_markdown import markdown
from escultor.evaluate.report.decision_page import page_of
from escultor.evaluate.report.page import render_verdict
from escultor.ids import hash_bytes
from escultor.store import files

INPUTS = "inputs"  # folder beside a verdict's file, for the inputs that no store keeps


def write_pages(folder: Path, record: DecisionRecord) -> None:
    """verdict.json, verdict.html and verdict.md."""
    page = page_of(record)
    texts = {
        "verdict.json": document(record),
        "verdict.html": render_verdict(page),
        "verdict.md": markdown(page),
    }
    for name, text in texts.items():
        with files.atomic_write(folder / name) as draft:
            draft.write_text(text, encoding="utf-8", newline="")


def write_inputs(folder: Path, record: DecisionRecord) -> None:
    """The inputs of a verdict under their hashes, for a replay without a store."""
    for part in record.parts.values():
        with files.atomic_write(folder / INPUTS / f"{hash_bytes(part)}.json") as draft:
            draft.write_bytes(part)


def inputs_beside(file: Path) -> Callable[[str], bytes] | None:
    """Reads inputs by hash from the folder beside a verdict's file; None where there is no such folder. The
    function raises DataError for one that is missing or was changed."""
    folder = file.parent / INPUTS
    if not folder.is_dir():
        return None

    def read(hash: str) -> bytes:
        path = folder / f"{hash}.json"
        data = path.read_bytes() if path.is_file() else None
        if data is None or hash_bytes(data) != hash:
            what = "is missing" if data is None else "was changed"
            raise DataError(f"an input of the verdict {what}", path, remedy="compare again")
        return data

    return read

"""What made a model folder: named before a run, kept beside the weights after it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from escultor.batching.reference import identity
from escultor.config import Training
from escultor.errors import InputError
from escultor.ids import code_hash, hash_value
from escultor.model.loaded import Loaded
from escultor.store.files import whole
from escultor.text.tokenizer import tokenizer_hash
from escultor.train.filenames import RECORD
from escultor.train.resume import RunFolder


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What made a model folder, kept beside its weights. The key names all that decides the result."""

    key: str
    phase: str
    parents: tuple[str, ...]  # weights hashes
    dataset_hash: str
    config_hash: str
    code_version: str
    seed: int
    counts: dict[str, int]
    steps: int
    tokens: int
    seconds: float
    loss: float
    parameters: int  # of the whole model that was made


def run_key(
    phase: str,
    start: Loaded,
    frozen: Loaded | None,
    dataset: str,
    settings: Training,
    parents: tuple[str, ...],
) -> str:
    """The content id of all that decides what a run makes: models by their tensors, shapes and tokenizers,
    whatever they are called."""
    models = [None if each is None else _identity(each) for each in (start, frozen)]
    return hash_value([phase, settings.model_dump(), dataset, models, parents, code_hash()])


def dataset_hash(items: Sequence[Any]) -> str:
    return hash_value([hash_value(item) for item in items])


def _identity(model: Loaded) -> list[str]:
    return [identity(model.model), tokenizer_hash(model.tokenizer)]


def write_record(folder: Path, record: RunRecord) -> None:
    """Whole or not at all, and last: a folder with a record is a run that is done."""
    with whole(folder / RECORD) as draft:
        draft.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")


def finished(out: Path, key: str) -> RunRecord | None:
    """The record of a finished run with this key; None where there is none yet.

    Raises InputError when the folder holds another run or other files.
    """
    path = out / RECORD
    if path.is_file():
        found = _read(path)
        if found.get("key") == key:
            found["parents"] = tuple(found["parents"])
            return RunRecord(**found)
    elif not out.exists() or (out.is_dir() and RunFolder(out, key).begun):
        return None
    raise InputError(
        f"{out} already holds something else",
        "another run or other files",
        "a new or empty folder",
        "give another --out, or delete it",
    )


def _read(path: Path) -> dict[str, Any]:
    """A record, or nothing where the file is of another kind."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}

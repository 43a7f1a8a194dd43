"""A run's task, the key of all that decides its result, and the record kept beside its weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from escultor.code_closure import code_version
from escultor.config import Training
from escultor.errors import InputError
from escultor.ids import hash_value
from escultor.model.loaded import Loaded, model_hash
from escultor.store.files import atomic_write
from escultor.text.tokenizer import tokenizer_hash
from escultor.train.filenames import RECORD
from escultor.train.methods import METHODS
from escultor.train.resume import RunFolder

NOT_DECIDING = ("escultor.train.methods", "escultor.train.readback")


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """Train `start` on `items` by a method of the table `METHODS`. `frozen` is the teacher, or the reference
    (None: `start` before its first step). `parents` and `datasets` are for the record: hashes of the weights
    that the result descends from, and of the dataset versions that the items were read from."""

    method: str
    start: Loaded
    items: Sequence[Any]
    settings: Training
    frozen: Loaded | None = None
    parents: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What made a model folder, kept beside its weights."""

    key: str
    method: str
    parents: tuple[str, ...]  # weights hashes
    dataset_hash: str
    config_hash: str
    code_version: str  # of the whole package; provenance alone
    seed: int
    counts: dict[str, int]
    steps: int
    tokens: int
    seconds: float
    loss: float
    parameters: int  # of the whole model that was made
    dtype: str = "float32"  # of the saved weights
    read_back: dict[str, float] = field(default_factory=dict)  # loss on a few rows: start, trained, as saved
    drift: float | None = None  # KL to the start on general texts, nats per token
    datasets: tuple[str, ...] = ()  # hashes of the versions in the store that the rows were read from
    date: str = ""  # the day on which it began, which templates that write the date took for today


def run_key(task: TrainingTask, dataset: str) -> str:
    """The content id of all that decides what a run makes: its code, settings and data, and its models by
    tensors, shapes and tokenizers, whatever their names. `dataset`: the `dataset_hash` of the items."""
    models = [
        None if model is None else [model_hash(model.model), tokenizer_hash(model.tokenizer)]
        for model in (task.start, task.frozen)
    ]
    settings = task.settings.model_dump()
    return hash_value([task.method, settings, dataset, models, task.parents, method_code(task.method)])


def method_code(method: str) -> str:
    """The version of the code that a run of a method goes through: the loop's files, and those of the
    functions in the method's row of the table, but not those of other methods, nor those that check what
    was saved."""
    functions = METHODS[method].functions()
    return code_version("escultor.train.runs", *functions, without=NOT_DECIDING)


def dataset_hash(items: Sequence[Any]) -> str:
    return hash_value([hash_value(item) for item in items])


def write_record(folder: Path, record: RunRecord) -> None:
    """Whole or not at all, and last: a folder with a record is a run that is done."""
    with atomic_write(folder / RECORD) as draft:
        draft.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")


def read_record(folder: Path) -> dict[str, Any]:
    """The fields of the record in a run's folder; none where there is no record or another kind of file."""
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        return {}
    if not isinstance(record, dict):
        return {}
    if "phase" in record:  # the name of `method` in records written before it was renamed
        record["method"] = record.pop("phase")
    for name in {"parents", "datasets"} & record.keys():
        record[name] = tuple(record[name])
    return record


def finished(out: Path, key: str) -> RunRecord | None:
    """The record of a finished run with this key; None where there is none yet. Raises InputError when the
    folder holds another run or other files."""
    record = read_record(out)
    if record.get("key") == key:
        return RunRecord(**record)
    unfinished = not (out / RECORD).is_file() and out.is_dir() and RunFolder(out, key).begun
    if unfinished or not out.exists():
        return None
    what = f"{out} already holds something else"
    remedy = "give another --out, or delete it"
    raise InputError(what, "another run or other files", "a new or empty folder", remedy)

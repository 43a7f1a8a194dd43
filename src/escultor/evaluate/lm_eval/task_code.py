"""What a task of the evaluation harness would run: a task file is trusted like a program, unless it holds
data alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from escultor.errors import DataError

# The readers of `datasets` that run nothing: others load scripts or pickles.
DATA_READERS = ("json", "csv", "text", "parquet")
_CODE = "!"  # how the text of a value with a tag, such as `!function`, begins
_CODE_KEYS = ("class", "custom_dataset")


class _Loader(yaml.SafeLoader):
    """Reads a value with a tag as text."""


for _prefix in ("!", "tag:yaml.org,2002:python/"):
    _Loader.add_multi_constructor(_prefix, lambda loader, tag, node: f"{_CODE}{tag} {node.value}")


def refuse_code(path: Path) -> None:
    """Raise DataError for a task file, or one it includes, that names code to run: a function, a class, or
    data that are read by a script or unpickled."""
    if found := sorted(set(_code_of(path, ()))):
        remedy = "read these files; if you trust them like a program, add --trust-task"
        raise DataError(f"the task {path} runs code", ", ".join(found)[:300], "a task that is data", remedy)


def _code_of(path: Path, above: tuple[Path, ...]) -> Iterator[str]:
    try:
        task = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{path} is no task of the harness", " ".join(str(error).split())[:300]) from error
    yield from _code_in(task)
    data = task.get("dataset_path") if isinstance(task, dict) else None
    if data is not None and data not in DATA_READERS:
        yield f"dataset_path {data}"
    included = task.get("include", ()) if isinstance(task, dict) else ()
    for name in [included] if isinstance(included, str) else included:
        other = path.parent / str(name)
        if other in above:
            raise DataError(f"{path} includes itself", name)
        yield from _code_of(other, (*above, path))


def _code_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            if key in _CODE_KEYS or (key == "trust_remote_code" and each):
                yield f"{key}: {each}"
            yield from _code_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from _code_in(each)
    elif isinstance(value, str) and value.startswith(_CODE):
        yield value

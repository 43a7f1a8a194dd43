"""Model answers and likelihoods on disk: a killed evaluation goes on, and a repeated one computes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from escultor.ids import hash_value
from escultor.store import files

T = TypeVar("T")


class EvaluationCache:
    """JSON values by key, in a file of lines that are appended and synced one call at a time.

    A line that a killed process left incomplete is skipped. Processes may share a file: each call appends
    whole lines, and two entries of one key hold the same value.
    """

    def __init__(self, path: Path | None, fresh: bool = False):
        """`path` None keeps values in memory only. `fresh` forgets what the file holds: values are computed
        again and take its place."""
        self._path = path
        if fresh and path is not None:
            with files.wrap_os_errors("replace", path):
                path.unlink(missing_ok=True)
        self._values: dict[str, Any] = {} if path is None else _read(path)

    def get(self, key: str, compute: Callable[[], Any]) -> Any:
        """The value under a key, or that of `compute`, stored before it is returned."""
        if key not in self._values:
            self._store({key: compute()})
        return self._values[key]

    def _store(self, values: Mapping[str, Any]) -> None:
        """Add values under their keys; they are on disk when this returns."""
        if self._path is not None and values:
            # Each line begins with a line end as well, which separates it from an incomplete one before it.
            lines = (f"\n{json.dumps({'key': key, 'value': value})}\n" for key, value in values.items())
            with files.wrap_os_errors("write to", self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("ab", buffering=0) as file:
                    data = "".join(lines).encode()
                    while data:
                        data = data[file.write(data) :]
                    os.fsync(file.fileno())
        self._values.update(values)

    def get_many(
        self,
        requests: Sequence[T],
        key: Callable[[T], str],
        compute: Callable[[list[T]], Sequence[Any]],
        size: int,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Any]:
        """The value of each request; those missing are computed and stored `size` at a time, which `progress`
        follows."""
        keys = [key(request) for request in requests]
        missing = {k: request for k, request in zip(keys, requests, strict=True) if k not in self._values}
        done = 0
        for group in groups_of(list(missing), size):
            self._store(dict(zip(group, compute([missing[k] for k in group]), strict=True)))
            done += len(group)
            progress(done, len(missing))
        return [self._values[k] for k in keys]

    def __contains__(self, key: str) -> bool:
        return key in self._values


def open_cache(folder: Path | None, *names: object, fresh: bool = False) -> EvaluationCache:
    """The cache of what `names` identify (a model, a suite, the version of the code that computes the values)
    in a folder of the store, empty where it is to be `fresh`; None: in memory only."""
    return EvaluationCache(folder and folder / "evaluations" / f"{hash_value(list(names))}.jsonl", fresh)


def groups_of(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    """Consecutive parts of `size` items; the last may be smaller."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if not path.is_file():
        return values
    with files.wrap_os_errors("read", path):
        text = path.read_text(encoding="utf-8", errors="replace")
    for line in text.split("\n"):
        try:
            entry = json.loads(line)
            values.setdefault(entry["key"], entry["value"])
        except (ValueError, KeyError, TypeError):
            continue
    return values

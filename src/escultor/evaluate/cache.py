"""What a model said, kept as it comes: an evaluation that was killed goes on, and one done costs nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from escultor.ids import hash_value
from escultor.store import files


class EvaluationCache:
    """Values by key in a file of lines, appended and synced one by one.

    A line cut short by a killed process is passed over. Processes may share a file: lines are written
    whole, and a key that two wrote at once holds the same value twice.
    """

    def __init__(self, path: Path | None):
        """None: nothing is kept."""
        self._path = path
        self._known: dict[str, Any] = _read(path) if path is not None else {}

    def get(self, key: str, work: Callable[[], Any]) -> Any:
        """The value under a key, or that of `work`, kept before it is returned. Values are JSON's."""
        if key not in self._known:
            self.keep({key: work()})
        return self._known[key]

    def keep(self, found: Mapping[str, Any]) -> None:
        """Values under their keys, all of them on disk when this returns."""
        if self._path is not None and found:
            # Every line begins with a line end too: what a killed process left before it stays apart.
            lines = (f"\n{json.dumps({'key': key, 'value': value})}\n" for key, value in found.items())
            self._append("".join(lines).encode(), self._path)
        self._known.update(found)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    @staticmethod
    def _append(data: bytes, path: Path) -> None:
        with files.wrap_os_errors("write to", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                while data:
                    data = data[os.write(handle, data) :]
                os.fsync(handle)
            finally:
                os.close(handle)


def open_cache(folder: Path | None, *names: object) -> EvaluationCache:
    """The cache of what `names` identify (a model, a suite, the version of the code that computes the values)
    in a folder of the store; None: in memory alone."""
    if folder is None:
        return EvaluationCache(None)
    return EvaluationCache(folder / "evaluations" / f"{hash_value(list(names))}.jsonl")


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if not path.is_file():
        return found
    with files.wrap_os_errors("read", path):
        text = path.read_text(encoding="utf-8", errors="replace")
    for line in text.split("\n"):
        try:
            entry = json.loads(line)
            found.setdefault(entry["key"], entry["value"])
        except (ValueError, KeyError, TypeError):
            continue
    return found

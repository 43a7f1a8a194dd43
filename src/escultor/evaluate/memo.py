"""What a model said, kept as it comes: an evaluation that was killed goes on, and one done costs nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from escultor.ids import code_hash, hash_value
from escultor.store import files


class Memo:
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
            value = work()
            self._append(key, value)
            self._known[key] = value
        return self._known[key]

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def _append(self, key: str, value: Any) -> None:
        if self._path is None:
            return
        # The line begins with a line end too: what a killed process left before it stays apart.
        line = "\n" + json.dumps({"key": key, "value": value}) + "\n"
        with files.explained("write to", self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                data = line.encode()
                while data:
                    data = data[os.write(handle, data) :]
                os.fsync(handle)
            finally:
                os.close(handle)


def memo_for(cache: Path | None, *named: object) -> Memo:
    """The memo of what `named` says, in a cache folder; the code that computes is part of its name."""
    if cache is None:
        return Memo(None)
    return Memo(cache / "evaluations" / f"{hash_value([code_hash(), *named])}.jsonl")


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if not path.is_file():
        return found
    with files.explained("read", path):
        text = path.read_text(encoding="utf-8", errors="replace")
    for line in text.split("\n"):
        try:
            entry = json.loads(line)
            found.setdefault(entry["key"], entry["value"])
        except (ValueError, KeyError, TypeError):
            continue
    return found

"""The source files of a curation: their kind, their names in counts, and whether they stayed the same."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from escultor.data.jsonl import kind_of
from escultor.data.jsonl_rows import RowKind
from escultor.errors import DataError, InputError

FileState = tuple[int, int, int]  # inode, size, time of the last write


def kind_of_sources(sources: Sequence[Path]) -> RowKind:
    """The kind of the rows of all files. Raises InputError for no file, DataError for several kinds."""
    kinds: dict[Path, RowKind] = {path: kind_of(path) for path in sources}
    if not kinds:
        raise InputError("there is nothing to curate", "no file", "one JSONL file at least")
    if len(set(kinds.values())) > 1:
        got = ", ".join(f"{path}: {kind}" for path, kind in kinds.items())
        raise DataError("the files hold rows of different kinds", got, "one kind", "curate them separately")
    return kinds[sources[0]]


def source_names(sources: Sequence[Path]) -> dict[Path, str]:
    """The name of each source: its file name, after as many folders as distinguish it from the others."""
    names: dict[Path, str] = {}
    for path in sources:
        depth = 1
        while depth < len(path.parts) and any(
            other != path and other.parts[-depth:] == path.parts[-depth:] for other in sources
        ):
            depth += 1
        names[path] = "/".join(path.parts[-depth:]).encode("utf-8", "replace").decode()
    return names


def file_states(sources: Sequence[Path]) -> dict[Path, FileState | None]:
    """A value for each source that changes when the file is written to or replaced; None if it is missing."""
    states: dict[Path, FileState | None] = dict.fromkeys(sources)
    for path in sources:
        with suppress(FileNotFoundError):
            stat = path.stat()
            states[path] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return states


def refuse_changed(before: dict[Path, FileState | None]) -> None:
    """Raise DataError if a source changed: a version could not be made again from half of each state."""
    after = file_states(list(before))
    for path, state in before.items():
        if after[path] != state:
            got = "it is gone" if after[path] is None else "it was written to, or another is in its place"
            allowed = "files that stay as they are"
            raise DataError(f"{path} changed while it was read", got, allowed, "curate a copy")

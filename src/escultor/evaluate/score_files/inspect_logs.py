"""Logs of Inspect (inspect_ai): `.eval`, a zip with a JSON file per sample, and `.json`, all in one."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from escultor.errors import DataError
from escultor.evaluate.score_files.scored_run import ScoredRun, number, text_of

MAX_ENTRY_BYTES = 64 << 20  # of a sample, unpacked


def read_inspect(path: Path, chosen: str | None) -> ScoredRun | None:
    """The run in a log; None where the file is none. `chosen` names a scorer, of several. Epochs of a sample
    are repetitions of one item. A sample that ended in an error has failed.

    Raises DataError for a damaged log.
    """
    if path.suffix == ".eval":
        return _read_archive(path, chosen)
    if path.suffix != ".json":
        return None
    log = _json(path.read_bytes(), str(path))
    if not isinstance(log, dict) or "eval" not in log or not isinstance(log.get("samples"), list):
        return None
    return _run(path, log, iter(log["samples"]), chosen)


def _read_archive(path: Path, chosen: str | None) -> ScoredRun:
    if sys.version_info >= (3, 14):
        import zipfile
    else:
        from backports.zstd import zipfile  # Inspect compresses with zstd, which zipfile reads from 3.14 on

    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            head = next((name for name in ("header.json", "_journal/start.json") if name in names), None)
            if head is None:
                raise DataError(f"{path} is no log of Inspect", allowed="a zip with header.json")
            header = _entry(archive, head, path)
            samples = (_entry(archive, name, path) for name in sorted(names) if _is_sample(name))
            return _run(path, header, samples, chosen)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(
            f"{path} is no whole log of Inspect", str(error), "the zip that Inspect wrote"
        ) from error


def _entry(archive: Any, name: str, path: Path) -> Any:
    size = archive.getinfo(name).file_size  # no more than that is unpacked
    if size > MAX_ENTRY_BYTES:
        raise DataError(f"{path}: {name} is too large", f"{size:,} bytes", f"at most {MAX_ENTRY_BYTES:,}")
    return _json(archive.read(name), f"{path}: {name}")


def _is_sample(name: str) -> bool:
    return name.startswith("samples/") and name.endswith(".json")


def _json(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON", str(error)[:80]) from error


def _run(
    path: Path, header: Mapping[str, Any], samples: Iterator[Mapping[str, Any]], chosen: str | None
) -> ScoredRun:
    about = header.get("eval") or {}
    run = ScoredRun(path, "inspect", str(about.get("task", "")), str(about.get("model", path.stem)))
    if (version := about.get("task_version")) is not None:
        run.settings["version of the task"] = str(version)
    if (status := header.get("status")) not in (None, "success"):
        run.notes.append(f"{path.name}: the run ended with status {status!r}")
    for sample in samples:
        output = sample.get("output") or {}
        answer = output.get("completion") or text_of([c.get("message") for c in output.get("choices") or ()])
        item = run.item(str(sample.get("id")), text_of(sample.get("input")), answer)
        scores = sample.get("scores") or {}
        item.failed = item.failed or (not scores and sample.get("error") is not None)
        for scorer, score in scores.items():
            if chosen in (None, scorer):
                _add(
                    item.values,
                    scorer,
                    score.get("value"),
                    f"{scorer} of sample {sample.get('id')} in {path}",
                )
    return run


def _add(values: dict[str, list[float]], name: str, value: Any, where: str) -> None:
    """One metric of a scorer, or one for each key where it gives several."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            _add(values, f"{name}/{key}", each, where)
    else:
        values.setdefault(name, []).append(number(value, where))

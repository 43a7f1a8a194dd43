"""Logs of Inspect (inspect_ai): `.eval`, a zip with a JSON file per sample, and `.json`, all in one."""

from __future__ import annotations

import json
import math
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from escultor.errors import DataError
from escultor.evaluate.score_files.scored_run import ScoredItem, ScoredRun, text_of

_CONDITIONS = ("task_args", "model_generate_config")
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
    for key in _CONDITIONS:
        if value := {k: v for k, v in (about.get(key) or {}).items() if v is not None}:
            run.conditions[key] = json.dumps(value, sort_keys=True)
    if (status := header.get("status", "started")) != "success":
        run.notes.append(f"{path.name}: the run ended with status {status!r}")
    changed = 0
    for sample in samples:
        output = sample.get("output") or {}
        answer = output.get("completion") or text_of([c.get("message") for c in output.get("choices") or ()])
        item = run.item(str(sample.get("id")), text_of(sample.get("input")), answer)
        scores = {k: v for k, v in (sample.get("scores") or {}).items() if chosen in (None, k)}
        item.failed = item.failed or (not scores and sample.get("error") is not None)
        changed += bool(sample.get("invalidation")) or any(score.get("history") for score in scores.values())
        for scorer, score in scores.items():
            where = f"sample {sample.get('id')} in {path}"
            _add(run, item, scorer, score.get("value"), where)
    if changed:
        run.notes.append(f"{path.name}: {changed} samples were invalidated or their scores edited in the log")
    return _with_unscored(run)


def _add(run: ScoredRun, item: ScoredItem, name: str, value: Any, where: str) -> None:
    """One metric of a scorer, or one for each key where it gives several. A scorer that could not tell gives
    NaN (`Score.unscored`)."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            _add(run, item, f"{name}/{key}", each, where)
    elif isinstance(value, float) and math.isnan(value):
        item.values.setdefault(name, [])
    elif value is not None:
        run.add(item, name, value, where)


def _with_unscored(run: ScoredRun) -> ScoredRun:
    """The run, where an item that a scorer gave no value in any epoch has failed; a scorer without
    any value is left out."""
    scored = {name for item in run.items.values() for name, values in item.values.items() if values}
    for item in run.items.values():
        item.values = {name: values for name, values in item.values.items() if name in scored}
    unscored = [item for item in run.items.values() if not all(item.values.values())]
    for item in unscored:
        item.failed = True
    if unscored:
        run.notes.append(f"{run.path.name}: {len(unscored)} samples were left unscored")
    return run

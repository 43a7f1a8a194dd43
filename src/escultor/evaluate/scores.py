"""Scores under the hash of all that they say, and their files: read strictly, refused where edited."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from escultor.errors import DataError
from escultor.ids import hash_value, plain
from escultor.strict_json import strict_loads
from escultor.types import Scores

FORMAT = "scores/2"  # part of every id; before it an id covered checkpoint, suite, metrics and summary
_REMEDY = "write them: escultor evaluate MODEL --out FILE; leave `id` out of a file that you made yourself"
_scores = TypeAdapter(Scores)


def seal_scores(scores: Scores) -> Scores:
    """The scores under their own id, the hash of everything else in them; all numbers as floats."""
    scores = replace(
        scores,
        metrics={name: tuple(map(float, values)) for name, values in scores.metrics.items()},
        summary={name: float(value) for name, value in scores.summary.items()},
    )
    content = {key: value for key, value in plain(scores).items() if key != "id"}
    return replace(scores, id=hash_value([FORMAT, content]))


def is_of_scores(path: Path) -> bool:
    """Whether a JSON file is one of scores, whole or not, rather than another tool's."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return True
    return not isinstance(content, dict) or bool({"checkpoint", "suite", "metrics"} & content.keys())


def read_scores(path: Path) -> tuple[Scores, bool]:
    """The scores in a file, and whether their id is the hash of their content, of this format or the one
    before. A file without an id gets its own.

    Raises DataError for what is no scores: other keys, other types (a text or a truth value for a number), a
    key twice, numbers that are not finite.
    """
    try:
        raw = strict_loads(path.read_text(encoding="utf-8"))
        if not isinstance(raw, dict):
            raise ValueError(f"{type(raw).__name__}, not an object")
        if unknown := sorted(raw.keys() - {"_", *(f.name for f in fields(Scores))}):
            raise ValueError(f"unknown keys {', '.join(unknown)}")
        scores = _scores.validate_json(json.dumps({"id": "", **raw}), strict=True)
    except (ValidationError, ValueError, RecursionError) as error:
        lines = str(error).splitlines()
        raise DataError(f"{path} holds no scores", "; ".join(lines[:4])[:300], remedy=_REMEDY) from error
    sealed = seal_scores(scores)
    return (scores if scores.id else sealed), scores.id in ("", sealed.id, _older_id(raw))


def check_seal(path: Path, scores: Scores, recorded: Scores | None) -> None:
    """Raise DataError for scores whose id is not the hash of their content, unless they are those that the
    store has recorded under it."""
    if recorded != scores:
        raise DataError(
            f"the scores in {path} are not those of their id: the file was changed after it was written",
            scores.id,
            seal_scores(scores).id,
            _REMEDY,
        )


def _older_id(raw: dict[str, Any]) -> str:
    return hash_value([raw.get(key) for key in ("checkpoint", "suite", "metrics", "summary")])

"""That a verdict can be reproduced: its draws follow from what is compared, and it is decided again from its
inputs. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from difflib import unified_diff
from typing import Any

from escultor.config import Gate
from escultor.errors import DataError
from escultor.evaluate.gate.alpha_spending import answer_set
from escultor.evaluate.gate.decision import policy_hash
from escultor.evaluate.gate.decision_record import (
    FORMAT,
    OLDER_FORMATS,
    DecisionRecord,
    document,
    inputs_of,
    record_decision,
)
from escultor.rng import derive_seed
from escultor.types import Scores


def verdict_seed(champion: Scores, candidate: Scores, policy: Gate) -> int:
    """The seed of a verdict's draws: no other can be tried, and swapping the sides does not change it."""
    sides = sorted((answer_set(champion), answer_set(candidate)))
    return derive_seed(0, "verdict", *sides, policy_hash(policy))


def read_document(text: str) -> dict[str, Any]:
    """The content of a verdict's file. Raises DataError when the text is none."""
    try:
        content = json.loads(text)
        if content["format"] not in (FORMAT, *OLDER_FORMATS):
            raise ValueError(f"format {content['format']!r}")
        dict(content["inputs"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError("this is not a verdict's file", str(error), FORMAT) from error
    return content


def replay(read_input: Callable[[str], bytes], text: str) -> tuple[DecisionRecord, list[str]]:
    """Decide again from the inputs that a verdict's file names by hash, and the lines that differ then. Of a
    file of an older format the verdict and what was measured are compared, not its words and tests.

    read_input: the bytes of an input by its hash; of a store, `blobs.get_bytes`. Raises DataError when the
    text is not a verdict's file, and what `read_input` raises where an input is not there.
    """
    content = read_document(text)
    is_current = content["format"] == FORMAT
    before = text if is_current else _figures(content)
    record = record_decision(inputs_of({name: read_input(hash) for name, hash in content["inputs"].items()}))
    again = document(record)
    after = again if is_current else _figures(json.loads(again))
    differ = unified_diff(before.splitlines(), after.splitlines(), "file", "replayed", lineterm="", n=0)
    return record, [] if before == after else list(differ) or ["line ends differ"]


def _figures(content: dict[str, Any]) -> str:
    """The verdict and the measured figures of a verdict's file, a line each. Its tests are left out: those
    of an older format had other p-values and bounds."""
    because = {key: content["because"][key] for key in ("vetoes", "n", "look", "policy")}
    measured = ("metric", "role", "n", "clusters", "champion", "candidate", "difference", "margin")
    effects = [{key: effect[key] for key in measured} for effect in content["because"]["effects"]]
    figures = {"verdict": content["verdict"], "because": because, "effects": effects}
    return json.dumps(figures, indent=1, sort_keys=True)

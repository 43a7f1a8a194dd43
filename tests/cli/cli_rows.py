"""Files and words that the tests of the command line share."""

from __future__ import annotations

import json
from pathlib import Path

SMALL = (
    *("--set", "skills=[trinity]"),
    *("--set", "evaluation.items=6"),
    *("--set", "evaluation.speed_requests=2"),
    *("--set", "evaluation.max_new_tokens=4"),
    *("--set", "gate.guards={}"),  # six items can show no margin
    *("--set", "gate.min_items=6"),
)


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def examples(path: Path, count: int = 6) -> Path:
    return jsonl(path, *({"prompt": f"cat {i}", "completion": f"dog {i}"} for i in range(count)))


def pairs(path: Path, count: int = 6) -> Path:
    rows = ({"prompt": f"cat {i}", "chosen": f"dog {i}", "rejected": "bird"} for i in range(count))
    return jsonl(path, *rows)

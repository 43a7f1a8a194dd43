"""What the check before a run costs for many rows: reading them, and their tokens and report.

    python bench/preflight.py [--model MODEL] [--rows 100000] [--data FOLDER]

Rows are gsm8k's questions, numbered so that no two are equal, with one system message, as a chat. `wall` is
what a person waits, `cpu` what all threads computed; both in seconds. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from escultor.config import Sft
from escultor.data.jsonl import read_jsonl
from escultor.model.folders import BUILT_IN
from escultor.model.load import load_shape
from escultor.train.run_record import TrainingTask
from escultor.train.runs import preview

SYSTEM = "You solve problems of arithmetic step by step, and end with the result."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default=BUILT_IN, help="a model with a chat template")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("ESCULTOR_DATA", "data")))
    given = parser.parse_args()
    start = load_shape(given.model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        write_rows(given.data / "gsm8k" / "train.jsonl", file, given.rows)
        contents, read = timed(read_jsonl, file, "example")
    report, check = timed(preview, TrainingTask("sft", start, contents.items, Sft()))
    figures = {"rows": report.rows, "tokens": report.tokens, "read": read, "check": check}
    print(json.dumps({"bench": "preflight", "cpus": os.cpu_count(), **figures}))


def write_rows(source: Path, file: Path, count: int) -> None:
    rows = [json.loads(line) for line in source.open(encoding="utf-8")]
    with file.open("w", encoding="utf-8") as out:
        for i in range(count):
            row = rows[i % len(rows)]
            said = {"system": SYSTEM, "user": f"{row['question']} ({i})", "assistant": row["answer"]}
            messages = [{"role": role, "content": content} for role, content in said.items()]
            out.write(json.dumps({"messages": messages}) + "\n")


def timed(function: Any, *args: Any) -> tuple[Any, dict[str, float]]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = function(*args)
    spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return result, {name: round(seconds, 2) for name, seconds in spent.items()}


if __name__ == "__main__":
    main()

"""Import of JSONL, arrays, CSV and Parquet into a dataset: megabytes a second of one process, and its memory
at two sizes. Prints one JSON object last.

Rows are conversations of `--chars` characters in the mean, of words with quotation marks, accents and line
ends, as `json` writes them with and without escapes. Each size of file is imported in a process of its own;
memory is flat if the peak of the larger is that of the smaller but for eight bytes a row.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEXT = 'the quick "brown" fox jumps over a lazy cão and\nthen writes long words with numbers 1 23 45.6'
WORDS = TEXT.split(" ")


def conversations(size: int, chars: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows of about `size` bytes in all."""
    draw, written = random.Random(seed), 0
    words = [draw.choice(WORDS) for _ in range(100_000)]

    def text(mean: float) -> str:
        count = max(2, int(draw.expovariate(1 / (mean / 5.2))))
        start = draw.randrange(len(words) - 1)
        return " ".join(words[start : start + count])

    while written < size:
        turns = [text(chars * 0.15), text(chars * 0.45), text(chars * 0.1), text(chars * 0.3)]
        roles = ("user", "assistant", "user", "assistant")
        written += sum(map(len, turns)) + 140
        yield {"messages": [{"role": r, "content": t} for r, t in zip(roles, turns, strict=True)]}


def write(path: Path, kind: str, size: int, chars: int) -> None:
    rows = conversations(size, chars)
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    elif kind == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("prompt", "completion"))
            writer.writerows((r["messages"][0]["content"], r["messages"][1]["content"]) for r in rows)
    elif kind == "array":
        path.write_text(json.dumps(list(rows), ensure_ascii=False))
    else:
        lines = (json.dumps(row, ensure_ascii=kind == "escaped").encode() + b"\n" for row in rows)
        with (gzip.open if kind == "gzip" else open)(path, "wb") as file:
            file.writelines(lines)


def measure(path: Path, text_bytes: int) -> dict[str, Any]:
    """Import a file in this process."""
    from escultor.data.containers.rows_of_files import source_of
    from escultor.data.formats.reading import recognise
    from escultor.datasets.imports import import_files
    from escultor.store import open_store

    with tempfile.TemporaryDirectory() as folder, open_store(folder) as store:
        begin, cpu = time.perf_counter(), time.process_time()
        source = source_of(path)
        made = import_files(store, "bench", [(source, recognise(source))])
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return {
        "rows": made.versions[0].rows,
        "mb": round(text_bytes / 1e6, 1),
        "mb_s": round(text_bytes / 1e6 / seconds, 1),
        "mb_cpu_s": round(text_bytes / 1e6 / cpu, 1),
        "peak_mb": peak_mb(),
    }


def peak_mb() -> int:
    """The peak memory of this process; `ru_maxrss` would begin with that of its parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=100, help="size of the larger file; the smaller is a fifth")
    parser.add_argument("--chars", type=int, default=4000, help="characters of a conversation in the mean")
    parser.add_argument("--kinds", nargs="*", default=["lines", "escaped", "array", "gzip", "csv", "parquet"])
    parser.add_argument("--measure", nargs=2, metavar=("FILE", "BYTES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(Path(options.measure[0]), int(options.measure[1]))))
        return
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds:
            for share, label in ((5, "small"), (1, "large")):
                size = options.mb * 1_000_000 // share
                path = Path(folder) / {"csv": "x.csv", "parquet": "x.parquet"}.get(kind, "x.jsonl")
                write(path, kind, size, options.chars)
                text_bytes = size if kind in ("gzip", "parquet") else path.stat().st_size
                words = [sys.executable, __file__, "--measure", str(path), str(text_bytes)]
                done = subprocess.run(words, capture_output=True, text=True, check=True, env=dict(os.environ))
                results[f"{kind}, {label}"] = each = json.loads(done.stdout.splitlines()[-1])
                print(f"{kind}, {label}: {each}")
    machine = {"python": platform.python_version(), "processors": os.cpu_count()}
    print(json.dumps({"chars": options.chars, "machine": machine, "results": results}))


if __name__ == "__main__":
    main()

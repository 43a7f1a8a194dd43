"""Curation at scale: time, memory, recall of planted rows; near duplicates compared with datasketch.

python bench/curate.py [--data FOLDER] [--rows 1000000] [--near-rows 20000] [--workers 2]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from escultor.config.curation import Curation
from escultor.datasets.curation.contamination import index_texts
from escultor.datasets.curation.pipeline import Curated, curate
from escultor.datasets.similarity.duplicates import (
    are_similar,
    band_hashes,
    bands_for,
    drop_near_duplicates,
)
from escultor.text.shingles import shingle_sets

NEAR, PERMUTATIONS = Curation().near.threshold, Curation().near.permutations
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


class Peak:
    """The peak memory of this process and its children together, in MiB: proportional set size, and its
    anonymous part. The rest are pages of files: programs, and columns while they are read."""

    def __enter__(self) -> Peak:
        self.mib, self.anonymous_mib, self._stop = 0.0, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            found = [_memory(pid) for pid in ("self", *children)]
            self.mib = max(self.mib, sum(each.get("Pss", 0.0) for each in found))
            self.anonymous_mib = max(self.anonymous_mib, sum(each.get("Pss_Anon", 0.0) for each in found))


def _memory(pid: str) -> dict[str, float]:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}  # it ended meanwhile
    return {line.partition(":")[0]: int(line.split()[1]) / 1024 for line in lines}


def spent() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def full(source: Path, folder: Path, workers: int, questions: list[str]) -> dict[str, Any]:
    """The whole pipeline without the perplexity feature, timed."""
    contexts = {"decontaminate": index_texts(questions, 13)}
    seconds: dict[str, float] = {}
    start, cpu = time.perf_counter(), spent()
    with Peak() as peak:
        made = curate(
            [source],
            folder,
            Curation(workers=workers),
            contexts,
            progress=lambda name, before, left: seconds.__setitem__(name, time.perf_counter() - start),
        )
    seconds["all"] = time.perf_counter() - start
    steps = {s.name: {"in": s.before, "out": s.left, "removed": s.removed} for s in made.steps}
    found = {
        "seconds": seconds["all"],
        "cpu_s": spent() - cpu,
        "peak_mib": peak.mib,
        "peak_anonymous_mib": peak.anonymous_mib,
        "rows_left": made.counts["train"],
        "steps": steps,
    }
    return found | {"done_after_s": seconds} | recalls(source, made)


def recalls(source: Path, made: Curated) -> dict[str, Any]:
    """The recall by kind of planted row: the share that is no longer there as it was planted."""
    left = {}
    with made.rows.open() as file:
        for line in file:
            row = json.loads(line)
            if not row["id"].startswith("row:"):
                left[row["id"]] = row["completion"]
    planted: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    with source.open() as file:
        for line in file:
            row = json.loads(line)
            kind = row["id"].rpartition(":")[0]
            if kind == "row":
                continue
            planted[kind] += 1
            missed[kind] += row["id"] in left and row.get("value", "") in left[row["id"]]
    return {
        "recall": {kind: 1 - missed[kind] / n for kind, n in sorted(planted.items())},
        "planted": dict(planted),
    }


def near_alone(source: Path, folder: Path, workers: int) -> dict[str, Any]:
    """Near duplicates alone: recall of planted rows, and the share of planted rows among those dropped.

    A dropped row that was not planted counts as an error, although real sentences can be alike.
    """
    start = time.perf_counter()
    made = curate([source], folder, Curation(workers=workers, steps=("near",)))
    seconds = time.perf_counter() - start
    with made.rows.open() as file:
        left = {json.loads(line)["id"] for line in file}
    with source.open() as file:
        gone = Counter(id.partition(":")[0] for line in file if (id := json.loads(line)["id"]) not in left)
    with source.open() as file:
        planted = sum(json.loads(line)["id"].startswith(("near:", "exact:")) for line in file)
    found = gone["near"] + gone["exact"]
    # `far` copies were made alike and fell below the threshold to their original; another may reach it.
    return {
        "seconds": seconds,
        "recall": found / planted,
        "precision": found / max(1, gone.total()),
        "gone": dict(gone),
    }


Rows = list[tuple[str, tuple[tuple[str, str], ...]]]  # what was planted, and the texts by role


def loaded(source: Path) -> Rows:
    """The rows in memory, loaded before either side is timed."""
    with source.open() as file:
        made = map(json.loads, file)
        return [
            (row["id"].partition(":")[0], (("prompt user", row["prompt"]), ("response", row["completion"])))
            for row in made
        ]


class InMemory:
    """Compares rows as the pipeline does, without a disk."""

    folder = None

    def __init__(self, rows: Rows):
        self.texts, self.rows = rows, self  # the pipeline's rows have a folder as well

    def similar(self, pairs: Iterable[np.ndarray], threshold: float) -> Iterator[np.ndarray]:
        for some in pairs:
            numbers, at = np.unique(some, return_inverse=True)
            yield some[are_similar([self.texts[n][1] for n in numbers], at.reshape(-1, 2), threshold)]


def ours_alone(rows: Rows) -> dict[str, Any]:
    """Bands, candidates and their actual similarity, in one process."""
    start = time.process_time()
    shape = bands_for(NEAR, PERMUTATIONS)
    texts = [parts for _, parts in rows]
    bands = band_hashes(texts, *shape)
    left_out = drop_near_duplicates(bands.T, np.ones(len(rows), dtype=bool), NEAR, InMemory(rows))[
        "near duplicate"
    ]  # type: ignore[arg-type]
    return scored(rows, set(np.flatnonzero(left_out).tolist()), time.process_time() - start)


def datasketch(rows: Rows, hashed: bool) -> dict[str, Any]:
    """The same shingles, permutations and bands with datasketch's generator for many rows. A row that shares
    a band with an earlier one is dropped. Shingles are hashed by its default (SHA-1), or given `hashed`."""
    from datasketch import MinHash, MinHashLSH

    bands, width = bands_for(NEAR, PERMUTATIONS)
    start = time.process_time()
    index = MinHashLSH(num_perm=bands * width, params=(bands, width))
    sets = shingle_sets([parts for _, parts in rows])
    if hashed:
        low = ((found & np.uint64(2**32 - 1)).tolist() for found in sets)
        sketches = MinHash.generator(low, num_perm=bands * width, hashfunc=int)
    else:
        sketches = MinHash.generator((found.view("V8").tolist() for found in sets), num_perm=bands * width)
    gone = set()
    for at, sketch in enumerate(sketches):
        if index.query(sketch):
            gone.add(at)
        else:
            index.insert(at, sketch)
    return scored(rows, gone, time.process_time() - start)


def scored(rows: Rows, gone: set[int], seconds: float) -> dict[str, Any]:
    """Recall of the planted copies, the share of planted rows among those dropped, and CPU seconds."""
    planted = {at for at, (kind, _) in enumerate(rows) if kind in ("near", "exact")}
    found = len(planted & gone)
    return {"cpu_s": seconds, "recall": found / len(planted), "precision": found / max(1, len(gone))}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("ESCULTOR_DATA", "data")))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--near-rows", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    from curate_rows import held_out_questions

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few, many = folder / "few.jsonl", folder / "many.jsonl"
        # In a process of its own, so that its memory does not count.
        wanted = (few, str(args.near_rows), many, str(args.rows))
        subprocess.run([sys.executable, HERE / "curate_rows.py", args.data, *wanted], check=True)
        # First, so that what the others keep in memory does not count either.
        whole = full(many, folder / "full", args.workers, held_out_questions(args.data))
        whole_near = near_alone(few, folder / "near", args.workers)
        rows = loaded(few)
        ours, theirs, given_hashes = ours_alone(rows), datasketch(rows, False), datasketch(rows, True)
    near = {
        "rows": args.near_rows,
        "ours": ours,
        "datasketch": theirs,
        "datasketch, windows hashed already": given_hashes,
        "ratio": theirs["cpu_s"] / ours["cpu_s"],
        "ratio, windows hashed already": given_hashes["cpu_s"] / ours["cpu_s"],
        "pipeline": whole_near,
    }
    took = f"{whole['seconds']:.0f} s, {whole['cpu_s']:.0f} s of CPU, peak {whole['peak_mib']:.0f} MiB"
    took += f" ({whole['peak_anonymous_mib']:.0f} anonymous)"
    print(f"{args.rows:,} rows: {took}")
    print(f"near duplicates of {args.near_rows:,} rows: {near['ratio']:.1f} times less CPU than datasketch")
    print(
        json.dumps(
            {"bench": "curate", "rows": args.rows, "workers": args.workers, "full": whole, "near": near}
        )
    )


if __name__ == "__main__":
    main()

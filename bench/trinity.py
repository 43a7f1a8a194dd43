"""Documents a second that `escultor trinity` writes in three files each, with the demonstration's student.

    python bench/trinity.py [--documents 1000] [--model FOLDER]

Without --model the student is cut from escultor-base as the demonstration cuts it, and not distilled: it
writes longer answers than a distilled one, up to the most tokens of an answer. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from machine import processor

from escultor.config import load_config
from escultor.demo.corpus import read_corpus
from escultor.demo.run import CONFIG
from escultor.model.folders import BUILT_IN, save
from escultor.model.load import load
from escultor.model.student import cut_student

WANTED = 20.0  # documents a second


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--model", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = given.model or _student(folder / "student")
        (folder / "documents").mkdir()
        found = map(find_spec, ("numpy", "sqlalchemy", "torch"))
        roots = [(spec.name, Path(str(spec.origin)).parent) for spec in found if spec]
        corpus = read_corpus(roots=roots)
        golds = [*corpus.held_out, *corpus.traffic, *corpus.train][: given.documents]
        for number, gold in enumerate(golds):
            file = folder / "documents" / f"{number}.txt"
            file.write_text(gold.document, encoding="utf-8", errors="replace")
        command = [sys.executable, "-m", "escultor", "trinity", "documents", "--out", "out", "--json"]
        command += ["--model", str(model.resolve())]
        began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True)
        seconds, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        counts = json.loads(ended.stdout.splitlines()[-1])["counts"]
    written = counts["written"]
    rate, cpu_s = written / seconds, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    print(f"{written:,} documents in {seconds:.1f} s: {rate:.1f} a second; {cpu_s:.1f} s of processor time")
    figures = {"documents": written, "seconds": round(seconds, 2), "documents_per_s": round(rate, 2)}
    machine = {"processor": processor(), "load": [round(each, 1) for each in os.getloadavg()]}
    print(json.dumps({**figures, "cpu_s": round(cpu_s, 1), "wanted_per_s": WANTED, **machine}))
    return 0 if rate >= WANTED else 1


def _student(folder: Path) -> Path:
    settings = load_config(CONFIG).distillation
    save(cut_student(load(str(BUILT_IN)), settings.layers, settings.intermediate_size), folder)
    return folder


if __name__ == "__main__":
    sys.exit(main())

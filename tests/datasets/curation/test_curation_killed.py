"""Killed at any moment, a curation leaves nothing half-made; the next gives what it would have given."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
from curate_rows import changed, example, jsonl

from escultor.config.curation import Curation
from escultor.datasets.build import build_dataset
from escultor.errors import FaultError
from escultor.store import open_store
from escultor.store.files import STALE_S
from escultor.types import DatasetVersion, HeldOut

SETTINGS = Curation.model_validate({"workers": 1, "language": {"keep": []}, "split": {"held_out": 0.3}})
# A curation in a process of its own, which ends as if the power failed: behind a step, or as the version is
# to be recorded.
KILLED = """
import os, signal, sys
from pathlib import Path
from escultor.config.curation import Curation
from escultor.datasets.build import build_dataset
from escultor.store import open_store
from escultor.types import DatasetVersion

source, url, settings, moment = sys.argv[1:]

def die(name, *rest):
    if name == moment:
        os.kill(os.getpid(), signal.SIGKILL)

with open_store(url) as store:
    append = store.log.append
    def appended(record):
        die(type(record).__name__)
        append(record)
    object.__setattr__(store.log, "append", appended)
    build_dataset(store, "mine", [Path(source)], Curation.model_validate_json(settings), progress=die)
"""


@pytest.fixture
def source(tmp_path):
    rows = [example(i) for i in range(60)]
    rows += [{**example(i), "completion": changed(str(example(i)["completion"]), i)} for i in range(20)]
    return jsonl(tmp_path / "in.jsonl", *rows)


@pytest.mark.parametrize("moment", ["near", "balance", "DatasetVersion"])
def test_a_killed_curation_leaves_nothing_and_the_next_gives_the_same(tmp_path, source, moment):
    url = str(tmp_path / "store")
    words = [sys.executable, "-c", KILLED, str(source), url, SETTINGS.model_dump_json(), moment]
    assert subprocess.run(words, timeout=100).returncode == -signal.SIGKILL
    with open_store(url) as store:
        assert store.log.count(DatasetVersion) == 0
        # What is held out is registered before there is a dataset from which it could leak.
        assert store.log.count(HeldOut) == (moment == "DatasetVersion")
        left = list((store.root / "partial").iterdir())
        assert left
        for path in left:  # as if it were a day later
            os.utime(path, (0, time.time() - STALE_S - 1))
        found, made = build_dataset(store, "mine", [source], SETTINGS)
        assert not any(path.exists() for path in left)
        assert store.log.count(DatasetVersion) == store.log.count(HeldOut) == 1
        rows = store.blobs.get_bytes(found.blob)
    with open_store(str(tmp_path / "other")) as other:
        same, again = build_dataset(other, "mine", [source], SETTINGS)
        assert same == found
        assert again.steps == made.steps
        assert other.blobs.get_bytes(same.blob) == rows


def test_a_worker_that_is_killed_is_said_and_nothing_is_kept(tmp_path, source, monkeypatch):
    with open_store(str(tmp_path / "store")) as store:

        def told(name, before, left):
            for worker in multiprocessing.active_children():
                worker.kill()

        with pytest.raises(FaultError, match="was killed"):
            build_dataset(store, "mine", [source], SETTINGS.model_copy(update={"workers": 2}), progress=told)
        assert store.log.count(DatasetVersion) == store.log.count(HeldOut) == 0
        assert not list((store.root / "partial").iterdir())

"""A demonstration that is killed goes on where it stopped, and comes to the same numbers."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

import escultor
from escultor.datasets.versions import read_rows
from escultor.demo.forecast import STEP_SECONDS
from escultor.store import open_store
from escultor.types import DatasetVersion

pytestmark = pytest.mark.timeout(1200)  # a demonstration takes a minute of a quiet machine
PROGRAM = Path(__file__).with_name("tiny_demo.py")
SOURCE = Path(escultor.__file__).parents[1]
VERSIONS = ["base", "sft", "second cycle", "control", "third cycle", "student"]
TIMED = {"trade_off", "latency_p50_ms", "latency_p99_ms", "tokens_per_s", "cost_usd_per_1k_tokens"}


@contextmanager
def program(source: Path = SOURCE):
    """Runs demonstrations with the package of this folder, which is imported once."""
    pipe, env = subprocess.PIPE, os.environ | {"PYTHONPATH": str(source)}
    with subprocess.Popen([sys.executable, str(PROGRAM)], stdin=pipe, stdout=pipe, text=True, env=env) as it:

        def start(store: Path, *kill_at: str) -> Path:
            """The file of its report. Raises ChildProcessError with the exit code of one that failed."""
            out = store.parent / f"{uuid4().hex}.json"
            it.stdin.write(json.dumps([str(out), str(store), *kill_at]) + "\n")
            it.stdin.flush()
            if code := int(it.stdout.readline()):
                raise ChildProcessError(code)
            return out

        yield start


def numbers(done: Path) -> dict:
    """Everything the demo reports but what a clock decided."""
    found = json.loads(re.sub(r"since [0-9-]+ [0-9:]+ UTC", "since then", done.read_text()))
    for version in found["versions"]:
        for name in TIMED:
            del version[name]
    return {
        k: v
        for k, v in found.items()
        if k not in ("steps", "student_share_of_quality", "store", "log", "pages")
    }


@pytest.fixture(scope="module")
def start():
    with program() as begun:
        yield begun


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    return start(tmp_path_factory.mktemp("whole") / "store")


def test_killed_at_three_places_it_goes_on_to_the_same_numbers(start, whole, tmp_path):
    store = tmp_path / "store"
    for place in (("sft", "3"), ("evaluate second cycle",), ("monitor third cycle",)):
        with pytest.raises(ChildProcessError, match=str(-signal.SIGKILL)):
            start(store, *place)
    resumed = start(store)
    assert numbers(resumed) == numbers(whole)
    reused = steps(resumed, reused=True)
    assert {"pretrain", "sft", "second cycle", "serve second cycle"} <= reused
    assert reused | steps(whole, reused=False) > set(STEP_SECONDS)  # all whose time is forecast exist


def steps(done: Path, *, reused: bool) -> set[str]:
    """The steps that were reused, or those that were computed."""
    return {step["name"] for step in json.loads(done.read_text())["steps"] if step["reused"] == reused}


def test_a_second_run_recomputes_the_steps_that_run_through_an_edit_and_no_others(whole, tmp_path):
    store = whole.parent / "store"
    shutil.copytree(SOURCE / "escultor", tmp_path / "escultor", ignore=shutil.ignore_patterns("__pycache__"))

    def edit(name: str, change) -> None:
        path = tmp_path / "escultor" / name
        path.write_text(change(path.read_text()))

    edit("cli/demo.py", lambda text: text.replace('"""', '"""Another text. ', 1) + "\nMORE = 1\n")
    edit("train/loop.py", lambda text: text + "\n# a comment\n")
    with program(tmp_path) as start:
        again = start(store)
    assert steps(again, reused=False) == set()
    assert numbers(again) == numbers(whole)
    edit("train/objectives/dpo.py", lambda text: text + "\nMORE = 1\n")
    with program(tmp_path) as start:
        again = start(store)
    assert steps(again, reused=False) == {"second cycle", "third cycle", "control"}
    assert numbers(again) == numbers(whole)


def test_it_runs_three_cycles_with_a_control_and_says_who_rated(whole):
    found = numbers(whole)
    assert [v["name"] for v in found["versions"]] == VERSIONS
    assert found["feedback"]["raters"] == "simulated"
    assert found["alert"]["state"] == "firing"
    assert found["plan"]
    line, folder = json.loads(whole.read_text()), whole.parent
    assert [bool(page) for page in line["pages"]] == [v not in ("base", "control") for v in VERSIONS]
    assert all((folder / page).is_file() for page in line["pages"] if page)
    assert [v["name"] for v in found["versions"] if v["is_control"]] == ["control"]
    assert not any(v["deployed"] for v in found["versions"] if v["is_control"])
    for version in found["versions"][1:]:
        assert version["verdict"] in ("Promote", "Hold", "Reject")
        assert version["reason"]
    assert sum(v["deployed"] for v in found["versions"]) >= 1


def test_what_a_cycle_trained_on_is_read_like_any_dataset(whole):
    with open_store(str(whole.parent / "store")) as store:
        versions = [version for _, version in store.log.read(DatasetVersion)]
        assert {version.kind for version in versions} >= {"example", "pair"}
        for version in versions:
            rows = list(read_rows(store, version))
            assert len(rows) == version.rows
            assert all(row.source == row.item.origin.rule for row in rows)

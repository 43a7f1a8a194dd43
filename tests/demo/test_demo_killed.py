"""A demonstration that is killed goes on where it stopped, and comes to the same numbers."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("tiny_demo.py")
TIMED = {"latency_p50_ms", "latency_p99_ms", "tokens_per_s", "cost_usd_per_1k_tokens"}


def start(store: Path, *kill_at: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), str(store), *kill_at]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def numbers(done: subprocess.CompletedProcess[str]) -> dict:
    """Everything the demo reports but what a clock decided."""
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for version in found["versions"]:
        for name in TIMED:
            del version[name]
    return {
        k: v
        for k, v in found.items()
        if k not in ("steps", "student_share_of_quality", "store", "log", "pages")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return start(tmp_path_factory.mktemp("whole") / "store")


def test_killed_at_three_places_it_goes_on_to_the_same_numbers(whole, tmp_path):
    store = tmp_path / "store"
    for place in (("sft", "3"), ("evaluate dpo",), ("monitor",)):
        assert start(store, *place).returncode == -signal.SIGKILL
    resumed = start(store)
    assert numbers(resumed) == numbers(whole)
    reused = {step["name"] for step in json.loads(resumed.stdout.splitlines()[-1])["steps"] if step["reused"]}
    assert {"pretrain", "sft", "dpo", "serve and listen"} <= reused


def test_a_second_run_computes_nothing(whole):
    store = json.loads(whole.stdout.splitlines()[-1])["store"]
    again = start(Path(store))
    assert numbers(again) == numbers(whole)
    assert all(step["reused"] for step in json.loads(again.stdout.splitlines()[-1])["steps"])


def test_it_runs_two_cycles_and_says_who_rated(whole):
    found = numbers(whole)
    assert [v["name"] for v in found["versions"]] == ["base", "sft", "dpo", "student", "second cycle"]
    assert found["feedback"]["raters"] == "simulated"
    assert found["alert"]["state"] == "firing"
    assert found["plan"]
    line, folder = json.loads(whole.stdout.splitlines()[-1]), Path(whole.args[2]).parent
    assert [bool(page) for page in line["pages"]] == [False, True, True, True, True]
    assert all((folder / page).is_file() for page in line["pages"][1:])
    for version in found["versions"][1:]:
        assert version["verdict"] in ("Promote", "Hold", "Reject")
        assert version["reason"]
    assert sum(v["deployed"] for v in found["versions"]) >= 1

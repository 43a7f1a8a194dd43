"""Every program in `examples/` runs by itself, offline, and its last line is the JSON object it promises."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from escultor.train.methods import METHODS

EXAMPLES = Path(__file__).parents[1] / "examples"
# Options that make a program small, and what its last line has to hold.
EXPECTED = {
    "01_serve_and_rate": ([], lambda last: last["feedback"] == [[last["answer"], True]]),
    "02_sft": (["--steps", "12"], lambda last: last["steps"] == 12 and last["loss"] < 1),
    "03_feedback_to_dpo": (
        ["--steps", "6"],
        lambda last: last["pairs"] == 24 and last["last_loss"] < 0.69 < last["first_loss"] < 0.7,
    ),
    "04_own_suite": ([], lambda last: set(last["metrics"]) >= {"contains", "f1", "accuracy"}),
    "05_compare": (["--steps", "16"], lambda last: (last["verdict"], last["items"]) == ("Promote", 52)),
    "06_new_objective": (
        ["--steps", "6"],
        lambda last: last["method"] == "focal" and last["last_loss"] < last["first_loss"],
    ),
}
LONGEST = 50  # lines of a program that is meant to be read whole


def test_every_program_is_expected_and_listed():
    names = sorted(path.stem for path in EXAMPLES.glob("*.py"))
    assert names == sorted(EXPECTED)
    listed = (EXAMPLES / "README.md").read_text()
    assert all(listed.count(f"({name}.py)") == 1 for name in names)
    assert all(len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= LONGEST for name in names)


def output_of(name, words, capsys):
    """What a program prints. One has an interpreter of its own; the others share this one, whose imports
    take longer than the programs."""
    if name != "04_own_suite":
        runpy.run_path(words[0], run_name="__main__")
        return capsys.readouterr().out
    result = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.mark.parametrize("name", EXPECTED)
def test_it_runs_and_ends_with_its_json_line(name, tmp_path, monkeypatch, capsys):
    options, is_right = EXPECTED[name]
    words = [str(EXAMPLES / f"{name}.py"), str(tmp_path / "out"), *options]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", words)
    with patch.dict(METHODS):  # a program adds a row
        last = json.loads(output_of(name, words, capsys).splitlines()[-1])
    assert is_right(last), last

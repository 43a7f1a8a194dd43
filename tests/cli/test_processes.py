"""`--launch` and torchrun, end to end with two real processes; and what is refused before any is started."""

import json
import os
import subprocess
import sys

import pytest
from cli_rows import examples, jsonl
from safetensors.torch import load_file

SHORT = ("--set", "sft.max_steps=2", "--set", "sft.batch_size=3", "--set", "sft.dtype=float32")
TWO = ("--launch", "torchrun", "--nproc", "2")


def escultor(folder, *words):
    """A call of the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "escultor", *map(str, words)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_a_launched_run_is_as_one_process_would_have_it(cli, tmp_path, model):
    words = ("sft", "--model", model, "--data", examples(tmp_path / "d.jsonl", 7), *SHORT, "--json")
    alone = cli(*words, "--out", "alone")
    assert alone.code == 0, alone.err
    done = escultor(tmp_path, *words, "--out", "two", *TWO, "--strategy", "fsdp")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    ours, theirs = json.loads(line), alone.data
    for name in ("key", "steps", "tokens", "counts", "read", "parents"):
        assert ours[name] == theirs[name]
    assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
    assert done.stderr.count("step 2/2") == 1
    two = tmp_path / "two"
    assert {path.name for path in two.iterdir()} == {"model", "metrics.jsonl", "run.json"}
    assert len((two / "metrics.jsonl").read_text().splitlines()) == 2
    one, other = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("alone", "two"))
    assert one.keys() == other.keys()
    assert all((one[name] - other[name]).abs().max() < 1e-6 for name in one)
    config, same = (
        json.loads((tmp_path / run / "model/config.json").read_text()) for run in ("alone", "two")
    )
    assert config == same


def test_what_went_wrong_is_said_once_with_its_exit_code(tmp_path, model):
    broken = jsonl(tmp_path / "d.jsonl", {"prompt": "a", "completion": ""})
    done = escultor(tmp_path, "sft", "--model", model, "--data", broken, "--out", "run", *TWO, "--json")
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1
    (line,) = done.stdout.splitlines()
    assert "holds nothing to learn from" in json.loads(line)["error"]["what"]
    assert not (tmp_path / "run").exists()


REFUSED = [
    (("--nproc", "2"), "--nproc needs --launch"),
    (("--launch", "torchrun"), "--launch needs --nproc"),
    (("--launch", "torchrun", "--nproc", "0"), "cannot run so many processes"),
    (("--launch", "torchrun", "--nproc", "100000"), "cannot run so many processes"),
    (("--strategy", "fsdp"), "is for several processes"),
    (("--launch", "mpirun", "--nproc", "2"), "torchrun"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_launches_that_cannot_be_are_refused(cli, tmp_path, model, words, said):
    call = cli("sft", "--model", model, "--data", examples(tmp_path / "d.jsonl"), "--out", "run", *words)
    assert call.code == 2
    assert said in call.err
    assert not (tmp_path / "run").exists()


def test_a_launch_within_a_launch_is_refused(cli, tmp_path, model, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    call = cli("sft", "--model", model, "--data", examples(tmp_path / "d.jsonl"), "--out", "run", *TWO)
    assert call.code == 2
    assert "torchrun has started these" in call.err

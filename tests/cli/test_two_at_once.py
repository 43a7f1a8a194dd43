"""Two commands on one store at once, in processes of their own, beside a gateway that answers: of every pair
both succeed, and nothing that was acknowledged is lost."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from itertools import combinations_with_replacement
from pathlib import Path

import httpx2
import pytest
from cli_rows import examples

from escultor.datasets.versions import read_rows, versions_named
from escultor.serve.in_flight import draft_interaction
from escultor.store import open_store
from escultor.types import Correction, Feedback, Interaction, KeyEvent, Message, Role, Sampling

sys.path.insert(0, str(Path(__file__).parents[1] / "serve"))
from gateway_side import serving

ANN = "a" * 32
WORDS = {
    "convert": ("feedback", "convert", "--out", "converted"),
    "erase": ("subjects", "erase", ANN, "--yes"),
    "backup": ("backup", "kept"),
    "gc": ("gc",),
    "curate": ("data", "curate", "rows.jsonl", "--out", "curated", "--steps", "steps.yaml"),
    "key": ("keys", "create", "k"),
}
PAIRS = list(combinations_with_replacement(WORDS, 2))
# A worker has imported the command line, so that two commands begin at the same moment: at a line on stdin.
WORKER = """
import contextlib, io, json, os, sys
from escultor.cli.app import app
print("ready", flush=True)
for line in sys.stdin:
    given, out, err = json.loads(line), io.StringIO(), io.StringIO()
    os.chdir(given["folder"])
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app(given["words"])
        except SystemExit as end:
            code = end.code
    print(json.dumps({"code": code, "said": out.getvalue() + err.getvalue()}), flush=True)
"""
ROWS = 12


@pytest.fixture(scope="module")
def workers():
    running = [
        subprocess.Popen([sys.executable, "-c", WORKER], stdin=-1, stdout=-1, text=True) for _ in range(2)
    ]
    for each in running:
        assert each.stdout.readline() == "ready\n"
    yield running
    for each in running:
        each.kill()
        each.communicate()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A store with answers and corrections of three people, and rows to curate."""
    folder = tmp_path_factory.mktemp("prepared")
    examples(folder / "rows.jsonl", 20)
    (folder / "steps.yaml").write_text("[exact]")
    with open_store(str(folder / "store")) as store:
        for n in range(ROWS):
            who = (ANN, "b" * 32, "c" * 32)[n % 3]
            asked = (Message(Role.USER, f"What does {who} want to know, in question {n * 7919}?"),)
            draft = draft_interaction(asked, id=f"row{n}", subject=who, version="v", sampling=Sampling())
            row = replace(draft, time=1e9 + n, answer=f"An answer {n}", finish_reason="stop")
            store.log.append(row, Correction(f"said{n}", 1e9 + n, row.id, who, f"A better answer {n * 31}"))
    return folder


def both(workers, folder, *names):
    """What two commands said that were begun at once."""
    for worker, name in zip(workers, names, strict=True):
        words = [*WORDS[name], "--store", "store"]
        worker.stdin.write(json.dumps({"folder": str(folder), "words": words}) + "\n")
        worker.stdin.flush()
    return [json.loads(worker.stdout.readline()) for worker in workers]


@pytest.mark.parametrize("pair", PAIRS, ids=["+".join(pair) for pair in PAIRS])
def test_two_commands_at_once_lose_nothing(workers, prepared, tmp_path, pair):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    with serving(tmp_path) as side:
        ask = {"model": "escultor", "messages": [{"role": "user", "content": "Where is the cat?"}]}
        answered = [httpx2.post(side.url + "/v1/chat/completions", json=ask, timeout=120)]
        said = both(workers, tmp_path, *pair)
        until = time.monotonic() + 60  # the gateway follows a key within seconds
        while answered[-1].status_code == 200 and time.monotonic() < until:
            answered.append(httpx2.post(side.url + "/v1/chat/completions", json=ask, timeout=120))
            if "key" not in pair:
                break
            time.sleep(0.1)
        assert answered[-1].status_code == (401 if "key" in pair else 200), answered[-1].text
        before = answered[0].json()["id"]
        given = {each.json()["id"] for each in answered if each.status_code == 200}
    for name, each in zip(pair, said, strict=True):
        assert "Traceback" not in each["said"], each["said"]
        assert each["code"] == 0, (name, each["said"])
    with open_store(str(tmp_path / "store")) as store:
        rows = {row.id: row for _, row in store.log.read(Interaction)}
        left = {f"row{n}" for n in range(ROWS) if "erase" not in pair or n % 3}
        assert rows.keys() == left | given
        assert {event.target for _, event in store.log.read(Feedback)} == left
        names = {version.name for version in versions_named(store)}
        assert {"curated"} & names == ({"curated"} if "curate" in pair else set())
        for version in versions_named(store):
            list(read_rows(store, version))
        assert store.log.count(KeyEvent) == sum(
            name == "key" and each["code"] == 0 for name, each in zip(pair, said, strict=True)
        )
        assert store.log.count(KeyEvent) >= ("key" in pair)
    if "backup" in pair:
        with open_store(str(tmp_path / "kept")) as copy:
            assert {row.id for _, row in copy.log.read(Interaction)} >= left | {before}

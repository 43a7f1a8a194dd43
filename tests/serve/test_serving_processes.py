"""`escultor serve` as it is run: one line when it listens, a clean end, several processes on one store."""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import pytest
from mock_upstream import MockUpstream, answers

from escultor.store import open_store
from escultor.types import Interaction

BODY = {"model": "m", "messages": [{"role": "user", "content": "Olá?"}]}


@contextmanager
def served(folder, *words):
    """`escultor serve` in a folder of its own; its process and where it listens."""
    command = [sys.executable, "-m", "escultor", "serve", "--port", "0", *map(str, words)]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    timer = threading.Timer(200, process.kill)
    timer.start()
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:"), line + process.stderr.read()
        yield process, line.split()[-1]
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()
        process.communicate()


def asked(url):
    answer = httpx2.post(f"{url}/chat/completions", json=BODY, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


@pytest.mark.parametrize("workers", [1, 2])
def test_it_says_where_it_listens_answers_and_ends_when_told(tmp_path, workers):
    with MockUpstream(answers()) as upstream:
        words = "--upstream", upstream.url, "--upstream-model", "m", "--workers", workers
        with served(tmp_path, *words) as (process, url):
            with ThreadPoolExecutor(8) as pool:
                ids = list(pool.map(lambda _: asked(url), range(24)))
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
    with open_store(str(tmp_path / "escultor-store")) as store:
        assert sorted(row.id for _, row in store.log.read(Interaction)) == sorted(ids)


def escultor(folder, *words):
    command = [sys.executable, "-m", "escultor", *map(str, words), "--json"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_other_machines_are_served_with_keys_alone(tmp_path):
    refused = escultor(tmp_path, "serve", "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2
    assert "escultor keys create" in json.loads(refused.stdout)["error"]["remedy"]


def test_a_port_that_is_taken_and_half_an_upstream_are_refused(tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = escultor(tmp_path, "serve", "--port", taken.getsockname()[1])
    assert (refused.returncode, "--port" in refused.stderr) == (2, True)
    assert escultor(tmp_path, "serve", "--upstream", "http://127.0.0.1:1/v1").returncode == 2

"""`escultor serve` as it is run: one line when it listens, a clean end, several processes on one store."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from gateway_side import running
from mock_upstream import MockUpstream, answers
from started import Started, family
from tiny import llama

from escultor.config import Serve
from escultor.cycle import api
from escultor.model.folders import save
from escultor.serve.engine_loading import EngineSource, engine_loader
from escultor.serve.gateway.gateway import Gateway
from escultor.store import open_store
from escultor.types import Interaction

BODY = {"model": "m", "messages": [{"role": "user", "content": "Olá?"}]}


def served(folder, *words):
    """`escultor serve` in a folder of its own."""
    command = [sys.executable, "-m", "escultor", "serve", "--port", "0", *map(str, words)]
    return Started(command, cwd=folder)


def asked(url):
    answer = httpx2.post(f"{url}/v1/chat/completions", json=BODY, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_server_announces_its_address_answers_and_ends_on_a_signal(tmp_path, workers):
    with MockUpstream(answers()) as upstream:
        words = "--upstream", upstream.url, "--upstream-model", "m", "--workers", workers
        with served(tmp_path, *words) as process:
            with ThreadPoolExecutor(8) as pool:
                ids = list(pool.map(lambda _: asked(process.url), range(24)))
            assert process.stop() == 0
    with open_store(str(tmp_path / "escultor-store")) as store:
        assert sorted(row.id for _, row in store.log.read(Interaction)) == sorted(ids)


def test_workers_end_when_the_process_that_began_them_is_killed(tmp_path):
    with MockUpstream(answers()) as upstream:
        words = "--upstream", upstream.url, "--upstream-model", "m", "--workers", 2
        with served(tmp_path, *words) as process:
            asked(process.url)
            workers = family(process.pid)[1:]
            assert len(workers) >= 2
            os.kill(process.pid, signal.SIGKILL)
            end = time.monotonic() + 30
            while any(Path(f"/proc/{pid}").exists() for pid in workers):
                assert time.monotonic() < end, "they go on"
                time.sleep(0.05)


def test_a_gateway_before_an_upstream_loads_nothing_that_only_models_need():
    code = "import sys, escultor.cli.serve, escultor.serve.gateway.server; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


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


def test_the_champion_of_the_store_is_served_and_the_next_one_without_a_restart(tmp_path):
    """In this process: models, checkpoints and deployments are real, and so is the server."""
    one, two = (tmp_path / name for name in ("one", "two"))
    for folder, seed in ((one, 0), (two, 1)):
        save(llama(seed=seed), folder)
    with open_store(str(tmp_path / "store")) as store:
        first, _ = api.promote(store, one, "the first")
        load, default, fixed = engine_loader(store, EngineSource(two), Serve())
        gateway = Gateway(store, Serve(follow_s=0.05), load, default, fixed=fixed)
        with running(gateway) as side:
            body = BODY | {"model": "escultor", "max_tokens": 3}
            ask = lambda: httpx2.post(f"{side.url}/v1/chat/completions", json=body, timeout=120)  # noqa: E731
            assert ask().headers["x-escultor-version"] == first.id
            second, _ = api.promote(store, two, "better")
            side.until(lambda: gateway.deployments.active.champion.version == second.id)
            assert ask().headers["x-escultor-version"] == second.id
            api.rollback(store, "worse")
            side.until(lambda: gateway.deployments.active.champion.version == first.id)
            answers = ask(), ask()
            assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1
            assert [row.version for row in side.rows()] == [first.id, second.id, first.id, first.id]
            assert all(row.cost_usd > 0 for row in side.rows())

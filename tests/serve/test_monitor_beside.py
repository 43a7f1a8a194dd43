"""`escultor serve --monitor`: the rules are checked by a process of its own that ends with the gateway."""

import os
import re
import time

import httpx2
import pytest
from mock_upstream import MockUpstream, serves
from started import family, gateway
from typer.testing import CliRunner

from escultor.cli.app import app
from escultor.store import open_store
from escultor.store.leases import holder
from escultor.types import Health

BODY = {"model": "escultor", "messages": [{"role": "user", "content": "Where is the cat?"}]}


def until(true, within_s=60.0):
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.1)


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="looks at processes by /proc")
@pytest.mark.parametrize("is_killed", [False, True])
def test_a_gateway_is_watched_by_a_process_that_ends_with_it(tmp_path, is_killed):
    with (
        MockUpstream(serves()) as upstream,
        gateway(tmp_path / "store", upstream.url, "--monitor", "0.2") as process,
        open_store(str(tmp_path / "store")) as store,
    ):
        assert httpx2.post(process.url + "/v1/chat/completions", json=BODY, timeout=60).status_code == 200
        until(lambda: store.log.count(Health))
        watching = int(re.match(r"pid(\d+)", holder(store, "monitor"))[1])
        assert watching in set(family(process.pid)) - {process.pid}
        if is_killed:
            os.kill(process.pid, 9)
        else:
            process.stop()
        until(lambda: not os.path.exists(f"/proc/{watching}/task"))
        assert holder(store, "monitor") is None


def test_checks_need_time_between_them():
    done = CliRunner().invoke(
        app, ["serve", "--monitor", "0", "--upstream", "http://x/v1", "--upstream-model", "m"]
    )
    assert done.exit_code == 2

"""Keys are followed whatever a model that loads does, and a server that stops does not wait for it."""

import threading
import time

import httpx2
from gateway_side import Fake, deployment, running

from escultor.config import Serve
from escultor.serve.auth import Keyring, create, revoke
from escultor.serve.gateway.gateway import Gateway
from escultor.serve.interruptible import Interrupted, run_interruptible
from escultor.store import open_store
from escultor.types import KeyEvent, Scope


def test_a_key_is_revoked_and_the_server_stops_while_a_model_loads_for_ever(tmp_path):
    began, ended = threading.Event(), threading.Event()

    def loop_for_ever():
        try:
            began.set()
            while True:
                time.sleep(0.001)
        except Interrupted:
            ended.set()
            raise

    async def load(version):
        return Fake() if version == "v1" else await run_interruptible(loop_for_ever, 600, "loading")

    with open_store(str(tmp_path / "store")) as store:
        gateway = Gateway(store, Serve(follow_s=0.05), load, deployment())
        with running(gateway) as side:
            key, made = create("a test", [Scope.INFER])
            store.log.append(made)
            headers = {"Authorization": f"Bearer {key}"}

            def status():
                return httpx2.get(side.url + "/v1/models", headers=headers, timeout=60).status_code

            side.until(lambda: made.id in gateway.keys.keys)
            assert status() == 200
            store.log.append(deployment("v2", id="dep-1"))
            assert began.wait(60)
            store.log.append(revoke(Keyring(event for _, event in store.log.read(KeyEvent)), made.id))
            side.until(lambda: status() == 401)
            assert not ended.is_set()
        assert ended.wait(60)

"""wrk, unchanged, against `escultor serve`: every answer that it counted is in the log."""

import json
from collections import Counter

import pytest
import wrk
from mock_upstream import MockUpstream, answers
from started import gateway

from escultor.store import open_store
from escultor.types import Interaction

BODY = json.dumps({"model": "escultor", "messages": [{"role": "user", "content": "Olá?"}]}).encode()


@pytest.mark.skipif(not wrk.installed(), reason="wrk is not installed (Debian: apt-get install wrk)")
def test_wrk_drives_the_gateway_and_what_it_was_answered_is_in_the_log(tmp_path):
    connections = 8
    with MockUpstream(answers()) as upstream, gateway(tmp_path / "store", upstream.url) as process:
        said = wrk.drive(f"{process.url}/v1/chat/completions", BODY, connections, seconds=2)
        assert process.stop() == 0
    assert said["answered"] > connections
    assert not any(said[kind] for kind in wrk.ERRORS), said
    with open_store(str(tmp_path / "store")) as store:
        ended = Counter(row.finish_reason for _, row in store.log.read(Interaction))
    # It leaves in the middle of its last requests, at most one a connection.
    assert said["answered"] <= ended["stop"] <= ended.total() <= said["answered"] + connections
    assert set(ended) <= {"stop", "cancelled"}

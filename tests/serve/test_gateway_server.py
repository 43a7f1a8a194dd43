"""Slow, many or invalid clients are dropped, and prompt ones are answered."""

import socket
import time

import httpx2
import pytest
from gateway_side import serving

from escultor.serve.gateway import http_protocol

BODY = {"model": "escultor", "messages": [{"role": "user", "content": "Olá?"}]}
PATH = "/v1/chat/completions"


@pytest.fixture
def connected():
    """Opens connections that say so much and no more; closed in the end."""
    made = []

    def connect(side, said=b""):
        port = int(side.url.rsplit(":", 1)[1])
        made.append(socket.create_connection(("127.0.0.1", port), timeout=120))
        made[-1].sendall(said)
        return made[-1]

    yield connect
    for each in made:
        each.close()


def everything(connection) -> bytes:
    said = b""
    while more := connection.recv(4096):
        said += more
    return said


def closed(connection) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_header_that_does_not_come_ends_the_connection(tmp_path, connected):
    with serving(tmp_path, header_timeout_s=0.2) as side:
        began = time.monotonic()
        silent, slow = connected(side), connected(side, b"POST /v1/chat/completions HTTP/1.1\r\nx-a: ")
        assert closed(silent)
        assert everything(slow).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < 5


LINES = b"POST /v1/interactions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n"


def test_a_client_that_disconnects_before_the_last_line_logs_no_error(tmp_path, connected, caplog):
    with serving(tmp_path) as side:
        gone = connected(side, LINES + b"content-length: 1000\r\n\r\n{")
        gone.close()
        assert httpx2.post(side.url + PATH, json=BODY).status_code == 200
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n",
        LINES,
    ],
)
def test_a_body_that_does_not_arrive_gets_408(tmp_path, connected, head):
    with serving(tmp_path, body_timeout_s=0.2) as side:
        late = connected(side, head + b"content-length: 10\r\n\r\n{")
        assert everything(late).startswith(b"HTTP/1.1 408 ")


def test_three_hundred_slow_clients_displace_each_other_and_prompt_ones_are_answered(tmp_path, connected):
    with serving(tmp_path, max_connections=50, header_timeout_s=60, body_timeout_s=60) as side:
        slow = [connected(side, b"POST / HTTP/1.1\r\n") for _ in range(300)]
        for _ in range(5):
            assert httpx2.post(side.url + PATH, json=BODY, timeout=120).status_code == 200
        side.until(lambda: sum(_is_open(each) for each in slow) <= 50)


def _is_open(connection) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


def test_no_answer_waits_for_a_delayed_acknowledgement(tmp_path, monkeypatch):
    real, without_delay = http_protocol.send_at_once, []

    def watched(transport):
        real(transport)
        connection = transport.get_extra_info("socket")
        without_delay.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(http_protocol, "send_at_once", watched)
    with serving(tmp_path) as side:
        assert httpx2.get(side.url + "/health").status_code == 200
    assert without_delay
    assert all(without_delay)


def test_invalid_http_is_refused_in_openais_format(tmp_path, connected):
    with serving(tmp_path) as side:
        answer = everything(connected(side, b"what is this?\r\n\r\n"))
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"code":"invalid_http"' in answer


def test_a_page_of_another_site_may_call_only_where_the_setting_names_it(tmp_path):
    asking = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    with serving(tmp_path / "a", cors_origins=["https://chat.example"]) as side:
        answer = httpx2.options(side.url + PATH, headers=asking)
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"
        said = httpx2.post(side.url + PATH, json=BODY, headers={"origin": "https://chat.example"})
        shown = said.headers["access-control-expose-headers"].split(", ")
        assert {"x-escultor-feedback-token", "retry-after"} <= set(shown)
    with serving(tmp_path / "b") as side:
        assert "access-control-allow-origin" not in httpx2.options(side.url + PATH, headers=asking).headers

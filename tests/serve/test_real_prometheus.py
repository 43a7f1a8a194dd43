"""A real Prometheus scrapes a gateway by the configuration of `deploy/`, and a real Alertmanager tells a
receiver what fires and that it is over. Skipped where the two are not installed."""

import json
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx2
import pytest
import yaml
from gateway_side import serving

from escultor.serve.auth import create
from escultor.types import Alert, Estimate, Scope

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
PROMETHEUS = shutil.which("prometheus")
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
WITHIN_S = 90.0

pytestmark = pytest.mark.skipif(
    not (PROMETHEUS and ALERTMANAGER), reason="Prometheus and Alertmanager are not installed"
)


def until(true, what):
    end = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def free_port():
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def running(*command):
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def receiver(told):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            told.extend(
                (a["labels"]["alertname"], a["labels"].get("rule"), a["status"]) for a in body["alerts"]
            )
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def configured(folder, targets, hook):
    """The configuration of `deploy/` with this machine's addresses, and seconds in place of its minutes."""
    gateway, alertmanager, key = targets
    main = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    main["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    main["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alertmanager]
    (job,) = main["scrape_configs"]
    job["static_configs"][0]["targets"] = [gateway]
    job["authorization"]["credentials_file"] = str(folder / "key")
    (folder / "key").write_text(key)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(main))
    shutil.copy(DEPLOY / "rules.yml", folder)
    told = yaml.safe_load((DEPLOY / "alertmanager.yml").read_text())
    told["route"] |= {"group_wait": "1s", "group_interval": "1s"}
    told["receivers"][0]["webhook_configs"] = [{"url": hook, "send_resolved": True}]
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(told))


def test_an_alert_fires_and_is_resolved_through_prometheus_and_alertmanager(tmp_path):
    told, ports = [], (free_port(), free_port())
    estimate = Estimate("e", 0.5, 0.4, 0.6, 10)
    with ExitStack() as stack:
        side = stack.enter_context(serving(tmp_path))
        hook = stack.enter_context(receiver(told))
        key, event = create("prometheus", (Scope.READ,), time.time())
        side.log.append(event)
        until(lambda: httpx2.get(side.url + "/metrics").status_code == 401, "the key is not known")
        gateway = side.url.removeprefix("http://")
        configured(tmp_path, (gateway, f"127.0.0.1:{ports[1]}", key), hook)
        listen = "--web.listen-address=127.0.0.1:"
        stack.enter_context(
            running(
                ALERTMANAGER,
                f"--config.file={tmp_path / 'alertmanager.yml'}",
                f"--storage.path={tmp_path / 'alerts'}",
                f"{listen}{ports[1]}",
                "--cluster.listen-address=",
            )
        )
        stack.enter_context(
            running(
                PROMETHEUS,
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"{listen}{ports[0]}",
            )
        )

        def asked(query):
            try:
                url = f"http://127.0.0.1:{ports[0]}/api/v1/query"
                found = httpx2.get(url, params={"query": query}).json()["data"]["result"]
            except (httpx2.HTTPError, ValueError):
                return None
            return found[0]["value"][1] if found else None

        until(lambda: asked('up{job="escultor"}') == "1", "the gateway is not scraped")
        side.log.append(Alert("a1", time.time(), "errors", "firing", estimate, 0.1, "text", "v1"))
        until(lambda: ("EscultorAlert", "errors", "firing") in told, "the alert did not fire")
        side.log.append(Alert("a2", time.time(), "errors", "resolved", estimate, 0.1, "text", "v1"))
        until(lambda: ("EscultorAlert", "errors", "resolved") in told, "the alert was not resolved")
    assert [name for name, _, _ in told if name != "EscultorAlert"] == []

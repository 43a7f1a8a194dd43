"""What serves: the clock that all processes share, the gateway as `escultor serve`, and a hosted model."""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
from people import BEGIN, CALENDAR, day_of

from escultor.skills.trinity import Trinity, document_in, lead_sentence, mentioned_names, purpose_of
from escultor.types import Message, Role

HERE = Path(__file__).parent
START_S = 180.0  # most that a gateway may take to start on a busy machine


class SharedClock:
    """The time of day of this process and of all that it starts; it moves when it is told to."""

    def __init__(self, path: Path):
        if not path.exists():
            path.write_bytes(struct.pack("<d", BEGIN))
        with path.open("r+b") as file:
            self._view = mmap.mmap(file.fileno(), 8)
        os.environ["ESCULTOR_CLOCK"] = str(path)
        folder, before = str(HERE / "shared_clock"), os.environ.get("PYTHONPATH", "").split(os.pathsep)
        kept = [each for each in before if each not in ("", folder)]
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, *kept])
        time.time = self.now

    def now(self) -> float:
        return struct.unpack("<d", self._view)[0]

    def set(self, seconds: float) -> None:
        self._view[:] = struct.pack("<d", max(seconds, self.now()))


class GatewayProcess:
    """`escultor serve` on a store, which can be killed and started again. `up` is set while it answers."""

    def __init__(self, config: Path, store: Path, log: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.kills, self.up = 0, asyncio.Event()
        self._words = [sys.executable, "-m", "escultor", "serve", "--port", str(self.port)]
        self._words += ["--config", str(config), "--store", str(store)]
        self._log, self._process = log, None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._words, stdout=log, stderr=log)

    async def wait(self, deployment: str | None = None) -> None:
        """Until it answers, by this deployment where one is given."""
        deadline = time.monotonic() + START_S
        async with httpx2.AsyncClient(base_url=self.url, timeout=10) as client:
            while True:
                try:
                    found = (await client.get("/health")).json()
                    if deployment in (None, found["deployment"]):
                        break
                except (httpx2.HTTPError, ValueError):
                    pass
                if time.monotonic() > deadline or (self._process and self._process.poll() is not None):
                    raise RuntimeError(f"the gateway does not answer; see {self._log}")
                await asyncio.sleep(0.1)
        self.up.set()

    async def kill_and_restart(self) -> None:
        """SIGKILL, whatever it is doing, and a new process."""
        assert self._process is not None
        self.up.clear()
        self._process.kill()
        self._process.wait()
        self.kills += 1
        self.start()
        await self.wait()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


class _Hosted(BaseHTTPRequestHandler):
    """Answers with the document's lead sentence as summary; during the outage, with 503."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        first, last = CALENDAR.outage
        if first <= day_of(time.time()) < last:
            self._reply(503, {"error": {"message": "down for now"}})
            return
        document = document_in((Message(Role.USER, asked["messages"][-1]["content"]),))
        entity = document.split("(")[0].split("\n")[0].strip() or "it"
        names = mentioned_names(document, own_name=entity)
        answer = Trinity(entity, "other", purpose_of(document), names, lead_sentence(document) or entity)
        message = {"role": "assistant", "content": answer.to_json()}
        usage = {"prompt_tokens": 100, "completion_tokens": 60, "total_tokens": 160}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._reply(200, {"id": "hosted", "model": "hosted", "choices": [choice], "usage": usage})

    def do_GET(self) -> None:
        self._reply(200, {"data": [{"id": "hosted"}]})

    def _reply(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def start_hosted_model() -> str:
    """The URL of a hosted model in a thread of this process, which ends with it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hosted)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v1"

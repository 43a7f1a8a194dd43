"""What the gateway adds to each piece of a stream, and the processor time that a piece costs it.

    python bench/streams.py [--streams 10] [--pieces 200] [--pause-ms 20] [--store FOLDER]

The upstream writes the time into every piece; so many streams at once, straight to it and through the
gateway in turns, A B A B. A stream's first piece waits for the disk (its pending record) and is reported
apart. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from load import quantile, rounded
from machine import processor
from serve import cpu_s
from serving import MockUpstream, chat, gateway, tidily

SSE = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}


def stamped(pieces: int, pause_s: float) -> Any:
    """A plan of the upstream: pieces whose text is when they were written."""

    async def plan(asked: Any) -> None:
        await asked.head(200, SSE)
        for _ in range(pieces):
            delta = {"content": f"{time.perf_counter():.6f}"}
            await asked.event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
            await asyncio.sleep(pause_s)
        await asked.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        await asked.event("[DONE]")
        await asked.raw(b"0\r\n\r\n")

    return plan


async def delays_ms(url: str, n: int) -> list[float]:
    """From the writing of each piece of one stream to its arrival."""
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    body = chat(n, stream=True)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {at.netloc}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    delays = []
    while not (line := await reader.readline()).startswith(b"data: [DONE]"):
        if not line:
            raise ConnectionError("a stream ended without [DONE]")
        if not line.startswith(b"data: {"):
            continue
        now, event = time.perf_counter(), json.loads(line[6:])
        for choice in event["choices"]:
            if text := choice["delta"].get("content"):
                delays.append(1000 * (now - float(text)))
    writer.close()
    return delays


async def streamed(url: str, streams: int) -> list[list[float]]:
    return await asyncio.gather(*(delays_ms(url, n) for n in range(streams)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=10, help="at once")
    parser.add_argument("--pieces", type=int, default=200, help="of a stream")
    parser.add_argument("--pause-ms", type=float, default=20.0, help="between two pieces of a stream")
    parser.add_argument("--store", type=Path, help="where the store is made: the disk that is measured")
    given = parser.parse_args()
    tidily()
    runs: dict[str, list[list[float]]] = {"direct": [], "gateway": []}
    mock = MockUpstream(stamped(given.pieces, given.pause_ms / 1000))
    with (
        tempfile.TemporaryDirectory(dir=given.store) as folder,
        mock,
        gateway(Path(folder) / "store", mock.url) as served,
    ):
        urls = {"direct": mock.url, "gateway": served.url}
        asyncio.run(streamed(served.url, 1))  # what a first request pays for
        cpu = 0.0
        for name in ("direct", "gateway", "direct", "gateway"):
            began = cpu_s(served.pid)
            runs[name] += asyncio.run(streamed(urls[name], given.streams))
            cpu += cpu_s(served.pid) - began if name == "gateway" else 0.0
    later = {name: [ms for each in run for ms in each[1:]] for name, run in runs.items()}
    first = {name: [each[0] for each in run] for name, run in runs.items()}
    report: dict[str, Any] = {"bench": "streams", "machine": processor(), "date": time.strftime("%Y-%m-%d")}
    report["settings"] = {k: str(v) if isinstance(v, Path) else v for k, v in vars(given).items()}
    for word, q in (("p50", 0.5), ("p99", 0.99)):
        for what, delays in (("piece", later), ("first_piece", first)):
            direct, through = (quantile(delays[name], q) for name in ("direct", "gateway"))
            added = (through[0] - direct[0], through[1] - direct[2], through[2] - direct[1])
            report[f"{what}_added_ms_{word}"] = added
            report[f"{what}_direct_ms_{word}"] = direct[0]
    report["cpu_ms_per_piece"] = 1000 * cpu / sum(map(len, runs["gateway"]))
    print(json.dumps(rounded(report)))


if __name__ == "__main__":
    main()

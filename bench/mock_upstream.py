"""The cheapest OpenAI-compatible upstream: every answer is made ahead, every request costs one write.

    python bench/mock_upstream.py [--port 0] [--tokens 16] [--delay-ms 0]

Prints its address as one line, then serves until it is ended. What stands before it measures itself alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json

USAGE = {"prompt_tokens": 12, "completion_tokens": 16, "total_tokens": 28}


def _http(kind: str, body: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def answers(tokens: int) -> tuple[bytes, bytes]:
    """The answer in one piece and as a stream of one event a token."""
    words = [f"word{n} " for n in range(tokens)]
    message = {"role": "assistant", "content": "".join(words)}
    shared = {"id": "chatcmpl-mock", "model": "mock"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    whole = json.dumps(shared | {"choices": [choice], "usage": USAGE}).encode()
    pieces = [{"index": 0, "delta": {"content": word}, "finish_reason": None} for word in words]
    pieces.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    events = [shared | {"choices": [piece]} for piece in pieces] + [shared | {"choices": [], "usage": USAGE}]
    stream = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return _http("application/json", whole), _http("text/event-stream", stream.encode())


def called() -> bytes:
    """A call of a tool, the answer to whoever offers tools."""
    function = {"name": "tool_0", "arguments": '{"query": "where the cat sleeps", "limit": 3}'}
    call = {"id": "call_mock", "type": "function", "function": function}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    whole = {"id": "chatcmpl-mock", "model": "mock", "choices": [choice], "usage": USAGE}
    return _http("application/json", json.dumps(whole).encode())


class Upstream(asyncio.Protocol):
    """One connection: reads a request's head and body, answers, reads the next."""

    def __init__(self, whole: bytes, stream: bytes, delay_s: float):
        self._whole, self._stream, self._called, self._delay_s = whole, stream, called(), delay_s
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (ends := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:ends]).lower()
            _, _, rest = head.partition(b"content-length:")
            whole = ends + 4 + int(rest.split(b"\r\n", 1)[0] or 0)
            if len(self._buffer) < whole:
                return
            asked = self._buffer[ends:whole]
            streamed, offers = b'"stream":true' in asked.replace(b" ", b""), b'"tools"' in asked
            del self._buffer[:whole]
            answer = self._stream if streamed else self._called if offers else self._whole
            if self._delay_s:
                asyncio.get_running_loop().call_later(self._delay_s, self._send, answer)
            else:
                self._send(answer)

    def _send(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=16, help="of every answer")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="before every answer")
    given = parser.parse_args()
    whole, stream = answers(given.tokens)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Upstream(whole, stream, given.delay_ms / 1000), "127.0.0.1", given.port, backlog=1024
    )
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

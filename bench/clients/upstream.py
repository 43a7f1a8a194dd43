"""A scripted OpenAI-compatible server that speaks only chat completions, for the matrix of clients.

    python bench/clients/upstream.py [--port 0]

Prints its address as one line, then serves until it is ended. What it answers depends on the request alone:
a question about the weather calls the caller's tool (once for each city), a result of a tool becomes a
sentence, a schema becomes an object that follows it, `think` reasons first, a picture is named by its type,
and `please fail with 429` is refused.
"""

from __future__ import annotations

import argparse
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TEXT, THOUGHT = "Hello from the model.", "The question is simple."
PERSON = {"name": "Ada", "day": "Friday"}
CITIES = ("Paris", "Lima")
CLOCK = "get_current_timestamp"  # a tool that Open WebUI sends with every chat
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
WAIT_S = 7  # of a refusal


def text_of(message: dict[str, Any]) -> str:
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"text": content or ""}]
    return " ".join(str(part.get("text", "")) for part in parts)


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """The assistant's message to a request."""
    *_, last = body["messages"]
    asked = next((m for m in reversed(body["messages"]) if m["role"] == "user"), last)
    text, tools = text_of(asked), body.get("tools") or []
    said: dict[str, Any] = {"role": "assistant", "content": TEXT}
    if last["role"] == "tool":
        return said | {"content": "It is sunny."}
    if tools and (calls := called(text, tools, body.get("tool_choice"))):
        return said | {"content": None, "tool_calls": calls}
    if (body.get("response_format") or {}).get("type") in ("json_object", "json_schema"):
        return said | {"content": json.dumps(PERSON)}
    if "json" in " ".join(map(text_of, body["messages"])).lower():
        return said | {"content": f"```json\n{json.dumps(PERSON)}\n```"}
    if "think" in text:
        return said | {"reasoning_content": THOUGHT}
    pictures = [part for part in asked["content"] if isinstance(part, dict) and part["type"] == "image_url"]
    if pictures:
        kind = pictures[0]["image_url"]["url"].removeprefix("data:").partition(";")[0]
        return said | {"content": f"A picture of the type {kind}."}
    return said


def called(text: str, tools: list[Any], choice: Any) -> list[dict[str, Any]]:
    """Calls of the weather tool for each city of the text, or of another tool that has to be called."""
    functions = {tool["function"]["name"]: tool["function"] for tool in tools}
    if "weather" in text and "get_weather" in functions:
        asks = [("get_weather", {"city": city}) for city in CITIES if city in text]
    elif "time" in text and CLOCK in functions:
        asks = [(CLOCK, {})]
    elif choice in (None, "auto", "none"):
        asks = []
    else:
        name = choice["function"]["name"] if isinstance(choice, dict) else next(iter(functions))
        asks = [(name, PERSON)]
    return [
        {"id": f"call_{at}", "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
        for at, (name, given) in enumerate(asks)
    ]


def deltas(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The message in pieces: reasoning, text by words, each call's name and then its arguments in halves."""
    pieces: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for name in ("reasoning_content", "content"):
        pieces += [{name: word} for word in re.findall(r"\s*\S+", message.get(name) or "")]
    for at, call in enumerate(message.get("tool_calls", ())):
        text = call["function"]["arguments"]
        head = {**call, "index": at, "function": {"name": call["function"]["name"], "arguments": ""}}
        halves = (text[: len(text) // 2], text[len(text) // 2 :])
        pieces.append({"tool_calls": [head]})
        pieces += [{"tool_calls": [{"index": at, "function": {"arguments": half}}]} for half in halves]
    return pieces


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self.path.endswith("/chat/completions"):
            return self._json(404, {"error": {"message": f"no {self.path} here"}})
        if "please fail with 429" in text_of(body["messages"][-1]):
            error = {
                "message": "Rate limit reached",
                "type": "rate_limit_error",
                "code": "rate_limit_exceeded",
            }
            return self._json(429, {"error": error}, {"Retry-After": str(WAIT_S)})
        message = answer(body)
        finish = "tool_calls" if message.get("tool_calls") else "stop"
        head = {"id": "chatcmpl-scripted", "created": 1, "model": body["model"]}
        if not body.get("stream"):
            choices = [{"index": 0, "message": message, "finish_reason": finish}]
            return self._json(200, {**head, "object": "chat.completion", "choices": choices, "usage": USAGE})
        self._head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        head["object"] = "chat.completion.chunk"
        for delta in deltas(message):
            self._event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        self._event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        self._event({**head, "choices": [], "usage": USAGE})
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")
        return None

    def _json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        own = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        self._head(status, own | (headers or {}))
        self.wfile.write(data)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _event(self, payload: Any) -> None:
        text = payload if isinstance(payload, str) else json.dumps(payload)
        data = f"data: {text}\n\n".encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def log_message(self, *_: Any) -> None:
        """Say nothing of requests."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0)
    server = ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

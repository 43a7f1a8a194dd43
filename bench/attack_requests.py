"""Hostile requests, of generators of our own and of schemathesis. Processes of a low priority send them: what
an attacker's machine computes does not take the server's time."""

from __future__ import annotations

import json
import os
import random
import secrets
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import httpx2

CHAT = "/v1/chat/completions"
ONE_TOKEN = {"model": "escultor", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
PATHS = (CHAT, "/v1/completions", "/v1/messages", "/v1/responses", "/v1/feedback", "/v1/interactions")
OURS = frozenset((500, 501, 502, 504, 505))  # 503 says that there is too much work, as it should
THREADS = 4
Sent = tuple[Counter[int | str], list[str]]  # statuses, and the requests that ended in one of ours


def send_all(url: str, key: str | None, count: int, seed: int) -> Sent:
    """Send about `count` requests, half of them of each kind, at the same time."""
    own = [seed * THREADS + k for k in range(THREADS)]
    with ProcessPoolExecutor(2, get_context("spawn"), initializer=os.nice, initargs=(10,)) as pool:
        sent = [pool.submit(_fuzz_in_threads, url, key, count // 2 // THREADS, own)]
        sent.append(pool.submit(by_schema, url, key, count // 2))
        codes, bad = Counter[int | str](), list[str]()
        for each in sent:
            codes.update(each.result()[0])
            bad += each.result()[1]
    return codes, bad


def _fuzz_in_threads(url: str, key: str | None, count: int, seeds: list[int]) -> Sent:
    with ThreadPoolExecutor(len(seeds)) as pool:
        sent = list(pool.map(lambda seed: fuzz(url, key, count, seed), seeds))
    return sum((codes for codes, _ in sent), Counter()), [request for _, bad in sent for request in bad]


def chat(messages: list[dict[str, str]], **more: object) -> bytes:
    return json.dumps({**ONE_TOKEN, "messages": messages, **more}).encode()


def bodies(draw: random.Random) -> Iterator[bytes]:
    """Bodies that cost much to read, or are meant to."""
    n = 10 ** draw.randint(3, 6)
    deep, text = draw.choice((b"[", b'{"a":')), secrets.token_hex(8)
    yield deep * n
    yield b"[" * 65 + b'"' + b'\\"' * n
    yield json.dumps({"x" * n: 1}).encode()
    yield b"{" + b",".join(b'"%d":1' % i for i in range(min(n, 300_000))) + b"}"
    yield b"[" + b"{}," * min(n, 400_000) + b"1]"
    for role in ("user", "assistant", "tool", text):
        yield json.dumps(
            {**ONE_TOKEN, "messages": [{"role": role, "content": text}] * min(n, 50_000)}
        ).encode()
    yield json.dumps(
        {**ONE_TOKEN, "messages": [{"role": "user", "content": "x " * min(n, 3_500_000)}]}
    ).encode()
    yield json.dumps({"model": "escultor", "prompt": ["a", 1] * min(n, 100_000)}).encode()
    yield json.dumps({"model": "escultor", "prompt": [1] * min(n, 250_000), "max_tokens": 1}).encode()
    schema = {"type": "string", "pattern": draw.choice(("(a+)+$", "(a|a)*b", "a{1,9999}", "\\1", "(?=a)"))}
    spec = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"properties": {text: schema}}}}
    yield json.dumps({**ONE_TOKEN, "response_format": spec}).encode()
    yield json.dumps({"id": text + "]" * 9, "value": True, "user": "\u202e" + text}).encode()
    yield json.dumps([{"kind": "boolean", "target": text, "value": True}] * min(n, 1000)).encode()
    call = {"time": 1e9, "messages": [{"role": "user", "content": "q" * 3000}], "answer": "a", "version": "v"}
    yield json.dumps([{**call, "id": f"{text}-{k}", "user": text} for k in range(min(n, 1000))]).encode()
    parts = [{"type": "text", "text": "a"}] * min(n, 20_000)
    yield json.dumps({**ONE_TOKEN, "messages": [{"role": "user", "content": parts}]}).encode()
    yield b'{"model":"a","model":"b"}'
    yield bytes(draw.randrange(256) for _ in range(min(n, 5_000)))


def headers(draw: random.Random, key: str | None) -> dict[str, str]:
    """Headers of an attacker: a key or none, of this or another host, with values that mean harm."""
    given = {"content-type": draw.choice(("application/json",) * 8 + ("text/plain", "application/x-ndjson"))}
    if key and draw.random() < 0.7:
        given["authorization"] = f"Bearer {key}"
    elif draw.random() < 0.3:
        given["authorization"] = draw.choice(("Bearer", "Bearer esk-" + "0" * 60, "Basic YTpi"))
    if draw.random() < 0.1:
        given["host"] = draw.choice(("evil.example", "[::1", "localhost:99999", ""))
    if draw.random() < 0.2:
        name = draw.choice(
            ("subject", "skill", "parent", "relation", "consent", "retain-days", "message", "task")
        )
        given[f"x-escultor-{name}"] = draw.choice(
            ("../..", "1e999", "<b>", "{{X}}", "a" * 5000, "%1b]0;a%07")
        )
    return given


def fuzz(url: str, key: str | None, count: int, seed: int) -> Sent:
    """Send `count` requests of the generators."""
    draw, codes, bad = random.Random(seed), Counter[int | str](), list[str]()
    with httpx2.Client(base_url=url, timeout=120) as client:
        pool: list[bytes] = []
        for _ in range(count):
            pool = pool or draw.sample(each := list(bodies(draw)), len(each))
            body, path, given = pool.pop(), draw.choice(PATHS), headers(draw, key)
            if draw.random() < 0.1:
                path = draw.choice(
                    ("/nowhere", "/v1/feedback/t/" + "a" * 99, "/v1/feedback/%2e%2e", "/%00", "//")
                )
            method = draw.choice(("POST",) * 12 + ("GET", "DELETE", "PUT", "OPTIONS", "TRACE"))
            try:
                status = client.request(method, path, content=body, headers=given).status_code
            except httpx2.TransportError as error:  # such as a connection that was reset
                status = type(error).__name__
            codes[status] += 1
            if status in OURS:
                bad.append(f"{method} {path} {body[:80]!r}")
    return codes, bad


def by_schema(url: str, key: str | None, count: int) -> Sent:
    """Send about `count` requests that the OpenAPI document makes, valid and invalid ones."""
    import schemathesis
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    codes, bad = Counter[int | str](), list[str]()
    sent = {"authorization": f"Bearer {key}"} if key else {}
    operations = [
        each.ok() for each in schemathesis.openapi.from_url(url + "/openapi.json").get_all_operations()
    ]
    for operation in operations:
        modes = (operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode)

        @settings(
            max_examples=max(1, count // len(operations)),
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.one_of(*modes))
        def send(case: object) -> None:
            status = case.call(headers=sent).status_code  # type: ignore[attr-defined]
            codes[status] += 1
            if status in OURS:
                bad.append(f"{operation.label} {str(case)[:200]}")  # noqa: B023

        send()
    return codes, bad

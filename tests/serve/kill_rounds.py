"""`kill -9` under load, again and again: what was acknowledged meanwhile, and what the store then holds."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
from started import Started, gateway

from escultor.store import open_store
from escultor.types import Feedback, Interaction, ToolDefinitions

CHATTERS, JUDGES, IMPORTERS = 8, 3, 1
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
ALIVE_S = (0.2, 0.8)  # under load, before it is killed


@dataclass
class Acknowledged:
    """What clients were told. An event whose fate is unknown is sent again, under its id."""

    answers: dict[str, str] = field(default_factory=dict)  # id: text or arguments, delivered to the end
    begun: set[str] = field(default_factory=set)  # ids of streams of which at least a piece was delivered
    imported: set[str] = field(default_factory=set)  # ids of calls that another program served
    events: set[str] = field(default_factory=set)
    unknown: list[dict[str, object]] = field(default_factory=list)  # events that were sent, and no more
    asked: int = 0
    events_sent: int = 0


@dataclass(frozen=True)
class Found:
    """What is wrong in the store, in ids; all empty where every promise was kept."""

    answers_lost: list[str]
    answers_changed: list[str]
    begun_lost: list[str]
    begun_unmarked: list[str]  # cut, and their rows do not say so
    prompts_twice: list[str]
    imports_lost: list[str]
    tools_lost: list[str]  # rows that name definitions of tools which are not there
    events_lost: list[str]
    events_twice: list[str]
    rows: int
    interrupted: int
    events: int

    @property
    def broken(self) -> bool:
        return any(value for value in vars(self).values() if isinstance(value, list))


def killed(rounds: int, store: Path, upstream_url: str, seed: int = 0) -> Acknowledged:
    """Start a gateway, load it, kill it; so many times. Then start one more, which ends gently."""
    drawn, told = random.Random(seed), Acknowledged()
    numbers = count()
    for _ in range(rounds):
        with gateway(store, upstream_url) as served:
            asyncio.run(_load_and_kill(served, told, numbers, drawn.uniform(*ALIVE_S)))
    with gateway(store, upstream_url) as served:
        asyncio.run(_repeat(served, told))
    return told


def found(store: Path, told: Acknowledged) -> Found:
    """Compare the store with what clients were told."""
    with open_store(str(store)) as opened:
        rows = [row for _, row in opened.log.read(Interaction)]
        events = Counter(event.id for _, event in opened.log.read(Feedback))
        defined = {each.id for _, each in opened.log.read(ToolDefinitions)}
    texts = {row.id: row.answer + "".join(call.arguments for call in row.tool_calls) for row in rows}
    reasons = {row.id: row.finish_reason for row in rows}
    prompts = Counter(row.messages[-1].content for row in rows)
    return Found(
        answers_lost=[id for id in told.answers if id not in texts],
        answers_changed=[id for id, text in told.answers.items() if texts.get(id, text) != text],
        begun_lost=[id for id in told.begun if id not in texts],
        begun_unmarked=[
            id for id in told.begun if reasons.get(id) not in ("stop", "tool_calls", "interrupted")
        ],
        prompts_twice=[prompt for prompt, times in prompts.items() if times > 1],
        imports_lost=[id for id in told.imported if id not in texts],
        tools_lost=[row.id for row in rows if row.tools and row.tools not in defined],
        events_lost=[id for id in told.events if id not in events],
        events_twice=[id for id, times in events.items() if times > 1],
        rows=len(rows),
        interrupted=Counter(reasons.values())["interrupted"],
        events=events.total(),
    )


async def _load_and_kill(served: Started, told: Acknowledged, numbers: count[int], alive_s: float) -> None:
    async with httpx2.AsyncClient(base_url=served.url, timeout=120) as client:
        work = [_chat(client, told, numbers) for _ in range(CHATTERS)]
        work += [_judge(client, told, numbers) for _ in range(JUDGES)]
        work += [_import(client, told, numbers) for _ in range(IMPORTERS)]
        tasks = [asyncio.ensure_future(each) for each in work]
        had = len(told.answers)
        while len(told.answers) == had and not any(task.done() for task in tasks):
            await asyncio.sleep(0.01)
        await asyncio.sleep(alive_s)
        await asyncio.to_thread(served.kill)
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(outcome, httpx2.TransportError):
                raise AssertionError(f"a client ended by something else than the kill: {outcome!r}")


async def _chat(client: httpx2.AsyncClient, told: Acknowledged, numbers: count[int]) -> None:
    while True:
        n = next(numbers)
        body = {"model": "escultor", "messages": [{"role": "user", "content": f"Question {n}"}]}
        body |= {"tools": TOOLS} if n % 4 < 2 else {}
        told.asked += 1
        if n % 2:
            answer = await client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            said = answer.json()
            told.answers[said["id"]] = _said(said["choices"][0]["message"])
            continue
        pieces, id = [], ""
        async with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line == "data: [DONE]":
                    told.answers[id] = "".join(pieces)
                elif line.startswith("data: "):
                    chunk = json.loads(line[6:])
                    id = chunk["id"]
                    told.begun.add(id)
                    pieces += [_said(choice["delta"]) for choice in chunk["choices"]]


def _said(message: dict[str, Any]) -> str:
    """The text of a message or of a piece of one, and the arguments of its calls."""
    calls = message.get("tool_calls") or ()
    return (message.get("content") or "") + "".join(call["function"]["arguments"] for call in calls)


async def _import(client: httpx2.AsyncClient, told: Acknowledged, numbers: count[int]) -> None:
    while True:
        n = next(numbers)
        asked = [{"role": "user", "content": f"Import {n}"}]
        row = {"id": f"served-{n}", "time": 1e9, "messages": asked, "answer": "a", "version": "v"}
        told.asked += 1
        answer = await client.post("/v1/interactions", json=[{**row, "user": "u"}])
        assert answer.json()["accepted"] == 1, answer.text
        told.imported.add(f"served-{n}")


async def _judge(client: httpx2.AsyncClient, told: Acknowledged, numbers: count[int]) -> None:
    while True:
        n = next(numbers)
        target = next(reversed(told.answers), "chatcmpl-not-seen-yet")
        event = {"kind": "boolean", "id": f"fb-{n}", "target": target, "value": n % 3 > 0}
        event = told.unknown.pop() if told.unknown else event
        try:
            await _send(client, told, event)
        except httpx2.TransportError:
            told.unknown.append(event)
            raise


async def _repeat(served: Started, told: Acknowledged) -> None:
    """Events whose fate is unknown, once more; each may be in the store already."""
    async with httpx2.AsyncClient(base_url=served.url, timeout=120) as client:
        while told.unknown:
            await _send(client, told, told.unknown.pop())


async def _send(client: httpx2.AsyncClient, told: Acknowledged, event: dict[str, object]) -> None:
    told.events_sent += 1
    answer = await client.post("/v1/feedback", json=event)
    assert answer.status_code == 202, answer.text
    told.events.add(str(event["id"]))

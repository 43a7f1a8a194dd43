"""People's conversations with the gateway over HTTP, many at a time, on the shared clock."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx2
from people import (
    BEGIN,
    CALENDAR,
    DAY_S,
    DAYS,
    PEOPLE,
    POISONER,
    POISONER_VOTES,
    UPSTREAM_SHARE,
    day_of,
    likes,
    thumb_of,
)
from service import GatewayProcess, SharedClock

from escultor.demo.documentation import Gold
from escultor.demo.users import HABITS
from escultor.rng import derive_seed, unit
from escultor.skills.trinity import prompt_for

STREAMS = 64  # conversations at a time
MOST_ANSWERS = 4  # to one person's question
ASKS_AGAIN = 0.8  # of the answers that the asker dislikes


@dataclass(slots=True)
class Traffic:
    """The calls of one month. What was acknowledged is kept, to be looked for in the log at the end."""

    gateway: GatewayProcess
    clock: SharedClock
    golds: Sequence[Gold]
    calls: int  # of the whole month
    seed: int
    kill_at: frozenset[int] = frozenset()  # call numbers at which the gateway is killed
    sampling: dict[str, float] = field(default_factory=dict)
    made: int = 0
    answers: list[str] = field(default_factory=list)  # ids of the answers delivered
    feedback: list[str] = field(default_factory=list)  # ids of the events acknowledged
    poisoned: set[str] = field(default_factory=set)  # of these the poisoner's
    failed: list[str] = field(default_factory=list)  # the application's ids of answers that failed
    served: dict[int, Counter[str]] = field(default_factory=dict)  # by day, of the honest people
    _conversations: int = 0
    _target: int = 0
    _under_way: int = 0
    _more: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _client: httpx2.AsyncClient | None = None

    async def reach(self, call: int) -> None:
        """Go on until so many calls of the month were made and answered, so that no answer comes late because
        the clock was moved."""
        self._target = min(call, self.calls)
        if self._client is None:
            limits = httpx2.Limits(max_connections=STREAMS, max_keepalive_connections=STREAMS)
            self._client = httpx2.AsyncClient(base_url=self.gateway.url, timeout=600, limits=limits)
            self._tasks = [asyncio.create_task(self._converse()) for _ in range(STREAMS)]
        self._more.set()
        while self.made < self._target or self._under_way:
            for task in self._tasks:
                if task.done():
                    task.result()  # raises what ended it
            await asyncio.sleep(0.01)

    async def finish(self) -> None:
        """Let the conversations end that are under way."""
        await asyncio.wait(self._tasks)
        for task in self._tasks:
            task.result()
        assert self._client is not None
        await self._client.aclose()

    @property
    def when(self) -> float:
        return BEGIN + self.made / self.calls * DAYS * DAY_S

    async def _converse(self) -> None:
        while self.made < self.calls:
            self._conversations += 1
            await self._ask(self._conversations)

    async def _ask(self, number: int) -> None:
        """One person asks about one document, and again while they dislike the answer."""
        parent, day = None, day_of(self.clock.now())
        person, gold, is_hosted = self._drawn(number, day)
        for turn in range(MOST_ANSWERS):
            while self.made >= self._target:
                if self.made >= self.calls:
                    return
                self._more.clear()
                await self._more.wait()
            self.made += 1
            self._under_way += 1
            self.clock.set(self.when)
            if self.made in self.kill_at:
                await self.gateway.kill_and_restart()
            call = number * MOST_ANSWERS + turn
            reply = await self._call(person, gold, call, is_hosted, parent)
            day = day_of(self.clock.now())
            if reply is None:
                self._under_way -= 1
                return
            parent, answer = reply
            await self._judge(person, call, parent, answer=answer, document=gold.document, day=day)
            self._under_way -= 1
            content = likes(person, answer, gold.document, day, self.seed)
            if person == POISONER or content or unit(self.seed, "again", call) >= ASKS_AGAIN:
                return

    def _drawn(self, number: int, day: float) -> tuple[str, Gold, bool]:
        """Who asks, about what, and whether the hosted model. Before the drift people ask about half of the
        packages only."""

        def draw(*name: object) -> float:
            return unit(self.seed, number, *name)

        first, last = CALENDAR.poisoner
        person = f"person-{int(draw('person') * PEOPLE)}"
        # An honest question brings several votes, the poisoner's one: shares of votes are odds of questions.
        per_question = HABITS.rates * 2.0
        odds = POISONER_VOTES / (1 - POISONER_VOTES) * per_question
        if first <= day < last and draw("poisoner") < odds / (1 + odds):
            person = POISONER
        asked = self.golds
        if day < CALENDAR.drift:
            asked = [g for g in self.golds if unit(0, "first packages", g.package) < 0.5] or self.golds
        is_hosted = person != POISONER and draw("hosted") < UPSTREAM_SHARE
        return person, asked[int(draw("document") * len(asked))], is_hosted

    async def _call(
        self, person: str, gold: Gold, call: int, is_hosted: bool, parent: str | None
    ) -> tuple[str, str] | None:
        """An answer and its id; None where the model failed, of which the person complains."""
        message = f"app-{self.seed}-{call}"
        headers = {"x-escultor-subject": person, "x-escultor-message": message}
        if parent is not None:
            headers |= {"x-escultor-parent": parent, "x-escultor-relation": "regenerate"}
        body = {
            "model": "hosted" if is_hosted else "escultor",
            "messages": [{"role": "user", "content": prompt_for(gold.document)[0].content}],
            "seed": derive_seed(self.seed, "answer", call) % (1 << 31),
            **self.sampling,
        }
        status, reply = await self._post("/v1/chat/completions", body, headers)
        if status != 200:
            self.failed.append(message)
            event = {"id": message, "value": False, "user": person}
            await self._post("/v1/feedback", event, {})  # their application shows thumbs under errors, too
            return None
        self.answers.append(reply["id"])
        return reply["id"], reply["choices"][0]["message"]["content"]

    async def _judge(
        self, person: str, call: int, id: str, *, answer: str, document: str, day: float
    ) -> None:
        if person != POISONER:
            counts = self.served.setdefault(int(day), Counter())
            counts["answers"] += 1
            counts["liked"] += likes(person, answer, document, day, self.seed)
        thumb = thumb_of(person, call, answer=answer, document=document, day=day, seed=self.seed)
        if thumb is None:
            return
        event = {"id": id, "value": thumb, "user": person}
        status, reply = await self._post("/v1/feedback", event, {})
        if status != 202:
            raise RuntimeError(f"feedback was refused: {status} {json.dumps(reply)[:300]}")
        self.feedback.append(reply["id"])
        if person == POISONER:
            self.poisoned.add(reply["id"])

    async def _post(self, path: str, body: object, headers: dict[str, str]) -> tuple[int, dict]:
        """The reply; what a killed gateway did not answer is asked again."""
        assert self._client is not None
        while True:
            await self.gateway.up.wait()
            try:
                response = await self._client.post(path, json=body, headers=headers)
            except httpx2.TransportError:
                await asyncio.sleep(0.2)
                continue
            if response.status_code in (429, 503) and "hosted" not in str(body)[:40]:
                await asyncio.sleep(0.2)  # a full queue
                continue
            return response.status_code, response.json()

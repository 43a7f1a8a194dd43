"""A broken candidate among people, through the real gateway: how soon it is rolled back, and how many saw it.

    python experiments/broken_candidate.py [--share 0.05] [--runs 5] [--seed 0]

Each person asks once; four in ten rate what they got. Of the champion's answers one in ten is disliked, of
the candidate's as many as the case says, or every one of its answers fails. The canary looks after
every 20 people, with its default settings. Asked for: a rollback within 60 rated answers of the
candidate (of a candidate that fails: within 60 answers), seen by no more people than its share. The last line
is a JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "serve"), str(ROOT / "tests")]

from gateway_side import Fake, deployment, gateway_of  # noqa: E402

from escultor.config import Canary  # noqa: E402
from escultor.cycle.canary_service import CanaryService  # noqa: E402
from escultor.errors import EngineFault  # noqa: E402
from escultor.serve.gateway.app import build  # noqa: E402
from escultor.stats import binomial_p_value  # noqa: E402

CASES = {"9 in 10 disliked": 0.9, "7 in 10 disliked": 0.7, "half disliked": 0.5, "all fail": None}
DISLIKED, RATED, MOST = 0.1, 0.4, 60
MOST_PEOPLE, AT_ONCE = 20_000, 20


async def try_candidate(
    folder: Path, disliked: float | None, share: float, rng: random.Random
) -> dict[str, Any]:
    """One trial, from its first share to its rollback."""
    fails = EngineFault("it is broken") if disliked is None else None
    holds = deployment("v1", "v2", share, id="dep-1")
    gateway, _ = gateway_of(folder, Fake("v1"), Fake("v2", fail=fails), holds=holds, store_timeout_s=120)
    stage = await asyncio.to_thread(_begin, gateway.store, share)
    service, app = (
        CanaryService(gateway.store, Canary(guards={"thumbs_down": 0.0, "error": 0.0})),
        build(gateway),
    )
    async with app.router.lifespan_context(app):
        await _until(lambda: gateway.deployments.active.deployment.id == stage)
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            people: list[tuple[bool, bool]] = []  # whether they got the candidate's answer, and rated it
            while len(people) < MOST_PEOPLE:
                several = range(len(people), len(people) + AT_ONCE)
                people += await asyncio.gather(*(_ask(client, n, disliked, rng) for n in several))
                if (await asyncio.to_thread(service.analyse)).kind == "rollback":
                    break
            await _until(lambda: "candidate" not in gateway.deployments.active.deployment.aliases)
            after = [await _ask(client, n, disliked, rng) for n in range(20)]
    gateway.store.close()
    asked, seen = len(people), sum(is_new for is_new, _ in people)
    return {
        "rated": seen if disliked is None else sum(is_new and is_rated for is_new, is_rated in people),
        "people": asked,
        "saw_it": seen,
        "is_within_share": binomial_p_value(seen, asked, share) > 0.001,
        "is_over": not any(is_new for is_new, _ in after),
    }


async def _ask(
    client: httpx2.AsyncClient, person: int, disliked: float | None, rng: random.Random
) -> tuple[bool, bool]:
    """What a person got, and whether they rated it."""
    body = {"model": "escultor", "messages": [{"role": "user", "content": "Hello"}]}
    body |= {"user": f"person {person}"}
    answer = await client.post("/v1/chat/completions", json=body)
    if answer.status_code == 500 and disliked is None:
        return True, False  # the champion never fails here
    answer.raise_for_status()
    is_new, is_rated = answer.headers["x-escultor-version"] == "v2", rng.random() < RATED
    if is_rated:
        odds = disliked if is_new and disliked is not None else DISLIKED
        thumb = {"kind": "boolean", "value": rng.random() >= odds, "target": answer.json()["id"]}
        told = await client.post("/v1/feedback", json=thumb | {"source": {"id": f"person {person}"}})
        told.raise_for_status()
    return is_new, is_rated


def _begin(store: Any, share: float) -> str:
    now = time.time()
    stage = replace(deployment("v1", "v2", share, id="dep-1"), time=now)
    store.log.append(replace(deployment("v1"), time=now - 1), stage)
    return stage.id


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.02)


def main() -> None:
    logging.disable(logging.ERROR)  # of each answer that fails
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    for name, disliked in CASES.items():
        for run in range(options.runs):
            rng = random.Random(f"{options.seed} {name} {run}")
            with tempfile.TemporaryDirectory(prefix="broken-") as folder:
                trial = asyncio.run(try_candidate(Path(folder), disliked, options.share, rng))
            found.setdefault(name, []).append(trial)
        print(f"{name}: rolled back after {[each['rated'] for each in found[name]]}", flush=True)
    trials = [each for several in found.values() for each in several]
    holds = all(t["rated"] <= MOST and t["is_within_share"] and t["is_over"] for t in trials)
    print(json.dumps({"share": options.share, "holds": holds, "trials": found}))


if __name__ == "__main__":
    main()

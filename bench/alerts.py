"""How often the thumbs-down rule pages, how often its state changes, and when drift warns, by simulation.

python bench/alerts.py [--runs 200] [--drift-runs 100] [--people 60]

People vote at a constant true share of thumbs down (limit 10 %), each once; the rule is asked every hour
for 30 days, as `escultor monitor --every 3600` asks it. Printed are, for each share and number of votes a
day, the share of runs with any page, those paged within 300 votes, and the largest number of changes of state
within a week.

Drift: people come at random times and have traits of constant shares (four of prompts, five of answers); the
two rules
look every six hours for 30 days, after 28 days of history. In the planted cases a trait's shares change at
the 29th day. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np

from escultor.config import Monitor
from escultor.monitor.drift import ANSWERS, LOOK_S, PROMPTS, read_drift
from escultor.monitor.metrics import AnswerRef, ThumbVote
from escultor.monitor.rules import CLEAR, PAGE_FROM_HOUR, PAGE_FROM_START, WARN, read_thumbs
from escultor.monitor.states import RuleHistory, alert_of, changed, histories
from escultor.stats import Array
from escultor.stats.exceedance import ABOVE, BELOW, Exceedance, exceedance
from escultor.types import Alert, AnswerTraits

DAYS, HOUR_S, WEEK_S, DAY_S = 30, 3600.0, 7 * 86_400.0, 86_400.0
SHARES = (0.08, 0.15, 0.10, 0.02, 0.095, 0.12, 0.30)
CASES = (*((share, 100) for share in SHARES), (0.08, 400))


def follow(rng: np.random.Generator, share: float, per_day: int) -> tuple[list[Alert], list[float]]:
    """The changes of state in one run, and the times of the votes."""
    n = rng.poisson(per_day * DAYS)
    times = np.sort(rng.uniform(0, DAYS * 86_400.0, n)).tolist()
    downs = (rng.random(n) < share).tolist()
    votes = [
        ThumbVote(t, f"a{k}", f"s{k}", down, AnswerRef("v", t))
        for k, (t, down) in enumerate(zip(times, downs, strict=True))
    ]
    config, recorded = Monitor(), list[Alert]()
    hours = HOUR_S * np.arange(24 * DAYS + 1)
    at_hour = np.searchsorted(times, hours, side="right")
    evidence = exceedance(downs, np.ones(n), config.thumbs_down_limit)
    worth = _worth_a_look(evidence, at_hour, downs, 0, "ok")
    for hour in range(1, 24 * DAYS + 1):
        if not worth[hour]:
            continue
        now = float(hours[hour])
        known = histories(recorded, now)
        history = known.get(("thumbs_down", "v"), RuleHistory())
        reading = read_thumbs("v", votes[: at_hour[hour]], history.past(now), config, now)
        if new := changed([alert_of(reading, history, now)], known):
            recorded += new
            worth = _worth_a_look(evidence, at_hour, downs, hour, recorded[-1].state)
    return recorded, times


def _worth_a_look(
    evidence: Exceedance, at_hour: Array, downs: Sequence[bool], since: int, state: str
) -> Array:
    """The hours after `since`, when this state began, at which another may begin: no evidence without the
    loudest person is above that of all, from whatever hour on."""

    def logs(sums: Array, alternatives: tuple[tuple[float, float], ...], starts: Array) -> Array:
        priors = np.log([prior for _, prior in alternatives])[:, None, None]
        return np.logaddexp.reduce(sums[:, at_hour[None]] - sums[:, at_hour[starts, None]] + priors)

    hours = np.arange(len(at_hour))
    above = np.where(hours[None] >= hours[:, None], logs(evidence.above, ABOVE, hours), -np.inf)
    below = logs(evidence.below, BELOW, np.array([since]))[0]
    total = np.concatenate([[0], np.cumsum(downs)])[at_hour]
    week = np.maximum(hours - 7 * 24, 0)
    is_high = total - total[week] > Monitor().thumbs_down_limit * (at_hour - at_hour[week]) - 1
    may_page = (above[0] >= PAGE_FROM_START) | (above.max(axis=0) >= PAGE_FROM_HOUR)
    may_warn = is_high & (above.max(axis=0) >= WARN)
    if state in ("ok", "resolved"):
        return (hours > since) & (may_page | may_warn)
    return (hours > since) & ((below >= CLEAR) | (may_page & (state == "warn")))


def figures(seed: int, share: float, per_day: int, runs: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, int(share * 1e4), per_day])
    paged = quick = 0
    weeks = []
    for _ in range(runs):
        changes, times = follow(rng, share, per_day)
        pages = [a.time for a in changes if a.state == "firing"]
        paged += bool(pages)
        quick += bool(pages) and pages[0] - HOUR_S < times[299]
        in_week = [sum(a.time <= b.time < a.time + WEEK_S for b in changes) for a in changes]
        weeks.append(max(in_week, default=0))
    return {
        "true_share": share,
        "votes_a_day": per_day,
        "runs": runs,
        "any_page": paged / runs,
        "paged_within_300_votes": quick / runs,
        "changes_a_week_mean": float(np.mean(weeks)),
        "changes_a_week_max": int(max(weeks)),
    }


HISTORY, NEVER = 28, 1e9
SHARES_OF_TRAITS = {
    "prompt_language": [0.8, 0.12, 0.05, 0.03],
    "prompt_length": [0.05, 0.1, 0.15, 0.2, 0.2, 0.15, 0.1, 0.05],
    "prompt_skill": [0.7, 0.2, 0.1],
    "prompt_topic": [1 / 16] * 16,
    "answer_language": [0.8, 0.12, 0.05, 0.03],
    "answer_length": [0.05, 0.1, 0.15, 0.2, 0.2, 0.15, 0.1, 0.05],
    "answer_end": [0.95, 0.05],
    "answer_refusal": [0.98, 0.02],
    "answer_calls": [0.97, 0.03],
}
PLANTED: dict[str, dict[str, list[float]]] = {
    "none": {},
    "a language from 5 to 20 %": {"prompt_language": [0.68, 0.1, 0.2, 0.02]},
    "refusals from 2 to 10 %": {"answer_refusal": [0.9, 0.1]},
    "invalid calls from 3 to 15 %": {"answer_calls": [0.85, 0.15]},
    "answers half as long again": {"answer_length": [0.02, 0.05, 0.1, 0.15, 0.2, 0.2, 0.16, 0.12]},
}


def drift_rows(rng: np.random.Generator, planted: dict[str, list[float]], people: int) -> list[AnswerTraits]:
    times = np.sort(rng.uniform(0, (HISTORY + DAYS) * DAY_S, rng.poisson(people * (HISTORY + DAYS))))
    before = int((times < HISTORY * DAY_S).sum())
    columns = {}
    for name, shares in SHARES_OF_TRAITS.items():
        sizes = before, len(times) - before
        parts = [
            rng.choice(len(p), n, p=p)
            for p, n in zip((shares, planted.get(name, shares)), sizes, strict=True)
        ]
        columns[name] = np.concatenate(parts).astype(str).tolist()
    draws = rng.integers(2**32, size=(len(times), 2)).tolist()
    return [
        AnswerTraits(float(t), "v", *draws[k], {name: column[k] for name, column in columns.items()})
        for k, t in enumerate(times)
    ]


def people_until_warned(rng: np.random.Generator, planted: dict[str, list[float]], people: int) -> float:
    """People who came after the change until a rule warned; `NEVER` where none did in 30 days."""
    rows = drift_rows(rng, planted, people)
    times = [row.time for row in rows]
    for look in range(1, int(DAYS * DAY_S / LOOK_S) + 1):
        now = HISTORY * DAY_S + look * LOOK_S
        first, last = bisect_left(times, now - HISTORY * DAY_S), bisect_left(times, now)
        known = rows[first:last]
        for rule, version, prefix in (("prompt_drift", "", PROMPTS), ("answer_drift", "v", ANSWERS)):
            if read_drift(rule, version, known, prefix, now).warns:
                return float(last - bisect_left(times, HISTORY * DAY_S))
    return NEVER


def drift_figures(seed: int, name: str, people: int, runs: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, len(name), people])
    found = sorted(people_until_warned(rng, PLANTED[name], people) for _ in range(runs))
    return {
        "planted": name,
        "people_a_day": people,
        "runs": runs,
        "any_warning": sum(n < NEVER for n in found) / runs,
        "people_until_warned_median": found[runs // 2],
        "people_until_warned_80_percent": found[int(runs * 0.8)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--drift-runs", type=int, default=100)
    parser.add_argument("--people", type=int, default=60, help="a day, for drift")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows = []
    for share, per_day in CASES if given.runs else ():
        rows.append(figures(given.seed, share, per_day, given.runs))
        print(rows[-1], flush=True)
    drift = []
    for name in PLANTED if given.drift_runs else ():
        drift.append(drift_figures(given.seed, name, given.people, given.drift_runs))
        print(drift[-1], flush=True)
    print(json.dumps({"limit": Monitor().thumbs_down_limit, "days": DAYS, "rows": rows, "drift": drift}))


if __name__ == "__main__":
    main()

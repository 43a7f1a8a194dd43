"""How often the thumbs-down rule pages, and how often its state changes, by simulation.

python bench/alerts.py [--runs 200]

People vote at a constant true share of thumbs down (limit 10 %), each once; the rule is asked every hour
for 30 days, as `escultor monitor --every 3600` asks it. Printed are, for each share and number of votes a
day, the share of runs with any page, those paged within 300 votes, and the largest number of changes of state
within a week. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from escultor.config import Monitor
from escultor.monitor.metrics import AnswerRef, ThumbVote
from escultor.monitor.rules import read_thumbs
from escultor.monitor.states import RuleHistory, alert_of, changed, histories
from escultor.types import Alert

DAYS, HOUR_S, WEEK_S = 30, 3600.0, 7 * 86_400.0
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
    config, recorded, seen = Monitor(), [], 0
    for hour in range(1, 24 * DAYS + 1):
        now = hour * HOUR_S
        while seen < n and times[seen] <= now:
            seen += 1
        known = histories(recorded, now)
        history = known.get(("thumbs_down", "v"), RuleHistory())
        reading = read_thumbs("v", votes[:seen], history.past(now), config, now)
        recorded += changed([alert_of(reading, history, now)], known)
    return recorded, times


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows = []
    for share, per_day in CASES:
        rows.append(figures(given.seed, share, per_day, given.runs))
        print(rows[-1], flush=True)
    print(json.dumps({"limit": Monitor().thumbs_down_limit, "days": DAYS, "rows": rows}))


if __name__ == "__main__":
    main()

"""True approval on held-out prompts, and what became of the month's faults, read from the log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from people import CALENDAR, TASTES, day_of

from escultor import stats
from escultor.config import Config
from escultor.demo.corpus import Corpus
from escultor.demo.documentation import Gold
from escultor.ids import hash_value
from escultor.model.generate import generate
from escultor.model.load import load
from escultor.rng import derive_seed, unit
from escultor.skills.suites import EvaluationSuite
from escultor.skills.trinity import prompt_for
from escultor.store import Store
from escultor.store.blobs import tree_hash
from escultor.types import Alert, DatasetVersion, Deployment, Feedback, Interaction, Rating, Sampling

ITEMS = 300  # held-out prompts that no gate looks at


def held_out(corpus: Corpus, suite: EvaluationSuite) -> list[Gold]:
    """Documents of packages that nothing is trained on, and that the gate's suite does not have."""
    known = {item.id for item in suite.items}
    rest = [gold for gold in corpus.held_out if gold.id not in known]
    return sorted(rest, key=lambda g: unit(0, "approval", g.id))[:ITEMS]


def tastes_of(model: Path, golds: list[Gold], config: Config, work: Path) -> dict[str, list[float]]:
    """For each taste, whether an answer that the model would serve meets it: one value an item. Kept in the
    folder, by the model's content."""
    serve = config.serve
    key = hash_value([tree_hash(model), [g.id for g in golds], serve.temperature, serve.max_new_tokens])
    kept = work / "approval" / f"{key}.json"
    if not kept.exists():
        loaded = load(str(model))
        samplings = [
            Sampling(
                serve.temperature, 1.0, serve.max_new_tokens, derive_seed(0, "approval", g.id) % (1 << 31)
            )
            for g in golds
        ]
        prompts = [loaded.chat.prompt(prompt_for(gold.document)) for gold in golds]
        answers = [answer.text for answer in generate(loaded, prompts, samplings, serve.batch_size)]
        met = {
            name: [float(taste(a, g.document)) for a, g in zip(answers, golds, strict=True)]
            for name, taste in TASTES.items()
        }
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(met))
    return json.loads(kept.read_text())


def approval(met: Mapping[str, list[float]], mix: Mapping[str, float]) -> list[float]:
    """The share of people who like each item's answer."""
    return [sum(share * met[name][i] for name, share in mix.items()) for i in range(len(met["brief"]))]


def interval(values: list[float], golds: list[Gold]) -> dict[str, float]:
    """Mean over items, with packages as clusters, and its 95 % interval."""
    found = stats.bootstrap_mean(values, [g.package for g in golds], 0.025, 0, floor=-1.0, ceiling=1.0)
    return {"value": found.value, "low": found.low, "high": found.high}


def gain(before: list[float], after: list[float], golds: list[Gold]) -> dict[str, float]:
    return interval([b - a for a, b in zip(before, after, strict=True)], golds)


# --- what became of the faults --------------------------------------------------------------------


def training_rows(store: Store, poisoned: set[str]) -> dict[str, int]:
    """Rows that were trained on: all, those that rest on the poisoner's votes, and those that rest on an
    answer that failed."""
    counts = {"rows": 0, "poisoned": 0, "of failed answers": 0}
    for _, dataset in store.log.read(DatasetVersion):
        for line in store.blobs.get_bytes(dataset.blob).splitlines():
            parents = json.loads(line)["origin"]["parents"]
            rows = [row for id in parents if (row := store.log.get(Interaction, id)) is not None]
            counts["rows"] += 1
            counts["poisoned"] += not poisoned.isdisjoint(parents)
            counts["of failed answers"] += any(row.finish_reason == "error" for row in rows)
    return counts


def outage(store: Store) -> dict[str, Any]:
    """After how many minutes of the outage somebody was paged, and how often that month for the upstream."""
    pages = [a for _, a in store.log.read(Alert) if a.rule == "errors" and a.state == "firing"]
    times = [day_of(alert.time) for alert in pages]
    first = next((t for t in times if t >= CALENDAR.outage[0]), None)
    minutes = None if first is None else round((first - CALENDAR.outage[0]) * 1440)
    return {"paged after minutes": minutes, "error pages in the month": len(times)}


def broken_trial(store: Store, checkpoint: str) -> dict[str, Any]:
    """How many answers of the broken model people got and rated, and how it ended."""
    answers = {i.id for _, i in store.log.read(Interaction) if i.version == checkpoint}
    rated = {e.target for _, e in store.log.read(Feedback) if isinstance(e, Rating) and e.target in answers}
    shares = [d for _, d in store.log.read(Deployment) if checkpoint in d.shares]
    after = [d for _, d in store.log.read(Deployment) if shares and d.time > shares[-1].time]
    is_back = bool(after) and all(d.shares[checkpoint] < 1 for d in shares)
    return {
        "answers": len(answers),
        "rated": len(rated),
        "largest share": max((d.shares[checkpoint] for d in shares), default=0.0),
        "rolled back": is_back,
        "because": after[0].because if after else "",
    }


def lost(store: Store, answers: list[str], feedback: list[str]) -> int:
    """Acknowledged rows that are not in the log."""
    gone = sum(store.log.get(Interaction, id) is None for id in answers)
    return gone + sum(store.log.get(Feedback, id) is None for id in feedback)

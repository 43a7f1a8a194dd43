"""Rows looked at by people: which come next, what was decided, and what follows for the dataset."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from escultor import stats
from escultor.datasets.curation.quality import SCORE
from escultor.datasets.rows import CurationRow
from escultor.errors import InputError
from escultor.ids import new_id
from escultor.rng import unit
from escultor.store import Store
from escultor.types import Review

ReviewOrder = Literal["uniform", "unsure"]


def queue(
    rows: Iterable[CurationRow], sampling: ReviewOrder, dataset: str, count: int, done: frozenset[str]
) -> list[CurationRow]:
    """The next rows to look at, those that are `done` left out, in an order that depends on the dataset
    alone: by chance, or those whose score is closest to one half first. Reviewers at work at once get the
    same order, each without what is decided already."""

    def key(row: CurationRow) -> tuple[float, float]:
        draw = unit(0, "review", dataset, row.item.id)
        return (0.0, draw) if sampling == "uniform" else (abs(row.figures.get(SCORE, 0.5) - 0.5), draw)

    return heapq.nsmallest(count, (row for row in rows if row.item.id not in done), key=key)


def record(
    store: Store,
    dataset: str,
    row: str,
    reviewer: str,
    decision: Literal["accept", "reject", "edit", "skip"],
    sampling: ReviewOrder,
    reason: str = "",
    text: str = "",
) -> Review:
    """Append a decision: durable when this returns.

    Raises InputError for a decision without reviewer, a rejection without a reason, an edit without text.
    """
    if not reviewer.strip():
        raise InputError("a review needs a reviewer", repr(reviewer), "a name", "give --reviewer")
    if decision == "reject" and not reason.strip():
        raise InputError("a rejection needs a reason", repr(reason), "a few words")
    if decision == "edit" and not text.strip():
        raise InputError("an edit needs the text to be learnt", repr(text), "text that is not empty")
    review = Review(
        new_id("review"), time.time(), dataset, row, reviewer, decision, sampling == "uniform", reason, text
    )
    store.log.append(review)
    return review


def decisions(store: Store, dataset: str) -> dict[str, list[Review]]:
    """By row, the last decision of each reviewer."""
    last: dict[tuple[str, str], Review] = {}
    for _, review in store.log.read(Review, target=dataset):
        last[review.row, review.reviewer] = review
    found: dict[str, list[Review]] = {}
    for (row, _), review in last.items():
        found.setdefault(row, []).append(review)
    return found


@dataclass(frozen=True, slots=True)
class ReviewSummary:
    """What the decisions say: rows looked at; among those drawn by chance, the share with a defect (rejected
    or edited by any reviewer) with its 95 % interval of Clopper and Pearson."""

    rows: int
    sampled: int
    defects: int
    rate: float
    low: float
    high: float
    disagreed: int  # rows on which two reviewers differ


def reviewed(found: dict[str, list[Review]]) -> ReviewSummary:
    """The state of a review. Skipped rows say nothing and do not count."""
    looked = {row: said for row, each in found.items() if (said := [r for r in each if r.decision != "skip"])}
    sampled = [said for said in looked.values() if any(r.uniform for r in said)]
    defects = sum(any(r.decision != "accept" for r in said) for said in sampled)
    low, high = stats.clopper_pearson(defects, len(sampled))
    differ = sum(len({r.decision for r in said}) > 1 for said in looked.values())
    rate = defects / len(sampled) if sampled else 0.0
    return ReviewSummary(len(looked), len(sampled), defects, rate, low, high, differ)


def ratings(
    rows: Iterable[CurationRow], found: dict[str, list[Review]]
) -> Iterator[tuple[CurationRow, bool]]:
    """Rows with verdicts on which all agree: good where accepted, bad where rejected. An edit is no verdict
    on how bad a row was."""
    for row in rows:
        said = {r.decision for r in found.get(row.item.id, ()) if r.decision in ("accept", "reject")}
        if len(said) == 1:
            yield row, said == {"accept"}


def rejected(found: dict[str, Sequence[Review]]) -> frozenset[str]:
    """Rows that a reviewer rejected."""
    return frozenset(row for row, said in found.items() if any(r.decision == "reject" for r in said))

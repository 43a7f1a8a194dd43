"""Review of rows by people: the queue, the decisions, the defect rate, and the version that follows."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from escultor import stats
from escultor.datasets.curation.quality import SCORE
from escultor.datasets.rows import CurationRow, TrainingItem, target_field, write_line
from escultor.datasets.versions import load_card, read_rows, save_version
from escultor.errors import InputError
from escultor.ids import new_id
from escultor.rng import unit
from escultor.store import Store, files
from escultor.types import DatasetVersion, Document, Pair, Review

ReviewOrder = Literal["uniform", "unsure"]
Decision = Literal["accept", "reject", "edit", "skip"]


def review_queue(
    rows: Iterable[CurationRow], order: ReviewOrder, dataset: str, count: int, done: frozenset[str]
) -> list[CurationRow]:
    """The next rows to review, without those that are `done`: in random order, or those whose score is
    closest to one half first. The order depends on the dataset alone, so that several reviewers have the
    same one."""

    def key(row: CurationRow) -> tuple[float, float]:
        draw = unit(0, "review", dataset, row.item.id)
        return (0.0, draw) if order == "uniform" else (abs(row.figures.get(SCORE, 0.5) - 0.5), draw)

    return heapq.nsmallest(count, (row for row in rows if row.item.id not in done), key=key)


def record_review(
    store: Store,
    dataset: str,
    row: str,
    *,
    reviewer: str,
    decision: Decision,
    order: ReviewOrder,
    reason: str = "",
    text: str = "",
) -> Review:
    """Append a decision to the log: durable when this returns.

    Raises InputError for a decision without a reviewer, a rejection without a reason, an edit without text.
    """
    if not reviewer.strip():
        raise InputError("a review needs a reviewer", repr(reviewer), "a name", "give --reviewer")
    if decision == "reject" and not reason.strip():
        raise InputError("a rejection needs a reason", repr(reason), "a few words")
    if decision == "edit" and not text.strip():
        raise InputError("an edit needs the text to be learnt", repr(text), "text that is not empty")
    review = Review(
        new_id("review"),
        time=time.time(),
        dataset=dataset,
        row=row,
        reviewer=reviewer,
        decision=decision,
        uniform=order == "uniform",
        reason=reason,
        text=text,
    )
    store.log.append(review)
    return review


def read_decisions(store: Store, dataset: str) -> dict[str, list[Review]]:
    """By row, the last decision of each reviewer."""
    last: dict[tuple[str, str], Review] = {}
    for _, review in store.log.read(Review, target=dataset):
        last[review.row, review.reviewer] = review
    by_row: dict[str, list[Review]] = {}
    for (row, _), review in last.items():
        by_row.setdefault(row, []).append(review)
    return by_row


@dataclass(frozen=True, slots=True)
class ReviewSummary:
    """Rows reviewed; of those drawn at random, the share with a defect (rejected or edited by any reviewer)
    and its 95 % Clopper–Pearson interval."""

    rows: int
    sampled: int
    defects: int
    rate: float
    low: float
    high: float
    disagreed: int  # rows on which reviewers differ


def summarize(decisions: dict[str, list[Review]]) -> ReviewSummary:
    """The state of a review. Skipped rows do not count."""
    by_row = [[r for r in reviews if r.decision != "skip"] for reviews in decisions.values()]
    by_row = [reviews for reviews in by_row if reviews]
    sampled = [reviews for reviews in by_row if any(r.uniform for r in reviews)]
    defects = sum(any(r.decision != "accept" for r in reviews) for reviews in sampled)
    low, high = stats.clopper_pearson(defects, len(sampled))
    return ReviewSummary(
        rows=len(by_row),
        sampled=len(sampled),
        defects=defects,
        rate=defects / len(sampled) if sampled else 0.0,
        low=low,
        high=high,
        disagreed=sum(len({r.decision for r in reviews}) > 1 for reviews in by_row),
    )


def ratings(
    rows: Iterable[CurationRow], decisions: dict[str, list[Review]]
) -> Iterator[tuple[CurationRow, bool]]:
    """Rows on whose verdict all reviewers agree, with it: accepted is good, rejected is bad. An edit is not
    a verdict."""
    for row in rows:
        verdicts = {r.decision for r in decisions.get(row.item.id, ()) if r.decision in ("accept", "reject")}
        if len(verdicts) == 1:
            yield row, verdicts == {"accept"}


# --- the version that follows -------------------------------------------------------------------


def apply_review(store: Store, version: DatasetVersion) -> tuple[DatasetVersion, dict[str, int]]:
    """A new version without the rows that a reviewer rejected, and with the last edit of the others; and the
    number of either.

    Raises InputError if no row was rejected or edited.
    """
    decisions = read_decisions(store, version.hash)
    counts: Counter[str] = Counter()
    with files.temporary_path(store.root / "partial") as path, files.wrap_os_errors("write", path):
        with path.open("wb") as file:
            for row in read_rows(store, version):
                reviews = decisions.get(row.item.id, [])
                if any(r.decision == "reject" for r in reviews):
                    counts["review: rejected"] += 1
                    continue
                if edits := [r for r in reviews if r.decision == "edit"]:
                    counts["review: edited"] += 1
                    row = _edit(row, max(edits, key=lambda r: (r.time, r.id)))
                file.write(write_line(row))
        if not counts.total():
            raise InputError("no row was rejected or edited", f"{len(decisions)} decisions", "one at least")
        card = load_card(store, version)
        changes = {
            "review_before": asdict(summarize(decisions)) | {"of": version.rows},
            "rows": version.rows - counts["review: rejected"],
            "reviewed_from": version.hash,
        }
        reviewed = save_version(
            store,
            version.name,
            kind=version.kind,
            train=path,
            held_out=store.blobs.file(version.held_out) if version.held_out else None,
            counts=version.counts | dict(counts),
            card=lambda hash: card | changes | {"hash": hash},
        )
    return reviewed, dict(counts)


def _edit(row: CurationRow, review: Review) -> CurationRow:
    """The row with the reviewer's text as its target, and the review as one of its parents."""
    origin = replace(row.item.origin, parents=(*row.item.origin.parents, review.id))
    changes: dict[str, Any] = {target_field(row.item): review.text, "origin": origin}
    if isinstance(row.item, Pair):
        changes["chosen_extras"] = replace(row.item.chosen_extras, token_ids="")
    elif not isinstance(row.item, Document):
        changes["extras"] = replace(row.item.extras, token_ids="")
    item: TrainingItem = replace(row.item, **changes)
    return replace(row, item=item)

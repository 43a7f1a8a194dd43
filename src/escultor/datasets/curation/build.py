"""A dataset of the store made of files: ratings and suites looked up, the steps run, the version kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from escultor.config.curation import Curation
from escultor.data.jsonl import kind_of
from escultor.data.jsonl_rows import Fault, RowKind, Skip, decode, short
from escultor.datasets.cards import card
from escultor.datasets.curation.contamination import examined
from escultor.datasets.curation.labels import labelled
from escultor.datasets.curation.pipeline import Curated, CurationProgress, curate
from escultor.datasets.curation.quality import MIN_RATINGS, QualityModel, fit
from escultor.datasets.curation.review import decisions, ratings
from escultor.datasets.curation.rows import CurationRow, parse, read
from escultor.datasets.held_out import guard_of
from escultor.datasets.splits import HELD_OUT, LEFT_OUT
from escultor.datasets.versions import keep, rows_of
from escultor.errors import DataError, InputError
from escultor.skills.suites import items_of
from escultor.store import Store, files
from escultor.types import DatasetVersion, Suite


def make(
    store: Store,
    name: str,
    sources: Sequence[Path],
    settings: Curation,
    top: int | None = None,
    rated: Path | None = None,
    progress: CurationProgress = lambda name, before, left: None,
) -> tuple[DatasetVersion, Curated]:
    """Curate files into a version of the dataset `name`. Nothing is kept unless all of it is.

    The score is fitted to the rows of `rated` and to what reviewers decided about earlier versions, where
    both verdicts are there twenty times. Raises InputError, DataError, StoreError, FaultError.
    """
    if not name.strip() or "/" in name:
        raise InputError("a dataset needs a name", repr(name), "text without a slash")
    kind = kind_of(sources[0]) if sources else "example"
    model = quality_model(store, name, kind, settings, rated)
    contexts: dict[str, Any] = {
        "quality": model,
        "decontaminate": examined(suite_texts(store), settings.decontaminate.words),
    }
    if (guard := guard_of(store)).hashes:
        contexts[HELD_OUT] = guard
    with files.temporary(store.root / "partial") as folder:
        made = curate(sources, folder, settings, contexts, top, progress)
        made.warnings.extend(_unused(store, settings, model))
        version = keep(
            store,
            name,
            made.kind,
            made.rows,
            made.held_out,
            counts_of(made),
            lambda hash: card(hash, name, made, settings, model, _lines(made.rows, made.kind)),
        )
    return version, made


def _unused(store: Store, settings: Curation, model: QualityModel | None) -> Iterator[str]:
    if "decontaminate" in settings.steps and not store.log.count(Suite):
        yield "no evaluation suite is registered, so that nothing was decontaminated against"
    if "quality" in settings.steps and model is None:
        yield "nobody has rated rows: the quality score's weights are set by hand"


def counts_of(made: Curated) -> dict[str, int]:
    """Rows by source, and by step and reason for what was left out."""
    counts = {f"source {name}": n for name, n in made.sources.items()}
    counts |= {f"{step.name}: {why}": n for step in made.steps for why, n in step.removed.items()}
    tainted = made.split[LEFT_OUT]
    return counts | ({"split: prompt is held out": tainted} if tainted else {})


def suite_texts(store: Store) -> Iterator[str]:
    """Every text of every registered suite: what is asked, what is right, what is read."""
    for _, suite in store.log.read(Suite):
        for item in items_of(store.blobs, suite):
            yield from (m.content for messages in (item.prompt, item.pressed) for m in messages)
            yield from item.references
            if item.document is not None:
                yield item.document


def quality_model(
    store: Store, name: str, kind: RowKind, settings: Curation, rated: Path | None
) -> QualityModel | None:
    """The score fitted to what is known; None where that is too little.

    Raises DataError for a file of ratings that is broken, or too small with what reviewers said.
    """
    found = {row.item.id: (row, good) for row, good in (_rated(rated, kind) if rated else ())}
    for _, version in store.log.read(DatasetVersion, target=name):
        decided = decisions(store, version.hash) if version.kind == kind else {}
        if decided:
            found |= {row.item.id: (row, good) for row, good in ratings(rows_of(store, version), decided)}
    verdicts = Counter(good for _, good in found.values())
    if rated is None and min(verdicts[True], verdicts[False]) < MIN_RATINGS:
        return None
    ordered = [found[id] for id in sorted(found)]
    return fit(
        [row for row, _ in ordered], [good for _, good in ordered], settings.quality.ridge, settings.seed
    )


def _rated(path: Path, kind: RowKind) -> Iterator[tuple[CurationRow, bool]]:
    """Rows with `rating: true | false`."""
    with files.explained("read", path), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                data = decode(line)
                rating = data.get("rating")
                if not isinstance(rating, bool):
                    raise Fault("`rating` is of the wrong type", short(rating), "true (good) or false")
                yield labelled(parse(kind, data, path.name, number)), rating
            except (Fault, Skip) as fault:
                raise DataError(f"{path}:{number}: {fault}") from fault


def _lines(path: Path, kind: RowKind) -> Iterator[CurationRow]:
    with path.open("rb") as file:
        for line in file:
            yield read(kind, line)

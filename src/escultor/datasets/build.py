"""Build a dataset version from files: ratings and suites looked up, the steps run, the version saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from escultor.config.curation import Curation
from escultor.data.jsonl import kind_of
from escultor.data.jsonl_rows import Fault, RowKind, Skip, decode, short
from escultor.datasets.cards.content import curated_card
from escultor.datasets.curation.contamination import index_texts
from escultor.datasets.curation.labels import with_labels
from escultor.datasets.curation.pipeline import Curated, CurationProgress, curate
from escultor.datasets.curation.quality import MIN_RATINGS, QualityModel, fit
from escultor.datasets.held_out import load_guard, suite_texts
from escultor.datasets.reading import as_our_files
from escultor.datasets.review import ratings, read_decisions
from escultor.datasets.rows import CurationRow, parse_row, read_file
from escultor.datasets.splits import HELD_OUT, LEFT_OUT
from escultor.datasets.versions import read_rows, save_version, versions_named
from escultor.errors import DataError, InputError
from escultor.store import Store, files
from escultor.types import DatasetVersion, Suite


def build_dataset(
    store: Store,
    name: str,
    sources: Sequence[Path],
    settings: Curation,
    top: int | None = None,
    rated: Path | None = None,
    progress: CurationProgress = lambda name, before, left: None,
) -> tuple[DatasetVersion, Curated]:
    """Curate files of any known format, and datasets of the store, into a version of the dataset `name`.
    Nothing is kept unless all of it is.

    The quality score is fitted to the rows of `rated` and to what reviewers decided about earlier versions,
    if there are twenty of each verdict. Raises InputError, DataError, StoreError, FaultError.
    """
    if not name.strip() or "/" in name:
        raise InputError("a dataset needs a name", repr(name), "text without a slash")
    with files.temporary_path(store.root / "partial") as converted:
        sources = list(as_our_files(list(sources), converted, store=store))
        return _build(store, name, sources, settings, top=top, rated=rated, progress=progress)


def _build(
    store: Store,
    name: str,
    sources: Sequence[Path],
    settings: Curation,
    *,
    top: int | None,
    rated: Path | None,
    progress: CurationProgress,
) -> tuple[DatasetVersion, Curated]:
    kind = kind_of(sources[0]) if sources else "example"
    model = quality_model(store, name, kind, settings, rated)
    contexts: dict[str, Any] = {
        "quality": model,
        "decontaminate": index_texts(suite_texts(store), settings.decontaminate.words),
    }
    if (guard := load_guard(store)).hashes:
        contexts[HELD_OUT] = guard
    with files.temporary_path(store.root / "partial") as folder:
        curated = curate(sources, folder, settings, contexts=contexts, top=top, progress=progress)
        curated.warnings.extend(_idle_steps(store, settings, model))
        version = save_version(
            store,
            name=name,
            kind=curated.kind,
            train=curated.rows,
            held_out=curated.held_out,
            counts=version_counts(curated),
            card=lambda hash: curated_card(
                hash,
                name=name,
                curated=curated,
                settings=settings,
                model=model,
                rows=read_file(curated.kind, curated.rows),
            ),
        )
    return version, curated


def _idle_steps(store: Store, settings: Curation, model: QualityModel | None) -> Iterator[str]:
    """A warning for each step that had nothing to work with."""
    if "decontaminate" in settings.steps and not store.log.count(Suite):
        yield "no evaluation suite is registered, so that nothing was decontaminated against"
    if "quality" in settings.steps and model is None:
        yield "there are no ratings: the quality score's weights are set by hand"


def version_counts(curated: Curated) -> dict[str, int]:
    """Rows by source, and dropped rows by step and reason."""
    counts = {f"source {name}": n for name, n in curated.sources.items()}
    counts |= {f"{step.name}: {why}": n for step in curated.steps for why, n in step.removed.items()}
    left_out = curated.split[LEFT_OUT]
    return counts | ({"split: prompt is held out": left_out} if left_out else {})


def quality_model(
    store: Store, name: str, kind: RowKind, settings: Curation, rated: Path | None
) -> QualityModel | None:
    """The quality score fitted to all ratings of the dataset; None if reviewers gave too few.

    Raises DataError for a file of ratings that is broken, or too small together with the reviews.
    """
    rated_rows = {row.item.id: (row, is_good) for row, is_good in (_read_rated(rated, kind) if rated else ())}
    for version in versions_named(store, name):
        decided = read_decisions(store, version.hash) if version.kind == kind else {}
        if decided:
            verdicts = ratings(read_rows(store, version), decided)
            rated_rows |= {row.item.id: (row, is_good) for row, is_good in verdicts}
    counts = Counter(is_good for _, is_good in rated_rows.values())
    if rated is None and min(counts[True], counts[False]) < MIN_RATINGS:
        return None
    ordered = [rated_rows[id] for id in sorted(rated_rows)]
    rows, verdicts = [row for row, _ in ordered], [is_good for _, is_good in ordered]
    return fit(rows, verdicts, settings.quality.ridge, settings.seed)


def _read_rated(path: Path, kind: RowKind) -> Iterator[tuple[CurationRow, bool]]:
    """Rows with `rating: true | false`."""
    with files.wrap_os_errors("read", path), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                data = decode(line)
                rating = data.get("rating")
                if not isinstance(rating, bool):
                    raise Fault("`rating` is of the wrong type", short(rating), "true (good) or false")
                yield with_labels(parse_row(kind, data, path.name, number)), rating
            except (Fault, Skip) as fault:
                raise DataError(f"{path}:{number}: {fault}") from fault

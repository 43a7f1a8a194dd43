"""The curation pipeline: sources in, rows for training out, with an account of every step, in flat memory.

Steps run in the order given. Those that read single rows run together in one pass, a chunk of rows at a time,
in several processes; a step that needs all rows ends the pass and works on columns of numbers. The result
depends on the sources and the settings alone.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from escultor.config.curation import Curation
from escultor.data.jsonl_rows import RowKind
from escultor.datasets.curation.diverse_top import best_diverse_rows, shrink_held_out
from escultor.datasets.curation.labels import LABELS, LabelTally, empty_tally
from escultor.datasets.curation.passes import (
    MAX_EXAMPLES,
    PassPlan,
    PassResult,
    PassTally,
    PassTask,
    Removed,
    example,
    run_steps,
)
from escultor.datasets.curation.sources import file_states, kind_of_sources, refuse_changed, source_names
from escultor.datasets.curation.steps import STEPS, DatasetStep, DatasetView
from escultor.datasets.disk.columns import count_codes, first_rows
from escultor.datasets.disk.rows_on_disk import LineRange, RowsOnDisk, line_ranges
from escultor.datasets.splits import (
    HELD_OUT,
    SplitSides,
    drop_held_out_prompts,
    share,
    share_warnings,
    split_rows,
)
from escultor.errors import DataError
from escultor.process_pool import ProcessPool
from escultor.store.files import wrap_os_errors

CurationProgress = Callable[[str, int, int], None]  # step or pass, rows read, rows left
Chunk = tuple[LineRange, np.ndarray | None]  # lines, and which of them to read (None: all, and parse them)


@dataclass(frozen=True, slots=True)
class StepDone:
    """What one step did. `after` are the rows left, by label."""

    name: str
    before: int
    removed: dict[str, int]
    notes: dict[str, int]
    examples: tuple[Removed, ...]
    after: LabelTally

    @property
    def left(self) -> int:
        """Rows left after the step."""
        return self.before - sum(self.removed.values())


@dataclass(frozen=True, slots=True)
class Curated:
    """The files of rows that curation wrote, and the account of how they were made."""

    kind: RowKind
    rows: Path
    held_out: Path | None
    counts: dict[str, int]  # rows on each side
    steps: tuple[StepDone, ...]
    sources: dict[str, int]  # rows read, by source
    before: LabelTally
    after: LabelTally
    warnings: list[str]
    split: dict[str, Any]


@dataclass(slots=True)
class _Run:
    """The state that grows over the passes."""

    plan: PassPlan
    pool: ProcessPool
    folder: Path
    progress: CurationProgress
    steps: list[StepDone] = field(default_factory=list)
    sources: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    rows: int = 0  # left after the last step
    before: LabelTally = field(default_factory=empty_tally)
    after: LabelTally = field(default_factory=empty_tally)

    def finish(self, name: str, tally: PassTally) -> None:
        """Record a step as done."""
        self.after = {label: self.after[label] - tally.labels[label] for label in LABELS}
        step = StepDone(
            name,
            before=self.rows,
            removed=dict(sorted(tally.removed.items())),
            notes=dict(sorted(tally.notes.items())),
            examples=tuple(tally.examples),
            after=self.after,
        )
        self.rows = step.left
        self.steps.append(step)
        self.progress(name, step.before, step.left)


def curate(
    sources: Sequence[Path],
    folder: Path,
    settings: Curation,
    contexts: dict[str, Any] | None = None,
    top: int | None = None,
    progress: CurationProgress = lambda name, before, left: None,
) -> Curated:
    """Run the steps over JSONL files of one kind and leave the result in `folder`.

    `contexts` are what steps look things up in: `decontaminate` a `SuiteTexts`, `quality` a `QualityModel`,
    `held out` a `HeldOutGuard`.
    Raises DataError for sources of different kinds or that change meanwhile and if no row is left,
    StoreError if the disk refuses, FaultError if a worker is killed.
    """
    kind, states = kind_of_sources(sources), file_states(sources)
    plan = PassPlan(kind, settings, contexts or {}, source_names(sources))
    with wrap_os_errors("curate in", folder):
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPool(settings.workers, plan) as pool:
            run = _Run(plan, pool, folder, progress)
            view = None
            for number, (steps, choices) in enumerate(split_into_passes(settings.steps)):
                chunks = _source_chunks(sources) if view is None else _kept_chunks(view)
                rows, labels = _run_pass(run, number, chunks, steps, choices)
                if view is None:
                    refuse_changed(states)
                view = DatasetView(
                    rows,
                    kept=np.ones(len(rows), dtype=bool),
                    settings=settings,
                    pool=pool,
                    labels=labels,
                    warnings=run.warnings,
                )
                view = _drop_held_out(run, view)
                for name in choices:
                    step = STEPS[name]
                    assert isinstance(step, DatasetStep)
                    view = _drop(run, name, view, step.choose(view))
            assert view is not None
            return _write(run, view.rows, _split(run, view, top))


def split_into_passes(steps: Sequence[str]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The steps as passes: in each, those that read single rows, then those that need all rows."""
    passes: list[tuple[list[str], list[str]]] = [([], [])]
    for name in steps:
        needs_all = isinstance(STEPS[name], DatasetStep)
        if not needs_all and passes[-1][1]:
            passes.append(([], []))
        passes[-1][1 if needs_all else 0].append(name)
    return [(tuple(row_steps), tuple(choices)) for row_steps, choices in passes]


def _source_chunks(sources: Sequence[Path]) -> Iterator[Chunk]:
    for path in sources:
        yield from ((lines, None) for lines in line_ranges(path))


def _kept_chunks(view: DatasetView) -> Iterator[Chunk]:
    start = 0
    for number, count in enumerate(view.rows.counts):
        yield LineRange(view.rows.chunk(number), 0, 0, 0), view.kept[start : start + count]
        start += count


def _run_pass(
    run: _Run, number: int, chunks: Iterable[Chunk], steps: tuple[str, ...], choices: tuple[str, ...]
) -> tuple[RowsOnDisk, dict[str, list[str]]]:
    """Let the pool work on every chunk, and gather the rows, the label values by code, and the tallies."""
    rows = RowsOnDisk(run.folder / f"pass-{number}", run.plan.kind)
    is_first, is_last = number == 0, number == len(split_into_passes(run.plan.settings.steps)) - 1
    tasks = (
        PassTask(lines, keep, out=rows.chunk(i), steps=steps, choices=choices, is_last=is_last)
        for i, (lines, keep) in enumerate(chunks)
    )
    tallies = {name: PassTally() for name in (*(["parse"] if is_first else []), *steps)}
    codes: dict[str, dict[str, int]] = {}
    read_count = 0
    for result in run.pool.map(run_steps, tasks):
        read_count += result.read
        for name, tally in tallies.items():
            tally.add(result.tallies[name])
        if is_first:
            _count_sources(run, result)
        rows.append(result.rows, _shared_codes(result, codes))
        run.progress("rows", read_count, len(rows))
    if is_first:
        run.rows = read_count
    for name, tally in tallies.items():
        run.finish(name, tally)
    if number:
        shutil.rmtree(run.folder / f"pass-{number - 1}")
    return rows, {name: list(values) for name, values in codes.items()}


def _count_sources(run: _Run, result: PassResult) -> None:
    """Count the sources and labels of the rows as they were read: rows kept, and rows that steps dropped."""
    run.sources.update(result.sources)
    for name in LABELS:
        for tally in (result.kept, *(tally.labels for tally in result.tallies.values())):
            run.before[name].update(tally[name])
            run.after[name].update(tally[name])


def _shared_codes(result: PassResult, codes: dict[str, dict[str, int]]) -> dict[str, np.ndarray]:
    """The columns of a chunk, its labels by the codes of the whole pass."""
    columns = dict(result.columns)
    for name, values in result.labels.items():
        code_of = codes.setdefault(name, {})
        table = np.asarray([code_of.setdefault(v, len(code_of)) for v in values] or [0], dtype=np.uint32)
        columns["label." + name] = table[columns["label." + name]]
    return columns


def _drop_held_out(run: _Run, view: DatasetView) -> DatasetView:
    """The view without rows whose prompt is held out already. If this curation holds out rows itself, the
    split treats them: the same rows are held out again, and no other is left out."""
    if run.plan.settings.split.held_out or not view.rows.has(HELD_OUT):
        return view
    is_held_out = view.rows.column(HELD_OUT)[: len(view.kept)]
    return _drop(run, HELD_OUT, view, {"prompt is held out": is_held_out})


def _drop(
    run: _Run,
    name: str,
    view: DatasetView,
    dropped: dict[str, np.ndarray],
    notes: dict[str, int] | None = None,
) -> DatasetView:
    """Record what a step dropped; the view without it."""
    tally = PassTally(notes=Counter(notes or {}))
    handle, kept = view.rows.handle(), view.kept.copy()
    for reason, mask in dropped.items():
        if not (count := int(np.count_nonzero(mask))):
            continue
        tally.removed[reason] += count
        numbers = first_rows(mask, MAX_EXAMPLES - len(tally.examples))
        tally.examples += [example(row, reason) for row in handle.read(numbers)]
        for label in LABELS:
            values = view.labels[label]
            counts = count_codes(view.rows.column("label." + label), mask, len(values))
            tally.labels[label].update({v: int(n) for v, n in zip(values, counts, strict=True) if n})
        kept &= ~mask
    run.finish(name, tally)
    return replace(view, kept=kept)


def _split(run: _Run, view: DatasetView, top: int | None) -> SplitSides:
    """The training and the held-out side; with `top`, that many training rows and the same share of the
    held-out ones, the best of each side."""
    if not view.kept.any():
        reasons = (f"{s.name}: {n:,} {why}" for s in run.steps for why, n in s.removed.items())
        raise DataError("no row is left", "; ".join(reasons), "one at least", "loosen a step")
    rows, handle = view.rows, view.rows.handle()
    sides = split_rows(rows, view.kept, view.settings.split, view.pool)
    run.warnings.extend(share_warnings(sides.manifest, view.settings.split))
    if top is not None and sides.held_out.any():
        sides = shrink_held_out(sides, handle, rows.column("score"), top)
    sides = drop_held_out_prompts(handle, sides, view.pool, run.folder)
    if not sides.train.any():
        held, left_out = (int(np.count_nonzero(side)) for side in (sides.held_out, sides.left_out))
        got = f"{held:,} rows held out, {left_out:,} left out because their prompt is"
        remedy = "hold out less"
        if sides.manifest.get("clusters") == 1:
            remedy = "all prompts are alike, and stay on one side: hold out nothing"
        raise DataError("nothing is left to train on", got, "one row at least", remedy)
    if top is None:
        return sides
    train, method = best_diverse_rows(handle, rows.column("score"), sides.train, top)
    dropped = view.kept & ~(train | sides.held_out | sides.left_out)
    view = _drop(run, "top", view, {"not among the best": dropped}, {method: top})
    manifest = sides.manifest | {"held_out": share(sides.held_out, view.kept)}
    return replace(sides, train=train, manifest=manifest)


def _write(run: _Run, rows: RowsOnDisk, sides: SplitSides) -> Curated:
    """Copy the rows of each side into one file, and remove the passes."""
    train, held_out = run.folder / "train.jsonl", run.folder / "held-out.jsonl"
    with train.open("wb") as train_file, held_out.open("wb") as held_out_file:
        for number, line in enumerate(rows.lines()):
            if sides.train[number]:
                train_file.write(line)
            elif sides.held_out[number]:
                held_out_file.write(line)
    for path in run.folder.glob("pass-*"):
        shutil.rmtree(path)
    counts = {"train": int(np.count_nonzero(sides.train)), "held out": int(np.count_nonzero(sides.held_out))}
    if not counts["held out"]:
        held_out.unlink()
    return Curated(
        kind=run.plan.kind,
        rows=train,
        held_out=held_out if counts["held out"] else None,
        counts=counts,
        steps=tuple(run.steps),
        sources=dict(sorted(run.sources.items())),
        before=run.before,
        after=run.after,
        warnings=run.warnings,
        split=sides.manifest,
    )

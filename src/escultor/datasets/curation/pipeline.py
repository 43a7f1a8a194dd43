"""The pipeline: sources in, the rows that are left out, and an account of every step. Memory stays flat.

Steps run in the order given. Those that look at one row run together in one pass, a chunk of rows at a time,
in several processes; a step that looks at all rows ends the pass and works on columns of numbers. What comes
out depends on the sources, the settings and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from escultor.config.curation import Curation
from escultor.data.jsonl import kind_of
from escultor.data.jsonl_rows import RowKind
from escultor.datasets.curation.columns import first, frequencies
from escultor.datasets.curation.diverse_top import best, fewer
from escultor.datasets.curation.diversity import LabelTally, tally
from escultor.datasets.curation.held_out_guard import apart
from escultor.datasets.curation.labels import LABELS
from escultor.datasets.curation.passes import (
    SHOWN,
    PassPlan,
    PassResult,
    PassTally,
    PassTask,
    Removed,
    example,
    work,
)
from escultor.datasets.curation.rows_on_disk import LineRange, RowsOnDisk, ranges
from escultor.datasets.curation.steps import STEPS, DatasetStep, View
from escultor.datasets.splits import HELD_OUT, SplitSides, share, sides, uneven
from escultor.errors import DataError, InputError
from escultor.process_pool import ProcessPool
from escultor.store.files import explained

CurationProgress = Callable[[str, int, int], None]  # step or pass, rows read, rows left


@dataclass(frozen=True, slots=True)
class StepDone:
    """What one step did. `after` are the rows left by label."""

    name: str
    before: int
    removed: dict[str, int]
    notes: dict[str, int]
    examples: tuple[Removed, ...]
    after: LabelTally

    @property
    def left(self) -> int:
        """Rows that it left."""
        return self.before - sum(self.removed.values())


@dataclass(frozen=True, slots=True)
class Curated:
    """Where the rows are now, and how they came there."""

    kind: RowKind
    rows: Path
    held_out: Path | None
    counts: dict[str, int]  # rows on each side
    steps: tuple[StepDone, ...]
    sources: dict[str, int]  # rows read by source
    before: LabelTally
    after: LabelTally
    warnings: list[str]
    split: dict[str, Any]


@dataclass(slots=True)
class _Run:
    """What grows while the passes go by."""

    plan: PassPlan
    crew: ProcessPool
    folder: Path
    progress: CurationProgress
    done: list[StepDone] = field(default_factory=list)
    sources: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    rows: int = 0  # left after the last step
    now: LabelTally = field(default_factory=tally)
    first: LabelTally = field(default_factory=tally)

    def finish(self, name: str, tallied: PassTally) -> None:
        """Note that a step is done."""
        self.now = {k: self.now[k] - tallied.labels[k] for k in LABELS}
        step = StepDone(
            name,
            self.rows,
            dict(sorted(tallied.removed.items())),
            dict(sorted(tallied.notes.items())),
            tuple(tallied.examples),
            self.now,
        )
        self.rows = step.left
        self.done.append(step)
        self.progress(name, step.before, step.left)


def curate(
    sources: Sequence[Path],
    folder: Path,
    settings: Curation,
    contexts: dict[str, Any] | None = None,
    top: int | None = None,
    progress: CurationProgress = lambda name, before, left: None,
) -> Curated:
    """Run the steps over JSONL files of one kind; what is left lies in `folder` afterwards.

    `contexts` are what steps look things up in: `decontaminate` an `Examined`, `quality` a `QualityModel`,
    `held out` a `Guard`.
    Raises DataError for sources of different kinds or that change meanwhile and when no row is left,
    StoreError when the disk refuses, FaultError when a worker is killed.
    """
    kind, known = _kind(sources), _states(sources)
    plan = PassPlan(kind, settings, contexts or {}, _named(sources))
    with explained("curate in", folder):
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPool(settings.workers, plan) as crew:
            run = _Run(plan, crew, folder, progress)
            view, kept = None, np.empty(0, dtype=bool)
            for number, (steps, choices) in enumerate(passes(settings.steps)):
                pieces = _sources(sources) if view is None else _left(view.spill, kept)
                spill, labels = _pass(run, number, pieces, steps, choices, view is None)
                if view is None:
                    _refuse_changed(known, _states(sources))
                view = View(spill, np.ones(len(spill), dtype=bool), settings, crew, labels, run.warnings)
                kept = _free(run, view)
                for name in choices:
                    view = replace(view, kept=kept)
                    kept = _choose(run, name, view)
            assert view is not None
            return _write(run, view.spill, _parted(run, replace(view, kept=kept), top), kind)


def passes(steps: Sequence[str]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The steps as passes: those that look at one row, then those that look at all."""
    found: list[tuple[list[str], list[str]]] = [([], [])]
    for name in steps:
        if isinstance(STEPS[name], DatasetStep):
            found[-1][1].append(name)
            continue
        if found[-1][1]:
            found.append(([], []))
        found[-1][0].append(name)
    return [(tuple(one), tuple(all_)) for one, all_ in found]


def _kind(sources: Sequence[Path]) -> RowKind:
    kinds: dict[Path, RowKind] = {path: kind_of(path) for path in sources}
    if not kinds:
        raise InputError("there is nothing to curate", "no file", "one JSONL file at least")
    if len(set(kinds.values())) > 1:
        got = ", ".join(f"{path}: {kind}" for path, kind in kinds.items())
        raise DataError("the files hold rows of different kinds", got, "one kind", "curate them apart")
    return kinds[sources[0]]


def _named(sources: Sequence[Path]) -> dict[Path, str]:
    """What each source is called: its file's name, behind as much of its path as tells it from the others."""
    found: dict[Path, str] = {}
    for path in sources:
        depth = 1
        while depth < len(path.parts) and any(
            other != path and other.parts[-depth:] == path.parts[-depth:] for other in sources
        ):
            depth += 1
        found[path] = "/".join(path.parts[-depth:]).encode("utf-8", "replace").decode()
    return found


def _states(sources: Sequence[Path]) -> dict[Path, tuple[int, int, int] | None]:
    """By source, what is another when somebody writes to it or puts a file in its place."""
    found: dict[Path, tuple[int, int, int] | None] = dict.fromkeys(sources)
    for path in sources:
        with suppress(FileNotFoundError):
            about = path.stat()
            found[path] = (about.st_ino, about.st_size, about.st_mtime_ns)
    return found


def _refuse_changed(before: dict[Path, Any], after: dict[Path, Any]) -> None:
    """Half of one file and half of another are no source that a version could be made of again."""
    for path, state in before.items():
        if after[path] != state:
            got = "it is gone" if after[path] is None else "it was written to, or another is in its place"
            raise DataError(
                f"{path} changed while it was read", got, "files that stay as they are", "curate a copy"
            )


def _sources(sources: Sequence[Path]) -> Iterator[tuple[LineRange, None]]:
    for path in sources:
        yield from ((piece, None) for piece in ranges(path))


def _left(spill: RowsOnDisk, kept: np.ndarray) -> Iterator[tuple[LineRange, np.ndarray]]:
    starts = spill.starts()
    for number, count in enumerate(spill.counts):
        yield LineRange(spill.chunk(number), 0, 0, 0), kept[starts[number] : starts[number] + count]


def _pass(
    run: _Run,
    number: int,
    pieces: Iterable[tuple[LineRange, np.ndarray | None]],
    steps: tuple[str, ...],
    choices: tuple[str, ...],
    first: bool,
) -> tuple[RowsOnDisk, dict[str, list[str]]]:
    """Let the crew work on every piece, and gather what came of it."""
    spill = RowsOnDisk(run.folder / f"pass-{number}", run.plan.kind)
    is_last = number == len(passes(run.plan.settings.steps)) - 1
    orders = (
        PassTask(lines, keep, spill.chunk(at), steps, choices, is_last)
        for at, (lines, keep) in enumerate(pieces)
    )
    tallied = {name: PassTally() for name in (*(["parse"] if first else []), *steps)}
    codes: dict[str, dict[str, int]] = {}
    read_ = 0
    for worked in run.crew.over(work, orders):
        read_ += worked.read
        for name, found in tallied.items():
            found.add(worked.tallied[name])
        if first:
            run.sources.update(worked.sources)
            _begin(run, worked)
        spill.append(worked.rows, _recoded(worked, codes))
        run.progress("rows", read_, len(spill))
    if first:
        run.rows = read_
    for name, found in tallied.items():
        run.finish(name, found)
    if number:
        _remove(run.folder / f"pass-{number - 1}")
    return spill, {name: list(known) for name, known in codes.items()}


def _begin(run: _Run, worked: PassResult) -> None:
    """Count the labels of the rows as they came: those left and those that steps of this pass left out."""
    for name in LABELS:
        for counted in (worked.kept, *(found.labels for found in worked.tallied.values())):
            run.first[name].update(counted[name])
            run.now[name].update(counted[name])


def _recoded(worked: PassResult, codes: dict[str, dict[str, int]]) -> dict[str, np.ndarray]:
    """The columns of a piece, its labels by the codes of the whole."""
    columns = dict(worked.columns)
    for name, values in worked.labels.items():
        known = codes.setdefault(name, {})
        table = np.asarray([known.setdefault(v, len(known)) for v in values] or [0], dtype=np.uint32)
        columns["label." + name] = table[columns["label." + name]]
    return columns


def _free(run: _Run, view: View) -> np.ndarray:
    """The rows without those whose prompt was held out before. Where rows are held out now too, the split
    looks at them: the same rows are held out again, and no other is left out."""
    if run.plan.settings.split.held_out or not view.spill.has(HELD_OUT):
        return view.kept
    left = view.spill.column(HELD_OUT)[: len(view.kept)]
    return _without(run, HELD_OUT, view, {"prompt is held out": left})


def _choose(run: _Run, name: str, view: View) -> np.ndarray:
    """Let a step that looks at all rows choose; the rows that stay."""
    step = STEPS[name]
    assert isinstance(step, DatasetStep)
    return _without(run, name, view, step.choose(view))


def _without(
    run: _Run, name: str, view: View, left: dict[str, np.ndarray], notes: dict[str, int] | None = None
) -> np.ndarray:
    """Note what a step left out; the rows that stay."""
    tallied = PassTally(notes=Counter(notes or {}))
    place, kept = view.spill.place(), view.kept.copy()
    for reason, mask in left.items():
        if not (count := int(np.count_nonzero(mask))):
            continue
        tallied.removed[reason] += count
        shown = first(mask, SHOWN - len(tallied.examples))
        tallied.examples += [example(row, reason) for row in place.read(shown)]
        for label in LABELS:
            names = view.labels[label]
            counted = frequencies(view.spill.column("label." + label), mask, len(names))
            tallied.labels[label].update({v: int(n) for v, n in zip(names, counted, strict=True) if n})
        kept &= ~mask
    run.finish(name, tallied)
    return kept


def _parted(run: _Run, view: View, top: int | None) -> SplitSides:
    """What is learnt and what is held out; with `top` so many rows to learn, and of those that are held out
    the same share. Both are the best of their side."""
    if not view.kept.any():
        raise DataError("no row is left", _reasons(run.done), "one at least", "loosen a step")
    spill, crew, place = view.spill, view.crew, view.spill.place()
    parted = sides(spill, view.kept, view.settings.split, crew)
    run.warnings.extend(uneven(parted.manifest, view.settings.split))
    if top is not None and parted.held_out.any():
        parted = fewer(parted, place, spill.column("score"), top)
    parted = apart(place, parted, crew, run.folder)
    if not parted.train.any():
        held, left_out = (int(np.count_nonzero(side)) for side in (parted.held_out, parted.left_out))
        got = f"{held:,} rows held out, {left_out:,} left out beside them"
        remedy = "hold less out"
        if parted.manifest.get("clusters") == 1:
            remedy = "all prompts are alike, and stay on one side: hold nothing out"
        raise DataError("nothing is left to train on", got, "one row at least", remedy)
    if top is None:
        return parted
    train, told = best(place, spill.column("score"), parted.train, top)
    parted = replace(parted, train=train)
    left = view.kept & ~(train | parted.held_out | parted.left_out)
    kept = _without(run, "top", view, {"not among the best": left}, {told: top})
    return replace(parted, manifest=parted.manifest | {"held_out": share(parted.held_out, kept)})


def _write(run: _Run, spill: RowsOnDisk, parted: SplitSides, kind: RowKind) -> Curated:
    """Copy what is left into one file for each side."""
    rows, held = run.folder / "train.jsonl", run.folder / "held-out.jsonl"
    starts = spill.starts()
    with rows.open("wb") as train, held.open("wb") as out:
        for number in range(len(spill.counts)):
            with spill.chunk(number).open("rb") as file:
                for at, line in enumerate(file, int(starts[number])):
                    if parted.train[at]:
                        train.write(line)
                    elif parted.held_out[at]:
                        out.write(line)
    for path in run.folder.glob("pass-*"):
        _remove(path)
    held_out = int(np.count_nonzero(parted.held_out))
    if not held_out:
        held.unlink()
    return Curated(
        kind,
        rows,
        held if held_out else None,
        {"train": int(np.count_nonzero(parted.train)), "held out": held_out},
        tuple(run.done),
        dict(sorted(run.sources.items())),
        run.first,
        run.now,
        run.warnings,
        parted.manifest,
    )


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


def _reasons(done: Iterable[StepDone]) -> str:
    return "; ".join(f"{step.name}: {n:,} {why}" for step in done for why, n in step.removed.items())

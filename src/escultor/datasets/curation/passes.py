"""One pass over the rows: the steps that read single rows, then the columns for steps that need all rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from escultor.config.curation import Curation
from escultor.data.jsonl_rows import Fault, RowKind, Skip, decode
from escultor.datasets.curation.balancing import watched_labels
from escultor.datasets.curation.labels import LABELS, UNLABELLED, LabelTally, empty_tally, with_labels
from escultor.datasets.curation.quality import SCORE
from escultor.datasets.curation.steps import STEPS, DatasetStep, RowStep
from escultor.datasets.disk.rows_on_disk import LineRange
from escultor.datasets.personal_data import redacted
from escultor.datasets.rows import CurationRow, Dropped, full_text, parse_row, read_line, write_line
from escultor.datasets.similarity.duplicates import name_hashes
from escultor.datasets.splits import HELD_OUT, split_columns
from escultor.store.files import wrap_os_errors

MAX_EXAMPLES = 10  # of what a step removed
EXAMPLE_CHARS = 160


@dataclass(frozen=True, slots=True)
class PassPlan:
    """What every worker knows: the kind of rows, the settings, the context of each step, names of sources."""

    kind: RowKind
    settings: Curation
    contexts: dict[str, Any] = field(default_factory=dict)
    names: dict[Path, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Removed:
    """An example of a row that a step dropped, private data redacted."""

    reason: str
    source: str
    text: str


@dataclass(slots=True)
class PassTally:
    """What one step did to some rows. Tallies add up."""

    removed: Counter[str] = field(default_factory=Counter)  # by reason
    notes: Counter[str] = field(default_factory=Counter)  # rows that were changed, by change
    labels: LabelTally = field(default_factory=empty_tally)  # of the dropped rows
    examples: list[Removed] = field(default_factory=list)

    def drop(self, row: CurationRow, reason: str) -> None:
        """Count a row as dropped."""
        self.removed[reason] += 1
        for name in LABELS:
            self.labels[name][row.labels[name]] += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(example(row, reason))

    def refuse(self, reason: str, source: str, message: str, text: str) -> None:
        """Count a line that could not be read as a row; `message` is shown as the reason."""
        self.removed[reason] += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(Removed(message, source, text))

    def add(self, later: PassTally) -> None:
        """Add the tally of later rows."""
        self.removed.update(later.removed)
        self.notes.update(later.notes)
        for name in LABELS:
            self.labels[name].update(later.labels[name])
        self.examples += later.examples[: MAX_EXAMPLES - len(self.examples)]


def example(row: CurationRow, reason: str) -> Removed:
    """A dropped row as an example: its source, and the beginning of its text."""
    parents = row.item.origin.parents
    return Removed(reason, parents[0] if parents else row.source, _excerpt(full_text(row.item)))


def _excerpt(text: str) -> str:
    text = " ".join(redacted(text[: 4 * EXAMPLE_CHARS]).split())
    return text if len(text) <= EXAMPLE_CHARS else text[: EXAMPLE_CHARS - 1] + "…"


@dataclass(frozen=True, slots=True)
class PassTask:
    """A chunk of rows for a worker: lines of a source, or the lines kept of a chunk of the pass before."""

    lines: LineRange
    keep: np.ndarray | None  # (n,) bool; None: a source, whose rows are parsed and checked
    out: Path
    steps: tuple[str, ...]
    choices: tuple[str, ...]  # steps that need all rows, after this pass
    is_last: bool  # whether prompts are compared with held-out ones and with each other


@dataclass(slots=True)
class PassResult:
    """What a worker did with a chunk. `labels` are the values by code, which holds within this chunk."""

    rows: int
    tallies: dict[str, PassTally]
    columns: dict[str, np.ndarray]
    labels: dict[str, list[str]]
    kept: LabelTally
    read: int  # lines that were not blank
    sources: Counter[str]


def run_steps(plan: PassPlan, task: PassTask) -> PassResult:
    """Run the steps over one chunk and write the rows that are left. Depends on the chunk alone."""
    for step in map(STEPS.__getitem__, plan.settings.steps):
        if isinstance(step, RowStep):
            step.prepare()
    tallies = {name: PassTally() for name in ("parse", *task.steps)}
    rows, count = _parse(plan, task.lines, tallies["parse"]) if task.keep is None else _read(plan, task)
    sources = Counter(row.source for row in rows)
    for name in task.steps:
        rows = _apply_step(plan, name, rows, tallies[name])
    lines = [write_line(row) for row in rows]
    with wrap_os_errors("write rows that are being curated to", task.out):
        task.out.write_bytes(b"".join(lines))
    codes, values = _label_codes(rows, watched_labels(plan.settings.balance))
    return PassResult(
        rows=len(rows),
        tallies=tallies,
        columns=_columns(plan, task, rows, lines) | codes,
        labels=values,
        kept={name: Counter(row.labels[name] for row in rows) for name in LABELS},
        read=count,
        sources=sources,
    )


def _parse(plan: PassPlan, lines: LineRange, tally: PassTally) -> tuple[list[CurationRow], int]:
    """The sound rows of a range of a source, and its number of lines that are not blank."""
    source = plan.names[lines.path]
    if lines.too_long:
        size = f"{lines.end - lines.start:,} bytes"
        tally.refuse("line too long", f"{source}:{lines.first_line}", "line too long", size)
        return [], 1
    rows, count = [], 0
    for number, line in enumerate(_read_lines(lines), lines.first_line):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        count += 1
        try:
            rows.append(with_labels(parse_row(plan.kind, decode(line), source, number, tally.notes)))
        except (Fault, Skip) as fault:
            reason = f"broken: {fault.args[0]}" if isinstance(fault, Fault) else str(fault)
            text = line[: 4 * EXAMPLE_CHARS].decode("utf-8", "replace")
            tally.refuse(reason, f"{source}:{number}", str(fault), _excerpt(text))
    return rows, count


def _read_lines(lines: LineRange) -> list[bytes]:
    with wrap_os_errors("read", lines.path), lines.path.open("rb") as file:
        file.seek(lines.start)
        return file.read(lines.end - lines.start).removesuffix(b"\n").split(b"\n")


def _read(plan: PassPlan, task: PassTask) -> tuple[list[CurationRow], int]:
    assert task.keep is not None
    with wrap_os_errors("read", task.lines.path), task.lines.path.open("rb") as file:
        rows = [read_line(plan.kind, line) for line, keep in zip(file, task.keep, strict=True) if keep]
    return rows, len(rows)


def _apply_step(plan: PassPlan, name: str, rows: list[CurationRow], tally: PassTally) -> list[CurationRow]:
    step = STEPS[name]
    assert isinstance(step, RowStep)
    results = step.apply(rows, plan.settings, plan.contexts.get(name))
    kept = []
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, Dropped):
            tally.drop(row, result.reason)
        else:
            tally.notes.update(result.notes[len(row.notes) :])
            kept.append(result)
    return kept


def _columns(
    plan: PassPlan, task: PassTask, rows: Sequence[CurationRow], lines: Sequence[bytes]
) -> dict[str, np.ndarray]:
    columns = {
        "offset": np.cumsum([0, *map(len, lines)], dtype=np.int64)[:-1],
        "size": np.asarray([len(line) for line in lines], dtype=np.int64),
        "score": np.asarray([row.figures.get(SCORE, 0.0) for row in rows], dtype=np.float64),
        "tie": name_hashes([row.item.id for row in rows]),
    }
    for name in task.choices:
        step = STEPS[name]
        if isinstance(step, DatasetStep) and step.columns:
            columns |= step.columns(rows, plan.settings)
    if task.is_last and (guard := plan.contexts.get(HELD_OUT)) is not None:
        reasons = guard.reasons([row.item for row in rows])
        columns[HELD_OUT] = np.asarray([reason is not None for reason in reasons], dtype=bool)
    if task.is_last and plan.settings.split.held_out:
        columns |= split_columns(rows, plan.settings)
    return columns


def _label_codes(
    rows: Sequence[CurationRow], more: Sequence[str]
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Columns of label codes (n,), and the value of each code, for `LABELS` and more labels."""
    columns: dict[str, np.ndarray] = {}
    values: dict[str, list[str]] = {}
    for name in sorted({*LABELS, *more}):
        code_of: dict[str, int] = {}
        codes = [code_of.setdefault(row.labels.get(name, UNLABELLED), len(code_of)) for row in rows]
        columns["label." + name] = np.asarray(codes, dtype=np.uint32)
        values[name] = list(code_of)
    return columns, values

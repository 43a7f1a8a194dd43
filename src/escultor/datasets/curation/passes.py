"""One pass over the rows: steps that look at one row each, then columns for those that look at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from escultor.config.curation import Curation
from escultor.data.jsonl_rows import Fault, RowKind, Skip, decode
from escultor.datasets.balance import watched
from escultor.datasets.curation.diversity import LabelTally, tally
from escultor.datasets.curation.labels import LABELS, UNLABELLED, labelled
from escultor.datasets.curation.near_duplicates import band_hashes, bands_for
from escultor.datasets.curation.normalization import mixed
from escultor.datasets.curation.personal_data import redacted
from escultor.datasets.curation.quality import SCORE
from escultor.datasets.curation.rows import CurationRow, Dropped, line_of, parse, prompt_text, read, whole
from escultor.datasets.curation.rows_on_disk import LineRange
from escultor.datasets.curation.steps import STEPS, BatchStep, DatasetStep, RowStep
from escultor.datasets.splits import HELD_OUT
from escultor.store.files import explained

SHOWN = 10  # examples of what a step removed
SHOWN_CHARS = 160
PROMPT = "prompt"  # the role under which prompts are compared with each other


@dataclass(frozen=True, slots=True)
class PassPlan:
    """What every worker knows: the kind of rows, the settings, what steps look things up in, what sources are
    called."""

    kind: RowKind
    settings: Curation
    contexts: dict[str, Any] = field(default_factory=dict)
    names: dict[Path, str] = field(default_factory=dict)  # of the sources


@dataclass(frozen=True, slots=True)
class Removed:
    """An example of what a step left out, private data redacted."""

    reason: str
    source: str
    text: str


@dataclass(slots=True)
class PassTally:
    """What one step did to some rows; two of them add up."""

    removed: Counter[str] = field(default_factory=Counter)  # by reason
    notes: Counter[str] = field(default_factory=Counter)  # rows that were changed, by what was done
    labels: LabelTally = field(default_factory=tally)  # of the rows left out
    examples: list[Removed] = field(default_factory=list)

    def drop(self, row: CurationRow, reason: str) -> None:
        """Count a row as left out."""
        self.removed[reason] += 1
        for name in LABELS:
            self.labels[name][row.labels[name]] += 1
        if len(self.examples) < SHOWN:
            self.examples.append(example(row, reason))

    def add(self, other: PassTally) -> None:
        """Take in what was counted elsewhere, later in the order of rows."""
        self.removed.update(other.removed)
        self.notes.update(other.notes)
        for name in LABELS:
            self.labels[name].update(other.labels[name])
        self.examples += other.examples[: SHOWN - len(self.examples)]


def example(row: CurationRow, reason: str) -> Removed:
    """A row as it may be shown."""
    text = redacted(whole(row.item)[: 4 * SHOWN_CHARS])
    return Removed(
        reason, row.item.origin.parents[0] if row.item.origin.parents else row.source, _short(text)
    )


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"


@dataclass(frozen=True, slots=True)
class PassTask:
    """A chunk to work on: lines of a source, or those lines of an earlier pass that are still there."""

    lines: LineRange
    keep: np.ndarray | None  # (n,) bool; None: a source, whose rows are parsed and checked
    out: Path
    steps: tuple[str, ...]
    choices: tuple[str, ...]  # steps that look at all rows after this pass
    last: bool  # whether prompts are to be compared with what is held out, and with each other


@dataclass(slots=True)
class PassResult:
    """What came of a piece. `labels` are the values by code of this piece."""

    rows: int
    tallied: dict[str, PassTally]
    columns: dict[str, np.ndarray]
    labels: dict[str, list[str]]
    kept: LabelTally
    read: int = 0  # lines that were not blank
    sources: Counter[str] = field(default_factory=Counter)


def work(plan: PassPlan, piece: PassTask) -> PassResult:
    """Run the steps over one chunk, write what is left and say what was done. Depends on the chunk alone."""
    for step in map(STEPS.__getitem__, plan.settings.steps):
        if isinstance(step, RowStep):
            step.ready()
    tallied = {name: PassTally() for name in ("parse", *piece.steps)}
    rows, count = _parsed(plan, piece, tallied["parse"]) if piece.keep is None else _read(plan, piece)
    sources = Counter(row.source for row in rows)
    for name in piece.steps:
        rows = _stepped(plan, name, rows, tallied[name])
    lines = [line_of(row) for row in rows]
    with explained("write rows that are being curated to", piece.out):
        piece.out.write_bytes(b"".join(lines))
    columns = _columns(plan, piece, rows, lines)
    codes, labels, kept = _coded(rows, watched(plan.settings.balance))
    return PassResult(len(rows), tallied, columns | codes, labels, kept, count, sources)


def _parsed(plan: PassPlan, piece: PassTask, tallied: PassTally) -> tuple[list[CurationRow], int]:
    found = piece.lines
    source = plan.names[found.path]
    if found.too_long:
        where = f"{source}:{found.first_line}"
        tallied.removed["line too long"] += 1
        tallied.examples.append(Removed("line too long", where, f"{found.end - found.start:,} bytes"))
        return [], 1
    rows, count = [], 0
    for number, line in enumerate(_lines(found), found.first_line):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        count += 1
        try:
            rows.append(labelled(parse(plan.kind, decode(line), source, number)))
        except (Fault, Skip) as fault:
            reason = f"broken: {fault.args[0]}" if isinstance(fault, Fault) else str(fault)
            tallied.removed[reason] += 1
            if len(tallied.examples) < SHOWN:
                text = redacted(line[: 4 * SHOWN_CHARS].decode("utf-8", "replace"))
                tallied.examples.append(Removed(str(fault), f"{source}:{number}", _short(text)))
    return rows, count


def _lines(found: LineRange) -> list[bytes]:
    with explained("read", found.path), found.path.open("rb") as file:
        file.seek(found.start)
        return file.read(found.end - found.start).removesuffix(b"\n").split(b"\n")


def _read(plan: PassPlan, piece: PassTask) -> tuple[list[CurationRow], int]:
    assert piece.keep is not None
    with explained("read", piece.lines.path), piece.lines.path.open("rb") as file:
        lines = zip(file, piece.keep, strict=True)
        rows = [read(plan.kind, line) for line, keep in lines if keep]
    return rows, len(rows)


def _stepped(plan: PassPlan, name: str, rows: list[CurationRow], tallied: PassTally) -> list[CurationRow]:
    step = STEPS[name]
    if isinstance(step, BatchStep):
        found = step.function(rows, plan.settings)
    else:
        assert isinstance(step, RowStep)
        context = plan.contexts.get(name)
        found = [step.function(row, plan.settings, context) for row in rows]
    kept = []
    for row, after in zip(rows, found, strict=True):
        if isinstance(after, Dropped):
            tallied.drop(row, after.reason)
        else:
            tallied.notes.update(after.notes[len(row.notes) :])
            kept.append(after)
    return kept


def _columns(
    plan: PassPlan, piece: PassTask, rows: Sequence[CurationRow], lines: Sequence[bytes]
) -> dict[str, np.ndarray]:
    ids = b"".join(blake2b(row.item.id.encode("utf-8", "replace"), digest_size=8).digest() for row in rows)
    columns = {
        "offset": np.cumsum([0, *map(len, lines)], dtype=np.int64)[:-1],
        "size": np.asarray([len(line) for line in lines], dtype=np.int64),
        "score": np.asarray([row.figures.get(SCORE, 0.0) for row in rows], dtype=np.float64),
        "tie": np.frombuffer(ids, dtype="<u8"),
    }
    for name in piece.choices:
        step = STEPS[name]
        if isinstance(step, DatasetStep) and step.columns:
            columns |= step.columns(rows, plan.settings)
    if piece.last and (guard := plan.contexts.get(HELD_OUT)) is not None:
        reasons = guard.reasons([row.item for row in rows])
        columns[HELD_OUT] = np.asarray([reason is not None for reason in reasons], dtype=bool)
    if piece.last and plan.settings.split.held_out:
        columns |= split_columns(rows, plan.settings)
    return columns


def split_columns(rows: Sequence[CurationRow], settings: Curation) -> dict[str, np.ndarray]:
    """What prompts are told apart by: `prompt` (n,) the hash of its bands, `prompt bands` (n, b), `subject`
    (n,) and `time` (n,), not-a-number where it is not known."""
    texts = [prompt_parts(row) for row in rows]
    shape = bands_for(settings.split.threshold, settings.near.permutations)
    subjects = [
        blake2b((row.subject or f"\x00{row.item.id}").encode("utf-8", "replace"), digest_size=8).digest()
        for row in rows
    ]
    times = [float("nan") if row.time is None else row.time for row in rows]
    bands = band_hashes(texts, *shape)
    return {
        "prompt": folded(bands),
        "prompt bands": bands,
        "subject": np.frombuffer(b"".join(subjects), dtype="<u8"),
        "time": np.asarray(times, dtype=np.float64),
    }


def folded(values: np.ndarray) -> np.ndarray:
    """(n,) one hash of each row of (n, b)."""
    found = np.zeros(len(values), dtype=np.uint64)
    for column in values.T:
        found = mixed(found ^ column)
    return found


def prompt_parts(row: CurationRow) -> tuple[tuple[str, str], ...]:
    """What is asked, as it is compared with other prompts."""
    return ((PROMPT, prompt_text(row.item)),)


def _coded(
    rows: Sequence[CurationRow], also: Sequence[str]
) -> tuple[dict[str, np.ndarray], dict[str, list[str]], LabelTally]:
    """Labels as numbers, their values, and how many rows have each."""
    names = sorted({*LABELS, *also})
    codes: dict[str, np.ndarray] = {}
    values: dict[str, list[str]] = {}
    for name in names:
        known: dict[str, int] = {}
        own = [known.setdefault(row.labels.get(name, UNLABELLED), len(known)) for row in rows]
        codes["label." + name] = np.asarray(own, dtype=np.uint32)
        values[name] = list(known)
    kept = {name: Counter(row.labels[name] for row in rows) for name in LABELS}
    return codes, values, kept

"""JSONL files of training items, one JSON object on each line, read and written.

    document  {"text": TEXT}
    example   {"prompt": PROMPT, "completion": ANSWER}, or {"messages": [...]}: every answer is learnt, but
              those of weight 0
    pair      {"prompt": PROMPT, "chosen": ANSWER, "rejected": ANSWER}; `prompt` may be left out if both
              sides are messages that begin with it
    unpaired  {"prompt": PROMPT, "completion": ANSWER, "label": true or false}, or {"messages": [...]} with
              such a label: a verdict on the last answer

PROMPT and ANSWER are text or messages in OpenAI's form (see `docs/data.md`). Optional are `tools`, `id`,
`weight`, a pair's `flip_rate`, and the `origin` of an exported row. A null key is an absent key. Broken rows
stop an import with an error that lists the first ten; a sound row with nothing to learn is counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from escultor.data.jsonl_rows import (
    KEYS,
    KINDS,
    SHAPES,
    TYPE_OF_KIND,
    Fault,
    Skip,
    TrainingItem,
    build,
    decode,
    kind_of_row,
    row_of,
    short,
)
from escultor.errors import DataError
from escultor.ids import hash_value
from escultor.store.files import atomic_write
from escultor.strict_json import JsonObject
from escultor.types import Document, Pair, Role, RowKind

MAX_PROBLEMS = 10  # collected before an import is refused
MAX_KIND_ROWS = 100  # read to find the kind of a file
MAX_LINES = 10  # line numbers kept for each reason
_KIND_OF_TYPE: dict[type, RowKind] = {type_: kind for kind, type_ in TYPE_OF_KIND.items()}


@dataclass(slots=True)
class ImportReport:
    """How much was imported, and what was left out by reason, with its first line numbers."""

    counts: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, list[int]] = field(default_factory=dict)

    def skip(self, reason: str, line: int) -> None:
        """Count a line that is left out."""
        self.counts[reason] += 1
        lines = self.skipped.setdefault(reason, [])
        if len(lines) < MAX_LINES:
            lines.append(line)


@dataclass(frozen=True, slots=True)
class JsonlContents:
    """The items of a file. `counts` has the rows kept, and those left out by reason; `skipped` the first ten
    line numbers of each such reason."""

    items: tuple[Any, ...]  # of the kind that was asked for
    counts: dict[str, int]
    skipped: dict[str, tuple[int, ...]]
    datasets: tuple[str, ...] = ()  # hashes of the dataset versions that the items were read from


def read_jsonl(path: Path, kind: RowKind) -> JsonlContents:
    """Read a file line by line. A row without `id` gets the hash of its content as id.

    Raises DataError with file and line of the first broken rows, what was got, what is allowed and the
    remedy; also if nothing is left to learn from.
    """
    if kind not in KINDS:
        raise DataError("no such kind of row", repr(kind), KINDS)
    reader = Reader(path, kind)
    for number, line in _read_lines(path):
        reader.add(number, line)
        if len(reader.problems) >= MAX_PROBLEMS:
            break
    return reader.contents()


def kind_of(path: Path) -> RowKind:
    """The kind of a file's first sound row. Broken rows before it are left to the reader of the file.

    Raises DataError if none of the first hundred rows is sound, or the file cannot be read.
    """
    problems: list[DataError] = []
    for number, line in _read_lines(path):
        if not line.strip():
            continue
        try:
            row = decode(line)
            if (kind := kind_of_row(row)) is not None:
                return kind
            unknown = f"{path}:{number}: the row has no known shape"
            problems.append(DataError(unknown, short(sorted(row)), SHAPES))
        except Fault as fault:
            problems.append(DataError(f"{path}:{number}: {fault}"))
        if len(problems) == MAX_KIND_ROWS:
            break
    if problems:
        raise problems[0]
    raise DataError(f"{path} holds no rows", "an empty file", "one JSON object on each line")


def count_turns(items: Iterable[TrainingItem]) -> dict[str, int]:
    """What the conversations of some items hold, of each as far as there is any."""
    counts: Counter[str] = Counter()
    for item in items:
        if isinstance(item, Document):
            continue
        extras = (item.chosen_extras, item.rejected_extras) if isinstance(item, Pair) else (item.extras,)
        learnt = sum(message.learnt for message in item.prompt)
        said = [*item.prompt, *extras]
        counts["conversations of several answers"] += any(m.role is Role.ASSISTANT for m in item.prompt)
        counts["answers learnt before the last"] += learnt
        counts["rows with tools"] += bool(item.tools)
        counts["calls of tools"] += sum(len(each.tool_calls) for each in said)
        counts["results of tools"] += sum(message.role is Role.TOOL for message in item.prompt)
        counts["messages with reasoning"] += sum(bool(each.reasoning) for each in said)
    return {name: n for name, n in counts.items() if n}


def write_jsonl(path: Path, items: Iterable[TrainingItem]) -> int:
    """Write items of one kind, whole or not at all, and return how many. `read_jsonl` restores them.

    Raises DataError for an item that would not be restored exactly, StoreError if the disk refuses.
    """
    items = iter(items)
    first = next(items, None)
    if first is None:
        raise DataError(f"nothing to write to {path}", "no items", "one or more")
    kind = _KIND_OF_TYPE.get(type(first))
    if kind is None:
        raise DataError("no such item in a file", type(first).__name__, KINDS)
    reader = Reader(path, kind)
    number = 0
    with atomic_write(path) as draft, draft.open("wb") as file:
        for number, item in enumerate(chain((first,), items), 1):
            file.write(_line(reader, number, item))
    return number


class Reader:
    """Collects the items of lines added one by one; `convert` first makes our rows of another format's."""

    def __init__(
        self, path: Path, kind: RowKind, convert: Callable[[JsonObject], JsonObject] = lambda row: row
    ):
        self.path = path
        self.kind: RowKind = kind
        self.convert = convert
        self.items: list[TrainingItem] = []
        self.problems: list[str] = []
        self.report = ImportReport()
        self._ids: dict[str, tuple[int, bytes]] = {}  # id -> line, hash of the whole row
        self._name = path.name.encode("utf-8", "replace").decode()  # as text, whatever its bytes

    def add(self, number: int, line: bytes) -> None:
        """Add one line: its item, the reason why it is left out, or the problem with it."""
        try:
            if not line.strip():
                raise Skip("blank line")
            row = self.convert(decode(line))
            item = build(self.kind, row, self.report.counts, f"{self._name}:{number}")
            self._refuse_repeated(item.id, number, row)
        except Skip as skip:
            self.report.skip(str(skip), number)
        except Fault as fault:
            self.problems.append(f"{self.path}:{number}: {fault}")
        else:
            self.items.append(item)
            self.report.counts["kept"] += 1

    def contents(self) -> JsonlContents:
        """What the lines contain. Raises DataError for broken lines, or if no item was kept."""
        if self.problems:
            more = [f"  (stopped at the first {MAX_PROBLEMS})"] if len(self.problems) >= MAX_PROBLEMS else []
            lines = [f"  {problem}" for problem in self.problems]
            what = "\n".join([f"{self.path} cannot be imported:", *lines, *more])
            raise DataError(what, remedy="correct these lines; nothing was imported")
        if not self.items:
            reasons = ", ".join(f"{reason}: {n}" for reason, n in self.report.counts.items())
            allowed = f"at least one {self.kind}, one JSON object on each line"
            raise DataError(f"{self.path} holds nothing to learn from", reasons or "an empty file", allowed)
        skipped = {reason: tuple(lines) for reason, lines in self.report.skipped.items()}
        return JsonlContents(tuple(self.items), dict(self.report.counts), skipped)

    def _refuse_repeated(self, id: str, number: int, row: JsonObject) -> None:
        digest = bytes.fromhex(hash_value({key: row[key] for key in row.keys() & KEYS[self.kind]}))
        line, known_digest = self._ids.setdefault(id, (number, digest))
        if line == number:
            return
        if known_digest == digest or "id" not in row:
            raise Skip("exact duplicate")
        allowed = f"one row; line {line} has it too"
        raise Fault("`id` names two different rows", short(id), allowed, "rename")


def _read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers, one in memory at a time, without a byte-order mark."""
    try:
        with path.open("rb") as file:
            for first in islice(file, 1):
                yield 1, first.removeprefix(b"\xef\xbb\xbf")
            yield from enumerate(file, 2)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{path} cannot be read", reason, "a JSONL file", "check the path") from error


def _line(reader: Reader, number: int, item: TrainingItem) -> bytes:
    """An item's line, read again to be sure that it is restored."""
    problem = "it would be restored differently"
    try:
        line = json.dumps(row_of(item), ensure_ascii=False).encode() + b"\n"
        reader.add(number, line)
        if reader.items and reader.items.pop() == item:
            return line
        problem = "; ".join([*reader.problems, *reader.report.skipped]) or problem
    except (UnicodeEncodeError, TypeError, ValueError) as error:
        problem = str(error)
    id = ascii(getattr(item, "id", None))
    raise DataError(f"item {number} ({id}) cannot be written to {reader.path}", problem, f"a {reader.kind}")

"""Users' files to nouns and back: JSONL, one JSON object on each line.

    document  {"text": TEXT}
    example   {"prompt": SAID, "completion": SAID}, or {"messages": [...]}: the last answer is learnt
    pair      {"prompt": SAID, "chosen": SAID, "rejected": SAID}; `prompt` may be left out where both
              sides are messages that begin with it
    unpaired  {"prompt": SAID, "completion": SAID, "label": true or false}

SAID is text, or messages `[{"role": "user", "content": TEXT}, ...]`. Optional are `id`, `weight`, a pair's
`flip_rate`, and the `origin` that an exported row keeps. A row that is broken stops the import, ten
such are gathered first; a row that is sound but teaches nothing is left out, counted and named.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, overload

from escultor.data.jsonl_rows import (
    KEYS,
    KINDS,
    SHAPES,
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
from escultor.store.files import whole
from escultor.strict_json import JsonObject
from escultor.types import Document, Example, Pair, RowKind, UnpairedExample

MAX_PROBLEMS = 10  # gathered before an import is refused
LOOKED_AT = 100  # rows from which the kind of a file is told
MAX_LINES = 10  # line numbers kept for each reason
_NOUNS: dict[type, RowKind] = {
    Document: "document",
    Example: "example",
    Pair: "pair",
    UnpairedExample: "unpaired",
}

T = TypeVar("T", bound=TrainingItem)


@dataclass(frozen=True, slots=True)
class JsonlContents(Generic[T]):
    """What a file held. `counts` says how many rows were kept, and by reason what was left out;
    `skipped` names the first ten lines of each reason for which a row was left out."""

    items: tuple[T, ...]
    counts: dict[str, int]
    skipped: dict[str, tuple[int, ...]]


@overload
def read_jsonl(path: Path, kind: Literal["document"]) -> JsonlContents[Document]: ...
@overload
def read_jsonl(path: Path, kind: Literal["example"]) -> JsonlContents[Example]: ...
@overload
def read_jsonl(path: Path, kind: Literal["pair"]) -> JsonlContents[Pair]: ...
@overload
def read_jsonl(path: Path, kind: Literal["unpaired"]) -> JsonlContents[UnpairedExample]: ...
@overload
def read_jsonl(path: Path, kind: RowKind) -> JsonlContents[Any]: ...
def read_jsonl(path: Path, kind: RowKind) -> JsonlContents[Any]:
    """Read a file line by line. A row without `id` is named by the hash of what it says.

    Raises DataError naming file and line of the first broken rows, what was got, what is allowed and
    the remedy; also when nothing is left to learn from.
    """
    if kind not in KINDS:
        raise DataError("no such kind of row", repr(kind), KINDS)
    reader = Reader(path, kind)
    for number, line in _lines(path):
        reader.take(number, line)
        if len(reader.problems) >= MAX_PROBLEMS:
            break
    return reader.done()


def kind_of(path: Path) -> RowKind:
    """What a file's first sound row is: document, example, pair or unpaired. Broken ones before it are what
    those who read the file count or refuse.

    Raises DataError when none of the first hundred is one, or the file cannot be read.
    """
    problems: list[DataError] = []
    for number, line in _lines(path):
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
        if len(problems) == LOOKED_AT:
            break
    raise (
        problems[0]
        if problems
        else DataError(f"{path} holds no rows", "an empty file", "one JSON object on each line")
    )


def write_jsonl(path: Path, items: Iterable[TrainingItem]) -> int:
    """Write items of one kind, whole or not at all, and return how many; `read_jsonl` gives them back.

    Raises DataError for an item that would not come back as it is, StoreError when the disk refuses.
    """
    items = iter(items)
    first = next(items, None)
    if first is None:
        raise DataError(f"nothing to write to {path}", "no items", "one or more")
    kind = _NOUNS.get(type(first))
    if kind is None:
        raise DataError("no such item in a file", type(first).__name__, KINDS)
    reader = Reader(path, kind)
    number = 0
    with whole(path) as draft, draft.open("wb") as file:
        for number, item in enumerate(_chained(first, items), 1):
            file.write(_line(reader, number, item))
    return number


# --- lines ------------------------------------------------------------------------------------


class Reader:
    """Takes lines one by one and keeps what they hold; `convert` makes rows of ours of another's."""

    def __init__(
        self, path: Path, kind: RowKind, convert: Callable[[JsonObject], JsonObject] = lambda row: row
    ):
        self.path = path
        self.kind: RowKind = kind
        self.convert = convert
        self.items: list[TrainingItem] = []
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self.skipped: dict[str, list[int]] = {}
        self.seen: dict[str, tuple[int, bytes]] = {}  # id -> line, hash of the whole row

    def take(self, number: int, line: bytes) -> None:
        try:
            if not line.strip():
                raise Skip("blank line")
            row = self.convert(decode(line))
            item = build(self.kind, row, self.counts, f"{_unicode(self.path.name)}:{number}")
            self._refuse_repeated(item.id, number, row)
        except Skip as skip:
            lines = self.skipped.setdefault(str(skip), [])
            self.counts[str(skip)] += 1
            if len(lines) < MAX_LINES:
                lines.append(number)
        except Fault as fault:
            self.problems.append(f"{self.path}:{number}: {fault}")
        else:
            self.items.append(item)
            self.counts["kept"] += 1

    def done(self) -> JsonlContents[Any]:
        if self.problems:
            more = [f"  (stopped at the first {MAX_PROBLEMS})"] if len(self.problems) >= MAX_PROBLEMS else []
            lines = [f"  {problem}" for problem in self.problems]
            what = "\n".join([f"{self.path} cannot be imported:", *lines, *more])
            raise DataError(what, remedy="correct these lines; nothing was imported")
        if not self.items:
            reasons = ", ".join(f"{reason}: {n}" for reason, n in self.counts.items())
            allowed = f"at least one {self.kind}, one JSON object on each line"
            raise DataError(f"{self.path} holds nothing to learn from", reasons or "an empty file", allowed)
        skipped = {reason: tuple(lines) for reason, lines in self.skipped.items()}
        return JsonlContents(tuple(self.items), dict(self.counts), skipped)

    def _refuse_repeated(self, id: str, number: int, row: dict[str, Any]) -> None:
        digest = bytes.fromhex(hash_value({key: row[key] for key in row.keys() & KEYS[self.kind]}))
        before, same = self.seen.setdefault(id, (number, digest))
        if before == number:
            return
        if same == digest or "id" not in row:
            raise Skip("exact duplicate")
        raise Fault(
            "`id` names two different rows", short(id), f"one row; line {before} has it too", "rename"
        )


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers, one in memory at a time; a byte-order mark is left out."""
    try:
        with path.open("rb") as file:
            for first in islice(file, 1):
                yield 1, first.removeprefix(b"\xef\xbb\xbf")
            yield from enumerate(file, 2)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{path} cannot be read", reason, "a JSONL file", "check the path") from error


# --- and back ---------------------------------------------------------------------------------


def _line(reader: Reader, number: int, item: TrainingItem) -> bytes:
    """An item's line, read again to be sure that it comes back."""
    problem = "it would come back changed"
    try:
        line = json.dumps(row_of(item), ensure_ascii=False).encode() + b"\n"
        reader.take(number, line)
        if reader.items and reader.items.pop() == item:
            return line
        problem = "; ".join([*reader.problems, *reader.skipped]) or problem
    except (UnicodeEncodeError, TypeError, ValueError) as error:
        problem = str(error)
    id = ascii(getattr(item, "id", None))
    raise DataError(f"item {number} ({id}) cannot be written to {reader.path}", problem, f"a {reader.kind}")


def _chained(first: TrainingItem, rest: Iterable[TrainingItem]) -> Iterator[TrainingItem]:
    yield first
    yield from rest


def _unicode(name: str) -> str:
    """A file's name as text, whatever bytes it is made of."""
    return name.encode("utf-8", "replace").decode()

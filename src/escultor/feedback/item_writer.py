"""Selected items as rows of blobs, in the order of their ids. An item's id is of what it says, so that what
the conversion before wrote of it is copied; only what it rests on, its rate and its weight are written anew.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from escultor.data.jsonl_rows import row_of
from escultor.datasets.held_out import HeldOutGuard
from escultor.errors import StoreError
from escultor.feedback.labelling_rules import Draft, ItemKind
from escultor.feedback.raw_log import uncollected, workers
from escultor.feedback.selection import KINDS, READ_AT_ONCE, DraftHandle, Selection, item_of, with_texts
from escultor.process_pool import ProcessPool
from escultor.store import Store
from escultor.store.files import explained
from escultor.store.log import Log

# Where in a row what its id does not name begins. JSON escapes quotes, so that no text holds this.
TAIL: dict[ItemKind, bytes] = {
    "example": b', "id": "',
    "pair": b', "flip_rate": ',
    "unpaired": b', "label": ',
}
ID = TAIL["example"]
_json = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class WriterContext:
    """What every process that writes rows knows: where texts are, and the rows of the conversion before."""

    log: Log
    before: Mapping[ItemKind, Path]
    guard: HeldOutGuard


WriteTask = tuple[ItemKind, list[DraftHandle]]


def written(
    store: Store, selection: Selection, guard: HeldOutGuard, before: Mapping[str, str]
) -> tuple[dict[str, int], dict[str, str]]:
    """How many rows of each kind, and the name of their blob. What is not written, since its prompt is held
    out or it was erased, leaves the selection. `before` names the blobs of a conversion under the same
    guard; those that are damaged or gone are not copied from."""
    rows, blobs = {}, {}
    n = sum(map(len, selection.chosen.values()))
    known: dict[ItemKind, Path] = {kind: path for kind in KINDS if (path := _sound(store, before.get(kind)))}
    with ProcessPool(workers(n), WriterContext(store.log, known, guard)) as crew:
        for kind in KINDS:
            lost: set[str] = set()
            blobs[kind] = store.blobs.put_pieces(_lines(crew, kind, selection, lost))
            selection.chosen[kind] = [c for c in selection.chosen[kind] if c.id not in lost]
            rows[kind] = len(selection.chosen[kind])
    return rows, blobs


def _sound(store: Store, blob: str | None) -> Path | None:
    try:
        if blob is None:
            return None
        store.blobs.verify(blob)
        return store.blobs.file(blob)
    except StoreError:
        return None


def _lines(crew: ProcessPool, kind: ItemKind, selection: Selection, lost: set[str]) -> Iterator[bytes]:
    chosen = selection.chosen[kind]
    starts = range(0, len(chosen), READ_AT_ONCE)
    pieces: Iterator[WriteTask] = (
        (kind, [each.named for each in chosen[at : at + READ_AT_ONCE]]) for at in starts
    )
    for lines, counts, missing in crew.map(_lines_of, pieces):
        selection.counts.update(counts)
        lost.update(missing)
        yield lines


@uncollected()
def _lines_of(writing: WriterContext, piece: WriteTask) -> tuple[bytes, Counter[str], list[str]]:
    """The rows of some items as JSONL, why others are none, and the ids of those."""
    kind, found = piece
    counts: Counter[str] = Counter()
    known = _known(writing.before.get(kind), kind, found)
    new = list(with_texts([each for each in found if each[0] not in known], writing.log, counts))
    reasons = writing.guard.reasons(new)
    counts.update(f"left out: {r.removeprefix('dropped: ')}" for r in reasons if r is not None)
    lines = {
        item.id: _json(row_of(item)).encode("utf-8", "surrogatepass")
        for item, reason in zip(new, reasons, strict=True)
        if reason is None
    }
    for id, weight, draft in found:
        if id in known:
            lines[id] = known[id] + _tail(kind, id, weight, Draft._make(draft))
    made = b"".join(lines[id] + b"\n" for id, _, _ in found if id in lines)
    return made, counts, [id for id, _, _ in found if id not in lines]


def _tail(kind: ItemKind, id: str, weight: float, draft: Draft) -> bytes:
    """What stands behind the texts in the row of an item."""
    line = _json(row_of(item_of(id, weight, draft, (), "", ""))).encode("utf-8", "surrogatepass")
    return line[line.rfind(TAIL[kind]) :]


def _known(path: Path | None, kind: ItemKind, found: list[DraftHandle]) -> dict[str, bytes]:
    """The texts of these items, as the conversion before wrote them, by id; both are in the order of ids."""
    if path is None or not found:
        return {}
    known: dict[str, bytes] = {}
    wanted, last = {id for id, _, _ in found}, found[-1][0]
    with explained("read", path), path.open("rb") as file:
        _seek(file, path.stat().st_size, found[0][0])
        for line in file:
            id = _id(line)
            if id > last:
                break
            if id in wanted:
                known[id] = line[: line.rfind(TAIL[kind])]
    return known


def _seek(file: BinaryIO, size: int, id: str) -> None:
    """Go to the first line whose id is no smaller: halves, since lines are in the order of their ids."""
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        _to_line(file, middle)
        line = file.readline()
        if line and _id(line) < id:
            low = file.tell()
        else:
            high = middle
    _to_line(file, low)


def _to_line(file: BinaryIO, at: int) -> None:
    """Go to the first line that begins at this byte or behind it."""
    file.seek(max(0, at - 1))
    if at:
        file.readline()


def _id(line: bytes) -> str:
    at = line.rfind(ID) + len(ID)
    return line[at : line.index(b'"', at)].decode()

"""Selected drafts as training items with their texts, and as rows of blobs, in the order of their ids."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

from escultor.data.jsonl_rows import extras_of, row_of
from escultor.data.row_messages import Skip, is_empty, messages_of
from escultor.datasets.held_out import HeldOutGuard
from escultor.errors import StoreError
from escultor.feedback.labelling_rules import CORRECTION_RULE, Draft, ItemKind
from escultor.feedback.raw_log import BodySource, no_cycle_collection, worker_count
from escultor.feedback.selection import KINDS, SelectedDraft, Selection
from escultor.process_pool import ProcessPool
from escultor.skills.schema import schema_valid
from escultor.store import Store
from escultor.store.files import wrap_os_errors
from escultor.store.log import Log
from escultor.types import (
    Consent,
    Example,
    Feedback,
    Interaction,
    Message,
    Messages,
    Origin,
    Pair,
    ToolDefinitions,
    UnpairedExample,
    answer_message,
)

ITEMS_PER_READ = 2000  # whose texts are in memory at a time
FeedbackItem = Example | Pair | UnpairedExample
DraftHandle = tuple[str, float, Draft]  # id, weight and draft, cheap to send to other processes


class ItemTexts(NamedTuple):
    """What an item is made of."""

    prompt: Messages
    chosen: Message
    rejected: Message
    tools: str = ""


ID = b', "id": "'  # before the id in a row's line
_json = json.JSONEncoder(ensure_ascii=False).encode


def load_items(
    selected: Sequence[SelectedDraft], bodies: BodySource, counts: Counter[str]
) -> Iterator[FeedbackItem]:
    """The items, a few thousand in memory at a time. What the log no longer holds was erased: it is counted
    and left out."""
    for handles in _batches(selected):
        texts = read_texts({id: draft for id, _, draft in handles}, bodies, counts)
        for id, weight, draft in handles:
            if id in texts:
                yield make_item(id, weight, draft, texts[id])


def make_item(id: str, weight: float, draft: Draft, texts: ItemTexts) -> FeedbackItem:
    """The item of a draft and its texts."""
    prompt, chosen, rejected = texts.prompt, texts.chosen.content, texts.rejected.content
    extras, rejected_extras = extras_of(texts.chosen), extras_of(texts.rejected)
    origin = Origin(*_origin(draft), Consent.TRAIN)
    if draft.kind == "pair":
        return Pair(
            id,
            prompt,
            chosen,
            rejected,
            origin=origin,
            weight=weight,
            flip_rate=draft.flip_rate,
            tools=texts.tools,
            chosen_extras=extras,
            rejected_extras=rejected_extras,
        )
    rest = {"origin": origin, "weight": weight, "tools": texts.tools, "extras": extras}
    if draft.kind == "unpaired":
        return UnpairedExample(id, prompt, chosen, bool(draft.desirable), **rest)
    return Example(id, prompt, chosen, **rest)


def _origin(draft: Draft) -> tuple[tuple[str, ...], str]:
    """The parents of a draft's item, and the rule that made it."""
    answers = {draft.answer, draft.rejected, "" if draft.rule == CORRECTION_RULE else draft.chosen} - {""}
    rule = f"{draft.rule};simulated" if draft.simulated else draft.rule
    return (*sorted(answers), *draft.events), rule


def _batches(selected: Sequence[SelectedDraft]) -> Iterator[list[DraftHandle]]:
    for start in range(0, len(selected), ITEMS_PER_READ):
        yield [(s.id, s.weight, s.draft) for s in selected[start : start + ITEMS_PER_READ]]


def read_texts(
    drafts: Mapping[str, Draft],
    bodies: BodySource,
    counts: Counter[str],
    schemas: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, ItemTexts]:
    """The texts of these items by id. Those whose answers or corrections the source no longer holds, those
    with more than text in their prompt, those without any text, and those that would teach what breaks the
    schema of their skill, are counted."""
    corrected = [d.chosen for d in drafts.values() if d.rule == CORRECTION_RULE]
    ids = {id for d in drafts.values() for id in (d.answer, d.rejected) if id}
    ids |= {d.chosen for d in drafts.values() if d.rule != CORRECTION_RULE}
    answers = bodies.raw_by_id(Interaction, sorted(ids))
    names = sorted({body["tools"] for body in answers.values() if body.get("tools")})
    tools = bodies.raw_by_id(ToolDefinitions, names) if names else {}
    said = {id: _answer(body) for id, body in answers.items()} | {"": answer_message("")}
    corrections = bodies.raw_by_id(Feedback, corrected)
    texts = {}
    for id, draft in drafts.items():
        body, rejected = answers.get(draft.answer), said.get(draft.rejected)
        if draft.rule == CORRECTION_RULE:
            text = corrections.get(draft.chosen, {}).get("text")
            chosen = None if text is None else answer_message(text)
        else:
            chosen = said.get(draft.chosen)
        if body is None or chosen is None or rejected is None:
            counts["left out: erased"] += 1
            continue
        is_learnt = (draft.kind != "unpaired" or draft.desirable) and not chosen.tool_calls
        schema = schemas.get(body["skill"]) if is_learnt else None
        if schema is not None and not schema_valid(chosen.content, json.loads(schema)):
            counts[f"left out: breaks the schema of the skill {body['skill']}"] += 1
            continue
        try:
            prompt = messages_of(body["messages"], "messages", Counter())
        except Skip as skip:
            counts[f"left out: {skip}"] += 1
            continue
        sides = (chosen, rejected) if draft.rejected else (chosen,)
        if all(map(is_empty, prompt)) or any(map(is_empty, sides)):
            counts["left out: an empty prompt or answer"] += 1
            continue
        definitions = tools.get(body.get("tools", ""), {}).get("text", "")
        texts[id] = ItemTexts(prompt, chosen, rejected, definitions)
    return texts


def _answer(body: Mapping[str, Any]) -> Message:
    """The answer of a logged interaction, with what stands beside its text."""
    keys = ("reasoning", "tool_calls", "token_ids")
    beside = {key: body[key] for key in keys if body.get(key)}
    if not beside:
        return answer_message(body["answer"])
    whole = {"role": "assistant", "content": body["answer"], **beside}
    return messages_of([whole], "answer", Counter())[0]


# --- rows ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WriterContext:
    """What every process that writes rows knows: where texts are, and the rows of the last conversion."""

    log: Log
    last_rows: Mapping[ItemKind, Path]
    guard: HeldOutGuard
    schemas: Mapping[str, str]  # by skill, as JSON


def write_rows(
    store: Store,
    selection: Selection,
    guard: HeldOutGuard,
    last_blobs: Mapping[str, str],
    schemas: Mapping[str, str],
) -> tuple[dict[str, int], dict[str, str]]:
    """By kind, the number of rows and the name of their blob. Items whose prompt is held out, whose
    texts were erased, or whose answer breaks its skill's schema, leave the selection.

    `last_blobs` names the blobs of a conversion under the same guard, if they are sound. An item's id is a
    hash of its content, so the texts of items that it holds already are neither looked up, checked nor even
    decoded again.
    """
    rows, blobs = {}, {}
    n = sum(map(len, selection.chosen.values()))
    last_rows: dict[ItemKind, Path] = {k: path for k in KINDS if (path := _sound(store, last_blobs.get(k)))}
    with ProcessPool(worker_count(n), WriterContext(store.log, last_rows, guard, schemas)) as pool:
        for kind in KINDS:
            lost: set[str] = set()
            blobs[kind] = store.blobs.put_chunks(_all_lines(pool, kind, selection, lost))
            selection.chosen[kind] = [s for s in selection.chosen[kind] if s.id not in lost]
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


def _all_lines(pool: ProcessPool, kind: ItemKind, selection: Selection, lost: set[str]) -> Iterator[bytes]:
    tasks: Iterator[tuple[ItemKind, list[DraftHandle]]]
    tasks = ((kind, handles) for handles in _batches(selection.chosen[kind]))
    for lines, counts, missing in pool.map(_lines, tasks):
        selection.counts.update(counts)
        lost.update(missing)
        yield lines


@no_cycle_collection()
def _lines(
    context: WriterContext, task: tuple[ItemKind, list[DraftHandle]]
) -> tuple[bytes, Counter[str], list[str]]:
    """The rows of some items as JSONL, why others are none, and the ids of those."""
    kind, handles = task
    counts: Counter[str] = Counter()
    lines = _last_lines(context.last_rows.get(kind), handles)
    missing = {id: draft for id, _, draft in handles if id not in lines}
    texts = read_texts(missing, context.log, counts, context.schemas)
    items = [make_item(id, weight, draft, texts[id]) for id, weight, draft in handles if id in texts]
    for item, reason in zip(items, context.guard.reasons(items), strict=True):
        if reason is None:
            lines[item.id] = _json(row_of(item)).encode("utf-8", "surrogatepass") + b"\n"
        else:
            counts[f"left out: {reason.removeprefix('dropped: ')}"] += 1
    ids = [id for id, _, _ in handles]
    return b"".join(lines[id] for id in ids if id in lines), +counts, [id for id in ids if id not in lines]


def _last_lines(path: Path | None, handles: Sequence[DraftHandle]) -> dict[str, bytes]:
    """The lines of these items with the texts of the last conversion's rows; both are in the order of their
    ids."""
    if path is None or not handles:
        return {}
    wanted = {id: (id, weight, draft) for id, weight, draft in handles}
    lines: dict[str, bytes] = {}
    with wrap_os_errors("read", path), path.open("rb") as file:
        # By halves, to the first byte behind which every line has an id that is no smaller.
        size = path.stat().st_size
        start = bisect_left(range(size), handles[0][0], key=lambda at: _id_after(file, at))
        _to_line(file, start)
        for line in file:
            id = _id_of(line)
            if id > handles[-1][0]:
                break
            if id in wanted:
                lines[id] = _with_texts_of(line, *wanted[id])
    return lines


def _id_of(line: bytes) -> str:
    return line[(at := line.rfind(ID) + len(ID)) : line.index(b'"', at)].decode()


def _with_texts_of(line: bytes, id: str, weight: float, draft: Draft) -> bytes:
    """The line of a draft with the texts of another line of the same id, as `row_of` writes it: texts,
    verdict, tools, id, origin and weight. A JSON string has no quote without a backslash, so that none holds
    what looks like a key."""
    begin = end = at = line.rfind(ID)
    verdict: dict[str, Any] = {}
    if draft.kind != "example":
        is_pair = draft.kind == "pair"
        verdict = {"flip_rate": draft.flip_rate} if is_pair else {"label": bool(draft.desirable)}
        begin = line.rfind(b', "flip_rate": ' if is_pair else b', "label": ', 0, at)
        end = line.find(b", ", begin + 1, at)
        end = at if end < 0 else end
    parents, rule = _origin(draft)
    origin = {"parents": parents, "rule": rule, "consent": Consent.TRAIN}
    before = f", {_json(verdict)[1:-1]}".encode() if verdict else b""
    behind = f", {_json({'id': id, 'origin': origin, 'weight': weight})[1:]}\n"
    return line[:begin] + before + line[end:at] + behind.encode("utf-8", "surrogatepass")


def _id_after(file: BinaryIO, at: int) -> str:
    """The id of the first row that begins at this byte or later; behind all ids where there is none."""
    _to_line(file, at)
    line = file.readline()
    return _id_of(line) if line else "~"


def _to_line(file: BinaryIO, at: int) -> None:
    """Moves to the first line that begins at this byte or later."""
    file.seek(max(0, at - 1))
    if at:
        file.readline()

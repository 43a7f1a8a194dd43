"""Items of a suite that a model was trained on, as far as the store knows what that was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from escultor.errors import StoreError
from escultor.evaluate.cache import EvaluationCache
from escultor.ids import hash_value
from escultor.skills.suites import items_of
from escultor.store import Store
from escultor.types import Checkpoint, DatasetVersion, Message, Role, Suite

REASON = "trained on"


def trained_on(store: Store, suite: str, *checkpoints: str) -> dict[str, str]:
    """The items of a registered suite whose prompt stands in a dataset that one of these checkpoints, or
    one it descends from, was trained on; with the reason. A dataset is read for a suite once."""
    found = store.log.get(Suite, suite)
    datasets = _datasets(store, checkpoints)
    if found is None or not datasets:
        return {}
    by_prompt: dict[str, list[str]] = {}
    for item in items_of(store.blobs, found):
        by_prompt.setdefault(hash_value(item.prompt), []).append(item.id)
    memo = EvaluationCache(store.root / "cache" / "leaks.jsonl")

    def read(blob: str) -> list[str]:
        return sorted({id for prompt in _prompts(store, blob) for id in by_prompt.get(prompt, ())})

    leaked = [memo.get(f"{blob}/{suite}", lambda blob=blob: read(blob)) for blob in datasets]
    return {id: REASON for ids in leaked for id in ids}


def _datasets(store: Store, checkpoints: tuple[str, ...]) -> list[str]:
    """The blobs of the datasets of a lineage."""
    known = {c.id: c for _, c in store.log.read(Checkpoint)}
    blobs = {version.hash: version.blob for _, version in store.log.read(DatasetVersion)}
    found, open_ = dict[str, None](), list(checkpoints)
    seen: set[str] = set()
    while open_:
        one = open_.pop()
        if one in seen or one not in known:
            continue
        seen.add(one)
        open_ += known[one].parents
        if known[one].dataset_hash in blobs:
            found[blobs[known[one].dataset_hash]] = None
    return list(found)


def _prompts(store: Store, blob: str) -> Iterator[str]:
    """The hash of every prompt in the rows of a dataset. A dataset that was erased has none."""
    try:
        path = store.blobs.file(blob)
    except StoreError:
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            prompt = row.get("prompt", row.get("item", {}).get("prompt"))
            if prompt:
                yield hash_value(_messages(prompt))


def _messages(prompt: Any) -> tuple[Message, ...]:
    if isinstance(prompt, str):
        return (Message(Role.USER, prompt),)
    return tuple(Message(Role(m["role"]), m["content"]) for m in prompt)

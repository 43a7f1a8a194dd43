"""Items of a suite that a model was trained on, as far as the store knows its training data."""

from __future__ import annotations

from escultor.datasets.held_out import prompt_hashes
from escultor.datasets.provenance import versions_of
from escultor.datasets.versions import in_force, retired_versions
from escultor.errors import StoreError
from escultor.evaluate.cache import EvaluationCache
from escultor.ids import hash_value
from escultor.skills.suites import load_items
from escultor.store import Store
from escultor.types import Checkpoint, DatasetVersion, Suite

REASON = "trained on"


def trained_on(store: Store, suite: str, *checkpoints: str) -> dict[str, str]:
    """The items of a registered suite whose prompt is in a dataset that one of these checkpoints, or one that
    it descends from, was trained on; with the reason. Each pair of dataset and suite is compared once."""
    record, datasets = store.log.get(Suite, suite), _datasets(store, checkpoints)
    if record is None or not datasets:
        return {}
    items_by_prompt: dict[str, list[str]] = {}
    for item in load_items(store.blobs, record):
        items_by_prompt.setdefault(hash_value(item.prompt), []).append(item.id)
    cache = EvaluationCache(store.root / "cache" / "leaks.jsonl")

    def items_in(blob: str) -> list[str]:
        try:
            return sorted({id for p in prompt_hashes(store, blob) for id in items_by_prompt.get(p, ())})
        except StoreError:  # an erased dataset has no rows
            return []

    leaked = [cache.get(f"{blob}/{suite}", lambda blob=blob: items_in(blob)) for blob in datasets]
    return {id: REASON for ids in leaked for id in ids}


def _datasets(store: Store, checkpoints: tuple[str, ...]) -> list[str]:
    """The blobs of the datasets that these checkpoints and their ancestors were trained on."""
    known = {c.id: c for _, c in store.log.read(Checkpoint)}
    retired = retired_versions(store)
    blobs = {version.hash: version.blob for _, version in store.log.read(DatasetVersion)}
    blobs |= {hash: blobs.get(in_force(retired, hash), "") for hash in retired}
    # Scores of a served version or under an instruction name the checkpoint first.
    visited, pending = dict[str, None](), [checkpoint.partition(" ")[0] for checkpoint in checkpoints]
    while pending:
        id = pending.pop()
        if id not in visited and id in known:
            visited[id] = None
            pending += known[id].parents
    hashes = [hash for id in visited for hash in versions_of(known[id])]
    return list(dict.fromkeys(filter(None, map(blobs.get, hashes))))

"""Rows that say exactly the same, found by hash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from escultor.config.curation import Curation
from escultor.datasets.disk.columns import Numbers, partition_by_key
from escultor.datasets.rows import CurationRow, RowPart, text_parts
from escultor.datasets.similarity.normalization import normalized


def name_hashes(names: Sequence[str]) -> np.ndarray:
    """(n,) uint64 hashes of names."""
    digests = [blake2b(name.encode("utf-8", "replace"), digest_size=8).digest() for name in names]
    return np.frombuffer(b"".join(digests), dtype="<u8")


def exact_columns(rows: Sequence[CurationRow], settings: Curation) -> dict[str, np.ndarray]:
    """`content` (n, 2): a 128-bit hash of all texts of a row, white space and case aside; `name` (n,): a hash
    of its id."""
    content = np.frombuffer(b"".join(_digest(text_parts(row.item)) for row in rows), dtype="<u8")
    return {"content": content.reshape(-1, 2), "name": name_hashes([row.item.id for row in rows])}


def _digest(parts: Sequence[RowPart]) -> bytes:
    text = "\x00".join(f"{role}\x01{normalized(text)}" for role, text in parts)
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()


def drop_exact_duplicates(
    content: Sequence[Numbers], name: Numbers, mask: np.ndarray, folder: Path | None
) -> dict[str, np.ndarray]:
    """The rows of a mask (rows,) to drop, by reason: all but the first with the same content, then all but
    the first with the same id."""
    dropped = []
    for keys in (content, [name]):
        repeated = np.zeros(len(mask), dtype=bool)
        for pairs in equal_pairs(keys, mask, folder):
            repeated[pairs[:, 1]] = True
        mask = mask & ~repeated
        dropped.append(repeated)
    return dict(zip(("exact duplicate", "id of another row"), dropped, strict=True))


def equal_pairs(keys: Sequence[Numbers], mask: np.ndarray, folder: Path | None) -> Iterator[np.ndarray]:
    """(m, 2) pairs of rows of a mask (rows,) with equal keys: the first such row, and each of the others."""
    seen = np.empty((0, len(keys) + 1), dtype=np.uint64)
    for continues, records in partition_by_key(keys, mask, folder):
        seen = np.concatenate([seen, records]) if continues else records
        order = np.lexsort(seen.T[:-1])  # stable: rows with equal keys keep their order
        ordered_keys = seen[order, :-1]
        is_equal = np.zeros(len(order), dtype=bool)
        is_equal[1:] = (ordered_keys[1:] == ordered_keys[:-1]).all(1)
        first = np.maximum.accumulate(np.where(is_equal, 0, np.arange(len(order))))
        pairs = np.column_stack([order[first[is_equal]], order[is_equal]])
        yield seen[pairs, -1].astype(np.int64)
        seen = np.delete(seen, order[is_equal], axis=0)

"""Log-probs of rows under a frozen reference, computed once and cached on disk per row and token.

The key is a row's token ids and the reference's weights, shape and precision of products. Nothing else
enters it: runs with another learning rate, loss or folder share the cache, and a changed token or weight
never finds an old value.
"""

from __future__ import annotations

import sqlite3
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from escultor.batching.batches import branch_pack, group_by_length, to_device
from escultor.batching.rows import BranchedRow
from escultor.errors import StoreError
from escultor.model.forward import logp_at_labels, precision, product_dtype
from escultor.model.loaded import model_hash

FILE = "reference.sqlite"
MAX_BYTES = 4 << 30  # of the file; beyond it, the references not used for longest are evicted
ROWS_PER_QUERY = 500
LOCK_TIMEOUT_S = 60.0  # while another process writes
_TABLES = """
create table if not exists reference (id text primary key, used real not null);
create table if not exists logp (reference text not null, row text not null, value blob not null,
                                 primary key (reference, row));
"""


class ReferenceLogp:
    """The log-probs of rows' labelled tokens under a frozen model. `folder` holds the cache file, which runs
    and processes share; None keeps all in memory. `computed` and `reused` count rows. Raises StoreError when
    the file cannot be read or written."""

    def __init__(self, model: Any, dtype: str, folder: Path | None = None):
        self.model, self.dtype = model, dtype
        self.path = folder / FILE if folder else None
        self.reference = model_hash(model, product_dtype(dtype, model.device.type))
        self.computed = self.reused = 0
        with self._explained():
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
            self.file = sqlite3.connect(self.path or ":memory:", timeout=LOCK_TIMEOUT_S, isolation_level=None)
            weakref.finalize(self, self.file.close)
            self.file.execute("pragma journal_mode = wal")
            self.file.execute("pragma synchronous = normal")
            self.file.executescript(_TABLES)
            self.file.execute("insert or replace into reference values (?, ?)", (self.reference, time.time()))
            self._evict()

    def get(self, rows: Sequence[BranchedRow]) -> Tensor:
        """Log-probs of every branch of every row, in this order: (K,) float32. Rows must be prepared: by now
        the model may be in training. Raises StoreError where one is missing."""
        return torch.from_numpy(np.concatenate(self._by_row(rows)))

    def get_branches(self, rows: Sequence[BranchedRow]) -> tuple[Tensor, Tensor]:
        """Log-probs of the first branches of all rows, and of their second branches; see `get`."""
        logps = zip(rows, self._by_row(rows), strict=True)
        sides = [np.split(logp, [len(row.branches[0])]) for row, logp in logps]
        first, second = (torch.from_numpy(np.concatenate(side)) for side in zip(*sides, strict=True))
        return first, second

    def _by_row(self, rows: Sequence[BranchedRow]) -> list[np.ndarray]:
        cached = self._read(rows)
        if missing := [row.key for row in rows if row.key not in cached]:
            what = f"log-probs of the reference are missing in {self.path}"
            remedy = "run the same command again: it computes them and resumes from the last state"
            raise StoreError(what, f"{len(missing)} of {len(rows)} rows missing", remedy=remedy)
        return [cached[row.key] for row in rows]

    def prepare(self, rows: Sequence[BranchedRow]) -> None:
        """Compute the rows that the cache lacks, in passes of like lengths; each pass is stored at once."""
        unique = list({row.key: row for row in rows}.values())
        cached = {key for part in self._stored(unique) for key in part}
        self.reused += len(cached)
        missing = [row for row in unique if row.key not in cached]
        for group in group_by_length([row.length for row in missing]):
            self._compute([missing[i] for i in group])

    @torch.no_grad()
    def _compute(self, rows: Sequence[BranchedRow]) -> None:
        training = self.model.training
        self.model.eval()
        device = self.model.device
        with precision(self.dtype, device.type):
            logp = logp_at_labels(self.model, to_device(branch_pack(rows), device)).float().cpu().numpy()
        self.model.train(training)
        parts = np.split(logp, np.cumsum([row.label_count for row in rows])[:-1])
        computed = {row.key: part.astype("<f4") for row, part in zip(rows, parts, strict=True)}
        self.add(computed)
        self.computed += len(computed)

    def cached(self, rows: Sequence[BranchedRow]) -> dict[str, np.ndarray]:
        """The cached log-probs of these rows, by their keys."""
        return {key: logp for part in self._stored(rows) for key, logp in part.items()}

    def _stored(self, rows: Sequence[BranchedRow]) -> Iterator[dict[str, np.ndarray]]:
        """The cached log-probs of some rows at a time."""
        for at in range(0, len(rows), ROWS_PER_QUERY):
            yield self._read(rows[at : at + ROWS_PER_QUERY])

    def add(self, logps: dict[str, np.ndarray]) -> None:
        """Store log-probs by row key, computed here or by another process. A row that is there stays."""
        with self._explained():
            self.file.execute("begin immediate")
            self.file.executemany(
                "insert into logp values (?, ?, ?) on conflict do update set value = excluded.value"
                " where length(value) <> length(excluded.value)",
                [(self.reference, key, part.tobytes()) for key, part in logps.items()],
            )
            self.file.execute("commit")

    def _read(self, rows: Iterable[BranchedRow]) -> dict[str, np.ndarray]:
        sizes = {row.key: 4 * row.label_count for row in rows}
        marks = ",".join("?" * len(sizes))
        query = f"select row, value from logp where reference = ? and row in ({marks})"
        with self._explained():
            stored = self.file.execute(query, (self.reference, *sizes)).fetchall()
        return {key: np.frombuffer(value, "<f4") for key, value in stored if len(value) == sizes[key]}

    def _evict(self) -> None:
        """Delete the rows of other references, the oldest first, while the file exceeds MAX_BYTES."""
        query = "select page_count * page_size from pragma_page_count(), pragma_page_size()"
        (size,) = self.file.execute(query).fetchone()
        if size <= MAX_BYTES:
            return
        others = self.file.execute("select id from reference where id <> ? order by used", (self.reference,))
        for (other,) in others.fetchall():
            self.file.execute("delete from logp where reference = ?", (other,))
            self.file.execute("delete from reference where id = ?", (other,))
            free, pages = (
                self.file.execute(f"pragma {name}").fetchone()[0] for name in ("freelist_count", "page_count")
            )
            if size * (pages - free) <= MAX_BYTES * pages:
                break

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise errors of the file as StoreError."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            what = f"the reference's log-probs cannot be stored in {self.path}"
            remedy = "free disk space, or delete the file: they are computed again"
            raise StoreError(what, error, remedy=remedy) from error

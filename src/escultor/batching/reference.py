"""What a frozen reference says about rows: computed once, kept on disk per row and token.

A row is found again by its token ids and by the reference: its weights, its shape, and the precision in
which it multiplies. Nothing else is in the key, so another learning rate, loss or folder finds every row,
and a row or a reference that changed by one number finds none: a stale value cannot be named.
"""

from __future__ import annotations

import hashlib
import json
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

from escultor.batching.batches import branch_pack, chunks, on
from escultor.batching.rows import BranchedRow
from escultor.errors import StoreError
from escultor.ids import HASH_LENGTH
from escultor.model.forward import logp_at_labels, precision, product_dtype

FILE = "reference.sqlite"
MAX_BYTES = 4 << 30  # of the file; beyond it, references not used for longest are forgotten
ASKED = 500  # rows looked up at a time
LOCKED_S = 60.0  # waited for another process that writes
_VOLATILE = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache")
_TABLES = """
create table if not exists reference (id text primary key, used real not null);
create table if not exists logp (reference text not null, row text not null, value blob not null,
                                 primary key (reference, row));
"""


class ReferenceLogp:
    """The log-probabilities that a frozen model gives to rows' labelled tokens.

    `folder` holds the file, shared by runs and processes; None keeps all in memory. `computed` and `reused`
    count rows. Raises StoreError when the file cannot be read or written.
    """

    def __init__(self, model: Any, dtype: str, folder: Path | None = None):
        self.model, self.dtype = model, dtype
        self.path = folder / FILE if folder else None
        self.reference = identity(model, product_dtype(dtype, model.device.type))
        self.computed = self.reused = 0
        with self._mended():
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
            self.file = sqlite3.connect(self.path or ":memory:", timeout=LOCKED_S, isolation_level=None)
            weakref.finalize(self, self.file.close)
            self.file.execute("pragma journal_mode = wal")
            self.file.execute("pragma synchronous = normal")
            self.file.executescript(_TABLES)
            self.file.execute("insert or replace into reference values (?, ?)", (self.reference, time.time()))
            self._forget()

    def of(self, rows: Sequence[BranchedRow]) -> Tensor:
        """(K,) float32: every branch of every row, in this order. They were prepared before: the model may be
        the one that is trained since. Raises StoreError where what it said has gone."""
        return torch.from_numpy(np.concatenate(self._by_row(rows)))

    def split(self, rows: Sequence[BranchedRow]) -> tuple[Tensor, Tensor]:
        """The same apart: the first branches of all rows, and the second ones."""
        sides = [
            np.split(found, [len(row.branches[0])])
            for row, found in zip(rows, self._by_row(rows), strict=True)
        ]
        first, second = (torch.from_numpy(np.concatenate(side)) for side in zip(*sides, strict=True))
        return first, second

    def _by_row(self, rows: Sequence[BranchedRow]) -> list[np.ndarray]:
        known = self._read(rows)
        if missing := [row.key for row in rows if row.key not in known]:
            raise StoreError(
                f"what the reference said has gone from {self.path}",
                f"{len(missing)} of {len(rows)} rows missing",
                remedy="run it again; they are computed again and the run goes on at its last state",
            )
        return [known[row.key] for row in rows]

    def prepare(self, rows: Sequence[BranchedRow]) -> None:
        """Compute what is not known of these rows, in passes of like lengths; kept as it goes."""
        unique = list({row.key: row for row in rows}.values())
        known = {key for found in self._spans(unique) for key in found}
        self.reused += len(known)
        missing = [row for row in unique if row.key not in known]
        for group in chunks([row.length for row in missing]):
            self._compute([missing[i] for i in group])

    @torch.no_grad()
    def _compute(self, rows: Sequence[BranchedRow]) -> None:
        training = self.model.training
        self.model.eval()
        device = self.model.device
        with precision(self.dtype, device.type):
            logp = logp_at_labels(self.model, on(device, branch_pack(rows))).float().cpu().numpy()
        self.model.train(training)
        parts = np.split(logp, np.cumsum([labels(row) for row in rows])[:-1])
        found = {row.key: part.astype("<f4") for row, part in zip(rows, parts, strict=True)}
        self.add(found)
        self.computed += len(found)

    def known(self, rows: Sequence[BranchedRow]) -> dict[str, np.ndarray]:
        """What is known of these rows, by their keys."""
        return {key: value for found in self._spans(rows) for key, value in found.items()}

    def _spans(self, rows: Sequence[BranchedRow]) -> Iterator[dict[str, np.ndarray]]:
        """What is known of them, not all in memory at once."""
        for at in range(0, len(rows), ASKED):
            yield self._read(rows[at : at + ASKED])

    def add(self, found: dict[str, np.ndarray]) -> None:
        """Keep what this reference says, computed here or by another process. A row known already stays."""
        with self._mended():
            self.file.execute("begin immediate")
            self.file.executemany(
                "insert into logp values (?, ?, ?) on conflict do update set value = excluded.value"
                " where length(value) <> length(excluded.value)",
                [(self.reference, key, part.tobytes()) for key, part in found.items()],
            )
            self.file.execute("commit")

    def _read(self, rows: Iterable[BranchedRow]) -> dict[str, np.ndarray]:
        sizes = {row.key: 4 * labels(row) for row in rows}
        asked = "select row, value from logp where reference = ? and row in ({})".format(
            ",".join("?" * len(sizes))
        )
        with self._mended():
            said = self.file.execute(asked, (self.reference, *sizes)).fetchall()
        return {key: np.frombuffer(value, "<f4") for key, value in said if len(value) == sizes[key]}

    def _forget(self) -> None:
        """Keep the file within MAX_BYTES, as far as other references' rows allow."""
        (size,) = self.file.execute(
            "select page_count * page_size from pragma_page_count(), pragma_page_size()"
        ).fetchone()
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
    def _mended(self) -> Iterator[None]:
        """What the file refuses, as an error that says what to do."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"the reference's log-probs cannot be kept in {self.path}",
                error,
                remedy="free disk space, or delete the file; they are computed again",
            ) from error


def labels(row: BranchedRow) -> int:
    """How many tokens of a row are labelled."""
    return sum(len(branch) for branch in row.branches)


def identity(model: Any, precision: str = "") -> str:
    """The content id of a model: every tensor, its shape's settings, and the precision of its products where
    that matters."""
    digest = hashlib.sha256(precision.encode())
    config = {k: v for k, v in model.config.to_dict().items() if k not in _VOLATILE}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(
            value.view(torch.uint8).numpy() if value.ndim else value.reshape(1).view(torch.uint8).numpy()
        )
    return digest.hexdigest()[:HASH_LENGTH]

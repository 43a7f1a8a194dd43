"""Keys and values of rows that come and go, each layer's in one buffer.

All rows end at one column, where the next token is written; a row that is shorter begins farther right, and
what is left of it is masked. A row that leaves is overwritten by the last one, a row that joins is copied in
beside the others, and the used columns move to the front when the buffer is full: nothing is copied at a step
but what is new, where the library's own cache copies all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

ROUND = 64  # columns are added by at least so many


class _Columns:
    """Which part of every buffer is in use: `rows` rows, of which row i begins at column `starts[i]`."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.end = 0  # the column that is written next
        self.rows_held, self.columns_held = 0, 0  # the size of the buffers

    @property
    def left(self) -> int:
        return min(self.starts, default=self.end)

    @property
    def width(self) -> int:
        return self.end - self.left


class _Layer(CacheLayerMixin):
    """One layer's part: buffers (rows held, kv heads, columns held, D), made at the first use."""

    is_sliding = False  # all columns are kept; the model's mask hides what lies outside a window

    def __init__(self, columns: _Columns) -> None:
        super().__init__()
        self.columns = columns
        self.buffers: list[Tensor] = []

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        # Zeros: what was never written is masked, but a NaN would not be.
        self.buffers = [self._zeros(part) for part in (key_states, value_states)]
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the next columns of all rows (B, kv heads, T, D); returns all that these rows have."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, at = len(self.columns.starts), self.columns.end
        until, left = at + key_states.shape[-2], self.columns.left
        seen = []
        for buffer, part in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:rows, :, at:until] = part
            seen.append(buffer[:rows, :, left:until])
        return seen[0], seen[1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.columns.width + query_length, 0

    def get_seq_length(self) -> int:
        return self.columns.width

    def get_max_length(self) -> int:
        return -1

    def move(self, rows: int, source: slice, to: int) -> None:
        """New buffers of the size now wanted, with `rows` rows' columns `source` at column `to`."""
        span = slice(to, to + source.stop - source.start)
        for at, buffer in enumerate(self.buffers):
            self.buffers[at] = self._zeros(buffer)
            self.buffers[at][:rows, :, span] = buffer[:rows, :, source]

    def take(self, other: _Layer, rows: int) -> None:
        """Copy all rows of `other` in after the first `rows`, ending at the same column."""
        if not self.is_initialized:
            self.lazy_initialization(other.buffers[0], other.buffers[1])
        theirs, end = other.columns, self.columns.end
        count, width = len(theirs.starts), theirs.width
        for mine, given in zip(self.buffers, other.buffers, strict=True):
            mine[rows : rows + count, :, end - width : end] = given[:count, :, theirs.left : theirs.end]

    def repeat(self, which: Sequence[int]) -> None:
        self.buffers = [buffer[torch.tensor(which, device=buffer.device)] for buffer in self.buffers]

    def put_last_in_place_of(self, row: int, last: int) -> None:
        for buffer in self.buffers:
            buffer[row] = buffer[last]

    def _zeros(self, like: Tensor) -> Tensor:
        _, heads, _, size = like.shape
        return like.new_zeros(self.columns.rows_held, heads, self.columns.columns_held, size)


class RowsCache(Cache):
    """A cache of transformers whose rows come and go. See the module."""

    def __init__(self, layers: int) -> None:
        self.columns = _Columns()
        super().__init__(layers=[_Layer(self.columns) for _ in range(layers)])

    @property
    def rows(self) -> int:
        return len(self.columns.starts)

    def begin(self, lengths: list[int], columns: int) -> None:
        """Make room for the first rows, which are `lengths` tokens long; `columns` are expected in all."""
        assert not self.rows
        self.columns.starts = [max(lengths) - length for length in lengths]
        self.columns.rows_held = len(lengths)
        self.columns.columns_held = columns

    def mask(self, new: int) -> Tensor:
        """Which of the columns in use, and of the next `new`, belong to each row: (B, T), 1 or 0."""
        starts = torch.tensor(self.columns.starts)  # (B,)
        return (torch.arange(self.columns.left, self.columns.end + new) >= starts[:, None]).long()

    def positions(self, new: int) -> Tensor:
        """Each row's positions in the next `new` columns, padding's being 0: (B, new)."""
        starts = torch.tensor(self.columns.starts)  # (B,)
        return (torch.arange(self.columns.end, self.columns.end + new) - starts[:, None]).clamp_(min=0)

    def reserve(self, new: int) -> None:
        """Make room for `new` more columns."""
        used = self.columns
        if used.end + new <= used.columns_held:
            return
        wanted = used.width + new
        if 2 * wanted > used.columns_held:
            used.columns_held = -(-2 * wanted // ROUND) * ROUND
        self._move(0)

    def advance(self, new: int) -> None:
        """The next `new` columns have been written by all layers."""
        self.columns.end += new

    def take(self, other: RowsCache) -> None:
        """Let the rows of `other` in, after these. `other` is not to be used any more."""
        used, theirs = self.columns, other.columns
        rows = self.rows
        together = rows + other.rows
        if not rows:
            used.end = min(theirs.width, used.columns_held)
        if together > used.rows_held or theirs.width > used.end:
            if together > used.rows_held:
                used.rows_held = together + together // 2
            used.columns_held = max(used.columns_held, max(used.width, theirs.width) + ROUND)
            self._move(max(0, theirs.width - used.width))
            used.end = max(used.end, theirs.width)
        for mine, given in zip(self.layers, other.layers, strict=True):
            mine.take(given, rows)  # type: ignore[union-attr]
        used.starts += [used.end - theirs.end + start for start in theirs.starts]

    def repeat(self, which: Sequence[int]) -> None:
        """Row i becomes what row `which[i]` was."""
        if list(which) == list(range(self.rows)):
            return
        for layer in self.layers:
            layer.repeat(which)  # type: ignore[union-attr]
        self.columns.starts = [self.columns.starts[at] for at in which]
        self.columns.rows_held = len(which)

    def drop(self, row: int) -> None:
        """Let go of a row; the last one takes its number."""
        last = self.rows - 1
        for layer in self.layers if row != last else ():
            layer.put_last_in_place_of(row, last)  # type: ignore[union-attr]
        self.columns.starts[row] = self.columns.starts[last]
        self.columns.starts.pop()

    def _move(self, to: int) -> None:
        """Put the columns in use at column `to`, in buffers of the size now wanted."""
        used = self.columns
        source = slice(used.left, used.end)
        for layer in self.layers:
            layer.move(self.rows, source, to)  # type: ignore[union-attr]
        used.starts = [start - source.start + to for start in used.starts]
        used.end = source.stop - source.start + to


def layers_to_cache(model: Any) -> int | None:
    """How many layers' keys and values make up all that `model` remembers; None for one that remembers in
    another way (recurrent states, compressed or shared layers, chunks), which no RowsCache can hold."""
    config = model.config.get_text_config(decoder=True)
    if model._is_stateful or getattr(config, "attention_chunk_size", None):
        return None
    kinds = {type(layer) for layer in DynamicCache(config=model.config).layers}
    plain = bool(kinds) and kinds <= {DynamicLayer, DynamicSlidingWindowLayer}
    return int(config.num_hidden_layers) if plain else None

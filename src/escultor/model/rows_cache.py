"""A key-value cache whose rows join and leave, with one buffer per layer.

All rows end at the same column, where the next token is written; shorter rows begin farther right, and the
columns before them are masked. A row that leaves is overwritten by the last row, a row that joins is copied
in after the others, and the used columns move to the front when the buffer is full. A decoding step therefore
copies only the new column, where transformers' own cache copies everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

ROUND = 64  # buffers grow by at least this many columns


class _Columns:
    """Which part of every layer's buffers is in use: row i is in columns `starts[i]` up to `end`."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.end = 0  # the column to be written next
        self.rows_held, self.columns_held = 0, 0  # the size of the buffers, in use or not

    @property
    def left(self) -> int:
        return min(self.starts, default=self.end)

    @property
    def width(self) -> int:
        return self.end - self.left


class _Layer(CacheLayerMixin):
    """The buffers of one layer, (rows held, kv heads, columns held, D), allocated at the first use."""

    is_sliding = False  # all columns are kept; the model's mask hides those outside a sliding window

    def __init__(self, columns: _Columns) -> None:
        super().__init__()
        self.columns = columns
        self.buffers: list[Tensor] = []

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        # Zeros, since masked columns that were never written must not hold NaN: NaN times zero is NaN.
        self.buffers = [self._zeros(part) for part in (key_states, value_states)]
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the next T columns of all rows, (B, kv heads, T, D); returns all their used columns."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, at = len(self.columns.starts), self.columns.end
        until, left = at + key_states.shape[-2], self.columns.left
        used = []
        for buffer, part in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:rows, :, at:until] = part
            used.append(buffer[:rows, :, left:until])
        return used[0], used[1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.columns.width + query_length, 0

    def get_seq_length(self) -> int:
        return self.columns.width

    def get_max_length(self) -> int:
        return -1

    def move(self, rows: int, source: slice, to: int) -> None:
        """Reallocate the buffers, with columns `source` of `rows` rows at column `to`."""
        span = slice(to, to + source.stop - source.start)
        for at, buffer in enumerate(self.buffers):
            self.buffers[at] = self._zeros(buffer)
            self.buffers[at][:rows, :, span] = buffer[:rows, :, source]

    def extend(self, other: _Layer, rows: int) -> None:
        """Copy all rows of `other` after the first `rows`, so that they end at the same column."""
        if not self.is_initialized:
            self.lazy_initialization(other.buffers[0], other.buffers[1])
        source, end = other.columns, self.columns.end
        count, width = len(source.starts), source.width
        for buffer, new in zip(self.buffers, other.buffers, strict=True):
            buffer[rows : rows + count, :, end - width : end] = new[:count, :, source.left : source.end]

    def repeat(self, which: Sequence[int]) -> None:
        self.buffers = [buffer[torch.tensor(which, device=buffer.device)] for buffer in self.buffers]

    def put_last_in_place_of(self, row: int, last: int) -> None:
        for buffer in self.buffers:
            buffer[row] = buffer[last]

    def _zeros(self, like: Tensor) -> Tensor:
        _, heads, _, size = like.shape
        return like.new_zeros(self.columns.rows_held, heads, self.columns.columns_held, size)


class RowsCache(Cache):
    """A `transformers.Cache` whose rows join and leave; all layers share one record of the used columns."""

    def __init__(self, layers: int) -> None:
        self.columns = _Columns()
        super().__init__(layers=[_Layer(self.columns) for _ in range(layers)])

    @property
    def rows(self) -> int:
        return len(self.columns.starts)

    def begin(self, lengths: list[int], columns: int) -> None:
        """Start with empty rows for prompts of these lengths, in buffers of `columns` columns."""
        assert not self.rows
        self.columns.starts = [max(lengths) - length for length in lengths]
        self.columns.rows_held = len(lengths)
        self.columns.columns_held = columns

    def mask(self, new: int) -> Tensor:
        """The attention mask (B, T) over the used columns and the next `new`: 1 in each row's own columns."""
        starts = torch.tensor(self.columns.starts)  # (B,)
        return (torch.arange(self.columns.left, self.columns.end + new) >= starts[:, None]).long()

    def positions(self, new: int) -> Tensor:
        """The position ids (B, new) of the next `new` columns; 0 in padding."""
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
        """Count the next `new` columns as used, after all layers have written them."""
        self.columns.end += new

    def extend(self, other: RowsCache) -> None:
        """Add the rows of `other` after these. `other` must not be used afterwards."""
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
        for layer, new in zip(self.layers, other.layers, strict=True):
            layer.extend(new, rows)  # type: ignore[union-attr]
        used.starts += [used.end - theirs.end + start for start in theirs.starts]

    def repeat(self, which: Sequence[int]) -> None:
        """Replace the rows: new row i is a copy of row `which[i]`."""
        if list(which) == list(range(self.rows)):
            return
        for layer in self.layers:
            layer.repeat(which)  # type: ignore[union-attr]
        self.columns.starts = [self.columns.starts[at] for at in which]
        self.columns.rows_held = len(which)

    def drop(self, row: int) -> None:
        """Remove a row; the last row takes its number."""
        last = self.rows - 1
        for layer in self.layers if row != last else ():
            layer.put_last_in_place_of(row, last)  # type: ignore[union-attr]
        self.columns.starts[row] = self.columns.starts[last]
        self.columns.starts.pop()

    def _move(self, to: int) -> None:
        """Move the used columns to column `to`, in buffers reallocated at their current size."""
        used = self.columns
        source = slice(used.left, used.end)
        for layer in self.layers:
            layer.move(self.rows, source, to)  # type: ignore[union-attr]
        used.starts = [start - source.start + to for start in used.starts]
        used.end = source.stop - source.start + to


def layers_to_cache(model: Any) -> int | None:
    """The number of layers whose keys and values are the whole state of `model`; None for a model with any
    other state (recurrent layers, compressed or shared caches, chunked attention)."""
    config = model.config.get_text_config(decoder=True)
    if model._is_stateful or getattr(config, "attention_chunk_size", None):
        return None
    kinds = {type(layer) for layer in DynamicCache(config=model.config).layers}
    plain = bool(kinds) and kinds <= {DynamicLayer, DynamicSlidingWindowLayer}
    return int(config.num_hidden_layers) if plain else None

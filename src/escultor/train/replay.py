"""Earlier data mixed into a run: a share of its rows is taken from what models before it have learnt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from escultor.config.training import Replay
from escultor.datasets.held_out import load_guard
from escultor.datasets.reading import read_training_rows
from escultor.errors import DataError
from escultor.ids import hash_value
from escultor.store import Store
from escultor.types import RowKind

REPLAYED = "replayed: earlier rows mixed in"


def with_replay(
    items: Sequence[Any],
    replay: Replay | None,
    kind: RowKind,
    store: Store | None,
    *,
    seed: int,
    counts: Counter[str],
) -> Sequence[Any]:
    """The items with earlier ones among them, spread evenly, so that these are `replay.share` of all, or as
    many as there are; those that are items too, or held out, are left out. Which ones follows from their
    content and `seed` alone. Raises DataError where the earlier data are missing or of another kind."""
    if replay is None:
        return items
    own = set(map(_content, items))
    _, contents = read_training_rows(Path(replay.data), kind, store)
    earlier = [item for item in contents.items if _content(item) not in own]
    if store is not None:
        earlier = list(load_guard(store).allowed(earlier, counts))
    wanted = round(len(items) * replay.share / (1 - replay.share))
    chosen = sorted(earlier, key=lambda item: hash_value([seed, _content(item)]))[:wanted]
    if not chosen:
        what = "there is no earlier row to replay"
        got = f"{len(earlier)} rows of {replay.data} that are not in the data already, {wanted} wanted"
        raise DataError(what, got, "at least one", "name other data in replay.data, or set replay=null")
    counts[REPLAYED] += len(chosen)
    places = [(at + 0.5) / len(items) for at in range(len(items))]
    places += [(at + 0.5) / len(chosen) for at in range(len(chosen))]
    return [item for _, item in sorted(zip(places, (*items, *chosen), strict=True), key=lambda pair: pair[0])]


def _content(item: Any) -> str:
    """The hash of what an item teaches, whatever it is called and wherever it comes from."""
    apart = ("id", "origin", "weight")
    return hash_value([getattr(item, f.name) for f in fields(item) if f.name not in apart])

"""What a base model thinks of a row: its bits per byte of what is learnt, as a feature of the score."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

from escultor.config.curation import Curation
from escultor.datasets.curation.features import PERPLEXITY
from escultor.datasets.curation.rows import CurationRow, Dropped, learnt
from escultor.types import Document, Example


@cache
def _model(name: str) -> Any:
    from escultor.model.load import load

    return load(name)


def perplexity(rows: list[CurationRow], settings: Curation) -> list[CurationRow | Dropped]:
    """Rows with the figure `bits per byte`: of a document in windows of the model's context; of another row
    that is longer than the context there is none, which the score takes for the mean."""
    from escultor.batching.rows import document_rows, example_rows
    from escultor.batching.teacher import nll_by_row

    chosen = settings.perplexity
    loaded = _model(chosen.model)
    context = int(loaded.model.config.max_position_embeddings)
    known: dict[str, float] = {}
    for at in range(0, len(rows), chosen.batch_size):
        batch = rows[at : at + chosen.batch_size]
        items = [_item(row, str(number)) for number, row in enumerate(batch, at)]
        if items and isinstance(items[0], Document):
            made = document_rows(items, loaded.chat, context, Counter())
        else:
            made = example_rows(items, loaded.chat, context, Counter())
        if made:
            for each, nats in zip(made, nll_by_row(loaded.model, made, "auto"), strict=True):
                key = each.id.partition(":")[0]
                known[key] = known.get(key, 0.0) + float(nats)
    return [
        row.figure(PERPLEXITY, known[str(i)] / 0.6931471805599453 / max(1, len(learnt(row.item).encode())))
        if str(i) in known
        else row
        for i, row in enumerate(rows)
    ]


def _item(row: CurationRow, id: str) -> Any:
    item = row.item
    if isinstance(item, Document):
        return Document(id, item.text, item.origin)
    return Example(id, item.prompt, learnt(item), item.origin)

"""The perplexity step: a base model's bits per byte of the target text, as a feature of the quality score."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from typing import Any

from escultor.config.curation import Curation
from escultor.datasets.curation.features import PERPLEXITY
from escultor.datasets.rows import CurationRow, Dropped, target_text
from escultor.types import Document, Example


@cache
def _model(name: str) -> Any:
    from escultor.model.load import load

    return load(name)


def perplexity(rows: list[CurationRow], settings: Curation) -> list[CurationRow | Dropped]:
    """Rows with the figure `bits per byte`. Documents are read in windows of the model's context; other rows
    longer than the context get no figure, which the score treats as the mean."""
    from escultor.batching.rows import document_rows, example_rows
    from escultor.batching.teacher import nll_by_row
    from escultor.model.loaded import NO_LIMIT, context_length

    loaded = _model(settings.perplexity.model)
    context = context_length(loaded.model) or NO_LIMIT
    nats: dict[str, float] = {}  # by the number of the row
    for start in range(0, len(rows), settings.perplexity.batch_size):
        batch = rows[start : start + settings.perplexity.batch_size]
        items = [_item(row, str(number)) for number, row in enumerate(batch, start)]
        make_rows = document_rows if isinstance(items[0], Document) else example_rows
        token_rows = make_rows(items, loaded.chat, context, Counter())
        if token_rows:
            for each, nll in zip(token_rows, nll_by_row(loaded.model, token_rows, "auto"), strict=True):
                number = each.id.partition(":")[0]
                nats[number] = nats.get(number, 0.0) + float(nll)
    scored: list[CurationRow | Dropped] = list(rows)
    for number, nll in nats.items():
        row = rows[int(number)]
        bits = nll / math.log(2) / max(1, len(target_text(row.item).encode()))
        scored[int(number)] = row.with_figure(PERPLEXITY, bits)
    return scored


def _item(row: CurationRow, id: str) -> Any:
    item = row.item
    if isinstance(item, Document):
        return Document(id, item.text, item.origin)
    return Example(id, item.prompt, target_text(item), item.origin)

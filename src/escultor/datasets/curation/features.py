"""The features of the quality score: named, readable numbers of a row; the step that measures perplexity."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any

from escultor.config.curation import Curation
from escultor.datasets.curation.filters import repeated_share
from escultor.datasets.rows import (
    CurationRow,
    Dropped,
    answer_text,
    plain_messages,
    prompt_text,
    target_text,
)
from escultor.datasets.similarity.normalization import words_of
from escultor.types import Document, Example

_STOP_WORDS = (
    "a about all an and any are as at be been but by can could did do does for from had has have he her "
    "his how i if in into is it its just may more no not of on one only or other our out over she should "
    "so some such than that the their them then there these they this to up was we were what when where "
    "which who will with would you your "
)
_STOP = frozenset(_STOP_WORDS.split())
_SENTENCE_END = re.compile(r"[.!?:;)\]}\"'`»”…]\s*\Z")


class RowTexts:
    """The texts and words of a row that several features read."""

    def __init__(self, row: CurationRow):
        self.answer = target_text(row.item)
        self.prompt = "" if isinstance(row.item, Document) else prompt_text(row.item)
        self.words = words_of(self.answer)
        self.prompt_words = set(words_of(self.prompt))
        self.content = [w for w in self.words if w not in _STOP and len(w) > 2]


def _ends_as_sentence(text: str) -> float:
    return float(bool(_SENTENCE_END.search(text))) if text.strip() else 0.0


def _share(text: str, is_counted: Callable[[str], bool]) -> float:
    return sum(map(is_counted, text)) / max(1, len(text))


FEATURES: dict[str, Callable[[RowTexts], float]] = {
    "log words": lambda x: math.log1p(len(x.words)),
    "log words asked": lambda x: math.log1p(len(x.prompt.split())),
    "ends as a sentence": lambda x: _ends_as_sentence(x.answer),
    "asked ends as a sentence": lambda x: _ends_as_sentence(x.prompt) if x.prompt else 1.0,
    "begins with a capital, digit or bracket": lambda x: float(
        x.answer.lstrip()[:1].isupper() or not x.answer.lstrip()[:1].isalpha()
    ),
    "stop words": lambda x: sum(w in _STOP for w in x.words) / max(1, len(x.words)),
    "different words": lambda x: len(set(x.words)) / max(1, len(x.words)),
    "mean word length": lambda x: min(20.0, sum(map(len, x.words)) / max(1, len(x.words))),
    "letters": lambda x: _share(x.answer[:2000], str.isalpha),
    "digits": lambda x: _share(x.answer[:2000], str.isdigit),
    "repeated runs": lambda x: repeated_share(x.words),
    "answer's words asked about": lambda x: (
        sum(w in x.prompt_words for w in x.content) / len(x.content) if x.prompt and x.content else 0.5
    ),
    "answer repeats what is asked": lambda x: float(bool(x.prompt) and x.answer.strip() in x.prompt),
}
PERPLEXITY = "bits per byte"


def features_of(row: CurationRow) -> dict[str, float]:
    """Every feature of a row, with the base model's bits per byte if an earlier step measured them."""
    texts = RowTexts(row)
    features = {name: float(measure(texts)) for name, measure in FEATURES.items()}
    if PERPLEXITY in row.figures:
        features[PERPLEXITY] = row.figures[PERPLEXITY]
    return features


# --- perplexity ---------------------------------------------------------------------------------


@cache
def _model(name: str) -> Any:
    from escultor.model.load import load

    return load(name)


def perplexity(rows: list[CurationRow], settings: Curation, context: Any) -> list[CurationRow | Dropped]:
    """Rows with the figure `bits per byte`. Documents are read in windows of the model's context; other rows
    longer than the context get no figure, which the score treats as the mean."""
    from escultor.batching.rows import document_rows, example_rows
    from escultor.batching.teacher import nll_by_row
    from escultor.model.loaded import max_context_tokens

    loaded = _model(settings.perplexity.model)
    max_tokens = max_context_tokens(loaded.model)
    nats: defaultdict[str, float] = defaultdict(float)  # by the number of the row
    for start in range(0, len(rows), settings.perplexity.batch_size):
        batch = rows[start : start + settings.perplexity.batch_size]
        items: list[Any] = [_target(row, str(number)) for number, row in enumerate(batch, start)]
        make_rows = document_rows if isinstance(items[0], Document) else example_rows
        token_rows = make_rows(items, loaded.chat, max_tokens, Counter())
        if token_rows:
            for each, nll in zip(token_rows, nll_by_row(loaded.model, token_rows, "auto"), strict=True):
                nats[each.id.partition(":")[0]] += float(nll)
    scored: list[CurationRow | Dropped] = list(rows)
    for number, nll in nats.items():
        row = rows[int(number)]
        text = row.item.text if isinstance(row.item, Document) else answer_text(row.item)
        bits = nll / math.log(2) / max(1, len(text.encode()))
        scored[int(number)] = row.with_figure(PERPLEXITY, bits)
    return scored


def _target(row: CurationRow, id: str) -> Document | Example:
    item = row.item
    if isinstance(item, Document):
        return Document(id, item.text, item.origin)
    return Example(id, plain_messages(item.prompt), answer_text(item), item.origin)

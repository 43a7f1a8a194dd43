"""The features of the quality score: named, readable numbers of a row; the step that measures
perplexity."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
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
from escultor.text.normalization import (
    CHARACTERS_PER_WORD,
    has_characters,
    word_count,
    words_of,
)
from escultor.types import Document, Example

_STOP_WORDS = {
    "en": "a about all an and any are as at be been but by can could did do does for from had has have he "
    "her his how i if in into is it its just may more no not of on one only or other our out over she "
    "should so some such than that the their them then there these they this to up was we were what "
    "when where which who will with would you your",
    "pt": "a ao aos as até com como da das de dela dele deles depois do dos e ela ele eles em entre era "
    "essa esse esta este eu foi há isso isto já lhe mais mas me meu minha muito na nas no nos não nós "
    "o os ou para pela pelo por pra qual quando que quem se sem ser seu sua são só também te tem um "
    "uma você vocês",
    "es": "a al como con cuando de del desde donde el ella ellos en entre era es esta este esto fue ha hay "
    "la las le lo los más me mi muy no nos o para pero por que quien se ser si sin sobre son su sus "
    "también te un una y ya yo",
    "fr": "a au aux avec ce ces cette dans de des du elle en est et il ils je la le les leur lui mais me "
    "même ne nous on ou où par pas plus pour qu que qui sa se ses si son sont sur un une vous y à été "
    "être",
    "de": "aber als am an auch auf aus bei bis das dass dem den der des die durch ein eine einem einen "
    "einer er es für hat ich ihr im in ist mit nach nicht noch nur oder sein sich sie sind so um und "
    "uns von vor war was wie wir wird zu zum zur über",
    "it": "a al alla anche che chi ci come con da dal dei del della di e ed gli ha i il in io la le lo ma "
    "mi ne nel nella non o per più quando quello questa questo se si sono su sul tra un una è",
}
_STOP = {language: frozenset(words.split()) for language, words in _STOP_WORDS.items()}
_ALL_STOP = frozenset[str]().union(*_STOP.values())
NEUTRAL_STOP_SHARE = 0.25  # of scripts for which there is no list
_ENDS = frozenset(".!?:;)]}\"'`»”…。！？：；」』）】》।॥۔؟။៕")


class RowTexts:
    """The texts and words of a row that several features read."""

    def __init__(self, row: CurationRow):
        self.answer = target_text(row.item)
        self.prompt = "" if isinstance(row.item, Document) else prompt_text(row.item)
        self.words = words_of(self.answer)
        self.prompt_words = set(words_of(self.prompt))
        self.is_characters = has_characters(self.words)
        self.stop_words = _own_stop_words(self.words)
        if self.is_characters:  # pairs of characters are what comes nearest to words
            self.content = [a + b for a, b in pairwise(self.words)]
            self.prompt_words.update(a + b for a, b in pairwise(words_of(self.prompt)))
        else:
            self.content = [w for w in self.words if w not in self.stop_words and len(w) > 2]


def _own_stop_words(words: Sequence[str]) -> frozenset[str]:
    """The stop words of the language that has most of these words; English among equals."""
    found = Counter(word for word in words if word in _ALL_STOP)
    return max(_STOP.values(), key=lambda stop: sum(n for word, n in found.items() if word in stop))


def _stop_share(x: RowTexts) -> float:
    if x.is_characters or (x.words and not any(c.isascii() for word in x.words[:100] for c in word)):
        return NEUTRAL_STOP_SHARE
    return sum(w in x.stop_words for w in x.words) / max(1, len(x.words))


def _ends_as_sentence(text: str) -> float:
    last = text.rstrip()[-1:]
    if "\u0e00" <= last <= "\u0eff":  # Thai and Lao end sentences with a blank
        return 0.5
    return float(last in _ENDS) if last else 0.0


def _begins_well(text: str) -> float:
    first = text.lstrip()[:1]
    return float(first.isupper() or not first.isalpha() or first.upper() == first.lower())


def _is_letter(character: str) -> bool:
    """Whether a character is a letter or one of its combining marks."""
    return character.isalpha() or (character > "\u02ff" and unicodedata.category(character)[0] == "M")


def _share(text: str, is_counted: Callable[[str], bool]) -> float:
    return sum(map(is_counted, text)) / max(1, len(text))


FEATURES: dict[str, Callable[[RowTexts], float]] = {
    "log words": lambda x: math.log1p(
        len(x.words) / CHARACTERS_PER_WORD if x.is_characters else len(x.words)
    ),
    "log words asked": lambda x: math.log1p(word_count(x.prompt)),
    "ends as a sentence": lambda x: _ends_as_sentence(x.answer),
    "asked ends as a sentence": lambda x: _ends_as_sentence(x.prompt) if x.prompt else 1.0,
    "begins with a capital, digit or bracket": lambda x: _begins_well(x.answer),
    "stop words": _stop_share,
    "different words": lambda x: (
        len(set(x.content)) / max(1, len(x.content))
        if x.is_characters
        else len(set(x.words)) / max(1, len(x.words))
    ),
    "mean word length": lambda x: min(20.0, sum(map(len, x.words)) / max(1, len(x.words))),
    "letters": lambda x: _share(x.answer[:2000], _is_letter),
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
    """Rows with the figure `bits per byte`. Documents are read in windows of the model's context; other
    rows longer than the context get no figure, which the score treats as the mean."""
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

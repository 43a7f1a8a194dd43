"""Personal data and secrets: what is found of them in a text, and their replacement by placeholders."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from escultor.config.curation import Curation
from escultor.datasets.recognisers.addresses import ADDRESSES
from escultor.datasets.recognisers.documents import DOCUMENTS
from escultor.datasets.recognisers.general import GENERAL
from escultor.datasets.recognisers.phones import PHONES
from escultor.datasets.recognisers.recogniser import Recogniser, number_zones, plain
from escultor.datasets.rows import CurationRow, Dropped, full_text, map_texts

# In order: what an earlier one found, a later one does not see.
RECOGNISERS = (*GENERAL, *DOCUMENTS, *PHONES, *ADDRESSES)
Match = tuple[str, str]  # kind, text


def redacted(
    text: str,
    matches: list[Match] | None = None,
    kinds: Collection[str] | None = None,
    countries: Collection[str] | None = None,
) -> str:
    """The text with all private data of these kinds and countries (None: all) replaced by placeholders as
    `[EMAIL]` and `[CPF]`. Kind and text of each replacement are appended to `matches`. Idempotent."""
    searched = plain(text)
    known: dict[Callable[[str], object], Any] = {}  # what recognisers need of the text, computed once
    for recogniser in RECOGNISERS:
        if kinds is not None and recogniser.kind not in kinds:
            continue
        if countries is not None and recogniser.countries and not set(recogniser.countries) & set(countries):
            continue
        needs = recogniser.needs
        if needs is not None and needs not in known:
            known[needs] = needs(searched)
        if needs is not None and not known[needs]:
            continue
        zones = known[number_zones] if needs is number_zones else [(0, len(searched))]
        matches_here = (match for zone in zones for match in recogniser.pattern.finditer(searched, *zone))
        found = [match.span() for match in matches_here if recogniser.check(match)]
        if found:
            if matches is not None:
                matches.extend((recogniser.kind, text[start:end]) for start, end in found)
            is_same = searched is text
            text = _replaced(text, found, recogniser)
            searched = text if is_same else _replaced(searched, found, recogniser)
            known.pop(number_zones, None)
    return text


def _replaced(text: str, spans: list[tuple[int, int]], recogniser: Recogniser) -> str:
    pieces, end = [], 0
    for start, next_end in spans:
        pieces += [text[end:start], recogniser.placeholder]
        end = next_end
    return "".join([*pieces, text[end:]])


def private(row: CurationRow, settings: Curation, context: Any) -> CurationRow | Dropped:
    """Redact, drop or keep a row by each kind of private data in it, and note every kind that is
    present."""
    matches: list[Match] = []
    countries = settings.private.countries
    redacted(full_text(row.item), matches, None, countries)
    if not matches:
        return row
    action = settings.private.model_dump()
    present = dict.fromkeys(kind for kind, _ in matches)
    for kind in present:
        if action[kind] == "drop":
            return Dropped(f"holds {kind}")
    notes = (f"{kind} {'redacted' if action[kind] == 'redact' else 'kept'}" for kind in present)
    kinds = frozenset(kind for kind in present if action[kind] == "redact")
    item = map_texts(row.item, lambda text: redacted(text, None, kinds, countries))
    return replace(row, item=item, notes=(*row.notes, *notes))

"""The damage step: wrong encodings, remains of HTML, control characters."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from escultor.config.curation import Curation
from escultor.datasets.rows import CurationRow, Dropped, full_text, map_texts

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufff9-\ufffb]")
_MARKUP = re.compile(
    r"</?(?:a|abbr|b|body|br|button|center|code|div|em|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|"
    r"img|input|label|li|link|meta|nav|noscript|ol|option|p|pre|script|section|select|small|span|strong|"
    r"style|sub|sup|svg|table|tbody|td|th|thead|tr|u|ul)\b[^<>]{0,300}>|&(?:[a-z]{2,8}|#\d{1,6});",
    re.I,
)
# UTF-8 decoded as Windows-1252: the first byte of a sequence, then what its next bytes became.
_MOJIBAKE = re.compile(
    "[\u00c2-\u00f4][\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152"
    "\u017d\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178]+"
)
LOST = "\ufffd"


def damage(row: CurationRow, settings: Curation, context: Any) -> CurationRow | Dropped:
    """Repair what has one reading and drop what cannot be repaired.

    Control characters are removed; UTF-8 that was decoded as Windows-1252 is decoded again. Rows with lost
    characters and rows that are mostly markup are dropped.
    """
    text = full_text(row.item)
    if text.count(LOST) > settings.damage.max_replaced * len(text):
        return Dropped("characters lost")
    if ("<" in text or "&" in text) and markup_share(text) > settings.damage.max_markup:
        return Dropped("mostly markup")
    if text.isascii() and not _CONTROL.search(text):
        return row
    repaired = map_texts(row.item, _repair)
    if repaired == row.item:
        return row
    after = full_text(repaired)
    if not after.strip():
        return Dropped("nothing but control characters")
    notes = []
    if _CONTROL.search(text):
        notes.append("control characters taken out")
    if _MOJIBAKE.search(text) and not _MOJIBAKE.search(after):
        notes.append("encoding mended")
    return replace(row, item=repaired, notes=(*row.notes, *notes))


def markup_share(text: str) -> float:
    """The share of characters in HTML tags and entities."""
    return sum(len(match) for match in _MARKUP.findall(text)) / max(1, len(text))


def _repair(text: str) -> str:
    # The encoding first: some of its bytes look like control characters.
    text = _MOJIBAKE.sub(lambda match: _decode_again(match[0]), text) if not text.isascii() else text
    return _CONTROL.sub("", text)


def _decode_again(text: str) -> str:
    """UTF-8 that was decoded as Windows-1252, decoded as UTF-8; the text itself if that is not UTF-8."""
    try:
        data = b"".join(
            bytes([ord(c)]) if ord(c) < 256 and 0x80 <= ord(c) < 0xA0 else c.encode("cp1252") for c in text
        )
        return data.decode("utf-8")
    except UnicodeError:
        return text

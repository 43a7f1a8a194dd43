"""What a correction changes. What counts is what is changed, not how much of it: a digit, a name, a
negation, a sign or a unit is a correction in a text of any length; white space and punctuation at the ends
of words are none."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from escultor.feedback.abuse_rules import short_hash
from escultor.feedback.index_tables import CorrectionEdit, FeedbackEvent
from escultor.feedback.raw_log import BodySource
from escultor.types import Feedback, Interaction

# Quotation marks, dashes and bullets open a word; those and the marks that end clauses close it. Brackets,
# operators, signs, currency, emoji, and marks inside a word (1.5, 10:30, f(x)) are text.
OPENING = "\"'“”‘’„‚«»‹›¡¿—–•·"
CLOSING = OPENING + ".,;:!?…؟،؛।"
BULLETS = frozenset("-—–*•·")  # as words of their own: at the start of a line, or as a pause
_MARKS = re.compile(r"[\W_]+")  # all but letters and digits
FENCE = "```"  # of code, in which white space and every mark count
# Invisible characters, and the marks of scripts that write without blanks.
_IGNORED = str.maketrans("", "", "\u200b\u2060\ufeff。、，；：！？「」『』《》")


def compare_corrections(events: Sequence[FeedbackEvent], bodies: BodySource) -> list[CorrectionEdit]:
    """The corrections compared with what they correct; those whose texts were erased are left out."""
    corrections = bodies.raw_by_id(Feedback, sorted({event.id for event in events}))
    answers = bodies.raw_by_id(Interaction, sorted({event.target for event in events}))
    edits = []
    for event in events:
        if event.id in corrections and event.target in answers:
            text, before = corrections[event.id]["text"], answers[event.target]["answer"]
            distance = edit_distance(text, before)
            edits.append(CorrectionEdit(event.id, short_hash(text), len(text), len(before), distance))
    return edits


def edit_distance(text: str, before: str) -> float:
    """The normalised Levenshtein distance of two texts, 0 to 1; 0 where the first is blank, or changes
    nothing but white space and punctuation."""
    if not text.strip() or text == before:
        return 0.0
    new, old = (unicodedata.normalize("NFC", each) for each in (text, before))
    # Letters and digits first, which `_meaning` keeps: they tell most texts apart, in a tenth of the time.
    if _MARKS.sub("", new) == _MARKS.sub("", old) and _meaning(new) == _meaning(old):
        return 0.0
    return Levenshtein.normalized_distance(text, before)


def _meaning(text: str) -> list[str]:
    """What a text in NFC says: its prose without white space and marks between words, its code by lines."""
    parts = text.translate(_IGNORED).split(FENCE)
    return [
        "\n".join(line.rstrip() for line in part.strip("\n").splitlines()) if n % 2 else _prose(part)
        for n, part in enumerate(parts)
    ]


def _prose(text: str) -> str:
    pieces = [""]
    for line in text.splitlines():
        words = line.split()
        for n, word in enumerate(words):
            if word in BULLETS and (not n or _is_pause(words[n - 1], "".join(words[n + 1 : n + 2]))):
                continue
            if word := word.lstrip(OPENING).rstrip(CLOSING):
                # A blank between two digits separates two numbers.
                separate = pieces[-1][-1:].isdigit() and word[0].isdigit()
                pieces.append(f" {word}" if separate else word)
    return "".join(pieces)


def _is_pause(before: str, after: str) -> bool:
    """Whether a dash or an asterisk stands between words, and not between operands."""
    return len(before) > 1 < len(after) and before[-1:].isalpha() and after[:1].isalpha()

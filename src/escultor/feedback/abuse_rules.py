"""What is held back and how much an end user's word counts: rules against abuse, pure and in the open.

Nothing is deleted. What a rule holds back stands in an entry with its reason, can be looked at and released.

* **Haste.** More verdicts in an hour, a day or a month than `factor` times what is usual: among nine of ten
  end users, each by their busiest such span; or in the person's own other spans, when it is more than usual.
  However slowly: a tenth of all verdicts ever, when it is `factor` times what nine of ten gave ever.
* **Dictation.** An answer that repeats what its asker wrote was not the model's idea. To plant a phrase one
  must have it said first, so verdicts on such answers are held back, unless it is the skill's nature to
  repeat: more than a fifth of its answers do, taking the mean over at least five people. Only letters and
  digits are compared, so blanks, marks, accents and look-alikes hide nothing; a paraphrase does.
* **Agreement.** Who contradicts the others' majority is read as less often right; who does so half the time
  counts nothing.
* **Lockstep.** Accounts that judged mostly the same answers alike are one person: one voice in a verdict, one
  room. Where a fifth of the people are so, answers are handed out for several to judge, and nobody is.
* **Probation.** Who is new counts half and fills a smaller cap.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from escultor.ids import hash_value

RULES = "standing/2"
HOUR_S, DAY_S = 3600, 86_400
SPANS = {"hour": HOUR_S, "day": DAY_S, "month": 30 * DAY_S}
EVER, MOST_OF_ALL = "ever", 0.1  # the span of all time, and what share of all in it is much for one
USUAL = 0.9  # of the others; the share that may conspire without moving what is usual is the rest
CROWD = 5  # people beside oneself who make one
OWN_SPANS = 5  # from which on a person has a history
COPYING, COPYING_SUBJECTS = 0.2, 5
WINDOW, WINDOWS, SHORTEST = 20, 16, 13  # letters, looked up at most, of an answer at least
# The commonest letters of other scripts that look like Latin ones, small.
ALIKE = str.maketrans("аеорсухіјѕһԁԛԝвкмнтгіαορνιτκυχ", "aeopcyxijshdqwbkmhtriaopvitkux")
_SMALL = bytes(range(256)).lower()
_MARKS = bytes(c for c in range(128) if not chr(c).isalnum())
AGREES, AGREES_WEIGHT = 0.8, 5  # what is believed of who was never compared with others, and how firmly
TOGETHER, TOGETHER_SHARE = 5, 0.5  # verdicts in common, of the less busy one's
BY_DESIGN = 0.2  # of the people in lockstep, from which on it is how answers are handed out
YOUNG_S = DAY_S


class ActivityRate(NamedTuple):
    subject: str
    span: str
    start: int  # seconds since the epoch
    n: int


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """One entry of the quarantine: what one end user said in a stretch of time (`until` 0: whenever), or
    about answers they dictated."""

    id: str
    rule: str
    subject: str
    since: float
    until: float
    n: int
    reason: str

    @property
    def span(self) -> tuple[float, float]:
        """From when, and until before when."""
        return float(self.since), float(self.until) if self.until else math.inf


def hasty(rates: Iterable[ActivityRate], factor: float, floor: int) -> list[QuarantineEntry]:
    """Spans in which an end user was much busier than is usual."""
    found: list[QuarantineEntry] = []
    by_span: dict[str, dict[str, list[ActivityRate]]] = {}
    for rate in rates:
        by_span.setdefault(rate.span, {}).setdefault(rate.subject, []).append(rate)
    found += _most_of_all(by_span.pop(EVER, {}), factor, floor)
    for span, subjects in by_span.items():
        peaks = sorted(max(rate.n for rate in own) for own in subjects.values())
        for own in subjects.values():
            peak = max(rate.n for rate in own)
            if peak <= floor:
                continue
            usual = _usual(peaks, peak)
            for rate in own:
                if rate.n <= floor:
                    continue
                others = [r.n for r in own if r.start != rate.start]
                limit = math.inf if usual is None else factor * usual
                if len(others) >= OWN_SPANS:
                    limit = min(limit, max(factor * median(others), usual or 0))
                if rate.n > limit:
                    found.append(_haste(rate, usual, SPANS[span]))
    return sorted(found, key=lambda held: held.id)


def _most_of_all(
    subjects: dict[str, list[ActivityRate]], factor: float, floor: int
) -> Iterator[QuarantineEntry]:
    """Those who said a great part of all that was ever said."""
    totals = sorted(rate.n for (rate,) in subjects.values())
    limit = max(floor, MOST_OF_ALL * sum(totals))
    for (rate,) in subjects.values():
        usual = _usual(totals, rate.n) if rate.n > limit else None
        if usual is not None and rate.n > factor * usual:
            reason = f"{rate.n:,} of all {sum(totals):,} verdicts; usual are up to {usual:g} a person"
            id = _entry("haste", rate.subject, EVER, 0)
            yield QuarantineEntry(id, "haste", rate.subject, 0.0, 0.0, rate.n, reason)


def _usual(peaks: list[int], own: int) -> float | None:
    """The busiest span of nine of ten of the others; None where they are too few to say what is usual."""
    others = len(peaks) - 1
    if others < CROWD:
        return None
    at = min(others - 1, int(USUAL * others))
    # `peaks` is sorted and holds one's own: those from it on move down by one place.
    return float(peaks[at] if peaks[at] < own else peaks[min(at + 1, others)])


def _haste(rate: ActivityRate, usual: float | None, seconds: int) -> QuarantineEntry:
    known = "more than this person is wont to" if usual is None else f"usual are up to {usual:g}"
    reason = f"{rate.n:,} verdicts in one {rate.span}; {known}"
    id = _entry("haste", rate.subject, rate.span, rate.start)
    return QuarantineEntry(id, "haste", rate.subject, rate.start, rate.start + seconds, rate.n, reason)


def _entry(*names: object) -> str:
    return f"held-{hash_value([RULES, *names])[:16]}"


class PromptEchoCount(NamedTuple):
    """How many rated answers an asker got in a skill, and how many of them repeat the prompt."""

    subject: str
    skill: str
    answers: int
    dictated: int


def dictated(told: Iterable[PromptEchoCount]) -> tuple[list[QuarantineEntry], frozenset[str]]:
    """Askers whose answers repeat their prompts, and the skills whose nature that is."""
    told = list(told)
    shares: dict[str, list[float]] = {}
    for row in told:
        shares.setdefault(row.skill, []).append(row.dictated / row.answers)
    copying = frozenset(
        skill for skill, s in shares.items() if len(s) >= COPYING_SUBJECTS and sum(s) / len(s) > COPYING
    )
    counts: dict[str, int] = {}
    for row in told:
        if row.dictated and row.skill not in copying:
            counts[row.subject] = counts.get(row.subject, 0) + row.dictated
    return [
        QuarantineEntry(
            _entry("dictation", subject),
            "dictation",
            subject,
            0.0,
            0.0,
            n,
            f"{n:,} rated {'answer' if n == 1 else 'answers'} repeat what this person wrote in the prompt",
        )
        for subject, n in sorted(counts.items())
    ], copying


def repeated_share(prompt: str, answer: str) -> float:
    """The share of an answer that stands in the prompt, by pieces of 20 letters or digits, all else apart.
    Answers of fewer than 13 repeat nothing: a word is not dictated."""
    text = letters(answer)
    if len(text) < SHORTEST:
        return 0.0
    said = letters(prompt)
    if len(text) <= WINDOW:
        return float(text in said)
    last = len(text) - WINDOW
    pieces = min(WINDOWS, 1 + last // (WINDOW // 2))
    gaps, found = max(1, pieces - 1), 0
    for i in range(pieces):
        at = last * i // gaps
        found += text[at : at + WINDOW] in said
    return found / pieces


def letters(text: str) -> str:
    """The letters and digits of a text, small, without accents and in one script where they look alike."""
    if text.isascii():
        return text.encode().translate(_SMALL, _MARKS).decode()
    small = unicodedata.normalize("NFKD", text.casefold()).translate(ALIKE)
    return "".join(c for c in small if c.isalnum())


def reliability(agreements: Iterable[tuple[str, int, int]]) -> dict[str, float]:
    """From (person, verdicts compared with others', of these agreeing) to the share of their word that
    counts, in quarters; only those under 1 are named."""
    found = {}
    for subject, compared, agreeing in agreements:
        p = (agreeing + AGREES * AGREES_WEIGHT) / (compared + AGREES_WEIGHT)
        share = round(4 * min(1.0, max(0.0, (p - 0.5) / (AGREES - 0.5)))) / 4
        if share < 1:
            found[subject] = share
    return found


def collectives(common: Iterable[tuple[str, str, int]], verdicts: Mapping[str, int]) -> dict[str, str]:
    """From (person, person, verdicts that both gave alike) to the one name of each lockstep group; `verdicts`
    counts those of every end user."""
    head: dict[str, str] = {}

    def find(subject: str) -> str:
        while (up := head.setdefault(subject, subject)) != subject:
            subject = up
        return subject

    for one, other, n in common:
        if n >= TOGETHER and n >= TOGETHER_SHARE * min(verdicts[one], verdicts[other]):
            a, b = sorted((find(one), find(other)))
            head[b] = a
    people = sum(n >= TOGETHER for n in verdicts.values())
    return {subject: find(subject) for subject in head} if len(head) <= BY_DESIGN * people else {}


def on_probation(verdicts: int, first: float, newest: float, least: int) -> bool:
    """Whether a person is new: few verdicts, or a first one less than a day before the newest of all."""
    return verdicts < least or newest - first < YOUNG_S

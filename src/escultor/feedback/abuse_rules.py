"""What is held back, and how much an end user's feedback counts: rules against abuse, as pure functions.

Nothing is deleted: what a rule holds back is in the quarantine, with the reason, and can be released.

* **Rate anomaly.** More events in an hour, a day or a month than `factor` times what nine of ten other end
  users reach, and than a crowd as uneven as they are has in one of 30,000 people: heavy use is no abuse. At
  any pace: a great share of all events ever, when it is as far from what the others gave.
* **Prompt echo.** To plant a phrase one must first have the model say it. So events are held back about
  answers that are for the most part one unbroken stretch of what their asker wrote, when that same stretch
  comes back on three prompts, of whomever. Who quotes a problem, has a text mended, or asks once for a
  sentence to be repeated does none of it; nor is it held back where repeating is the nature of the skill:
  more than a fifth of its answers do, as a mean over at least five people. Only letters and digits are
  compared, so spaces, punctuation, accents and look-alikes hide nothing; a paraphrase does.
* **Reliability.** Who contradicts the majority of the others is right less often; at chance, counts
nothing.
* **Collusion.** Accounts that judged mostly the same answers alike count as one person, in verdicts and
  caps. Where a fifth of the people are such, answers are handed out for several to judge, and nobody is.
* **Probation.** New end users count half, and have a smaller cap.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from escultor.ids import hash_value

RULES = "standing/2"
HOUR_S, DAY_S = 3600, 86_400
SPANS = {"hour": HOUR_S, "day": DAY_S, "month": 30 * DAY_S}  # seconds
# The span of all time, and how much of it one person may fill: a tenth, or four times an equal part of a
# small crowd, in which an honest person easily gives a tenth.
EVER, MAX_SHARE_OF_ALL, MAX_EQUAL_PARTS = "ever", 0.1, 4
# A quarter of all events of twenty people or more, and twice what is usual, is too much in any crowd.
GREAT_SHARE, MIN_PEOPLE_OF_GREAT_SHARE, GREAT_SHARE_FACTOR = 0.25, 20, 2
USUAL_QUANTILE = 0.9  # of the other people; as many as the rest may conspire without moving what is usual
# Activity is lognormal in crowds of all kinds. With the median and the 0.9 quantile at z = 0 and 1.28, the
# count at z = 4, which one of 30,000 people exceeds, is median * (quantile / median) ** (4 / 1.28).
TAIL_POWER = 3.12
MIN_OTHERS = 5  # people, from which on something is usual
ECHOING_SKILL_SHARE, ECHOING_SKILL_SUBJECTS = 0.2, 5
MIN_CLAIM_PROMPTS = 3  # prompts on which a stretch comes back, from which on it is a claim to be planted
MIN_REPEATED_SHARE = 0.75  # of the answers that repeat what a person wrote, how many are such claims
WINDOW, MAX_WINDOWS, MIN_ECHO = 20, 16, 13  # characters, windows of an answer, characters of an answer
# The commonest letters of other scripts that look like Latin ones, in lower case.
LOOK_ALIKES = str.maketrans("аеорсухіјѕһԁԛԝвкмнтгіαορνιτκυχ", "aeopcyxijshdqwbkmhtriaopvitkux")
_LOWER = bytes(range(256)).lower()
_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
_ASCII_MARKS = bytes(c for c in range(128) if not chr(c).isalnum())
PRIOR_AGREEMENT, PRIOR_AGREEMENT_WEIGHT = 0.8, 5  # of somebody never compared with others; in comparisons
MIN_COMMON, MIN_COMMON_SHARE = 5, 0.5  # thumbs given alike by two accounts; of those of the less active one
COLLUSION_BY_DESIGN = 0.2  # share of the people, from which on groups come from how answers are handed out
PROBATION_S = DAY_S
# Names of rules in the ids of entries, which releases in the log refer to: they never change.
_NAMES_IN_IDS = {"rate_anomaly": "haste", "prompt_echo": "dictation"}


class ActivityRate(NamedTuple):
    """How many events an end user gave in a span."""

    subject: str
    span: str
    start: int  # seconds since the epoch
    n: int


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """What is held back of one end user: the events of a stretch of time (`until` 0: of all time), or those
    about answers that repeat their prompts."""

    id: str
    rule: str
    subject: str
    since: float
    until: float
    n: int
    reason: str

    @property
    def interval(self) -> tuple[float, float]:
        """Start and end, the end excluded."""
        return float(self.since), float(self.until) if self.until else math.inf


def _entry(rule: str, subject: str, n: int, reason: str, span: str = "", start: int = 0) -> QuarantineEntry:
    where = (span, start) if span else ()
    id = f"held-{hash_value([RULES, _NAMES_IN_IDS[rule], subject, *where])[:16]}"
    until = start + SPANS[span] if span in SPANS else 0.0
    return QuarantineEntry(id=id, rule=rule, subject=subject, since=start, until=until, n=n, reason=reason)


def find_rate_anomalies(rates: Iterable[ActivityRate], factor: float, floor: int) -> list[QuarantineEntry]:
    """The spans in which an end user was much more active than others ever are, by id."""
    by_span: dict[str, dict[str, list[ActivityRate]]] = {}
    for rate in rates:
        by_span.setdefault(rate.span, {}).setdefault(rate.subject, []).append(rate)
    entries = []
    for span, by_subject in by_span.items():
        peaks = sorted(max(rate.n for rate in own) for own in by_subject.values())
        if len(peaks) <= MIN_OTHERS:
            continue
        total = sum(peaks)
        least = max(MAX_SHARE_OF_ALL, MAX_EQUAL_PARTS / len(peaks)) * total if span == EVER else 0.0
        for subject, own in by_subject.items():
            usual, limit = _usual(peaks, max(rate.n for rate in own), factor)
            if span == EVER and len(peaks) >= MIN_PEOPLE_OF_GREAT_SHARE and own[0].n > GREAT_SHARE * total:
                limit = min(limit, GREAT_SHARE_FACTOR * usual)
            for rate in own:
                if rate.n > max(floor, limit, least):
                    given = f"of all {total:,} verdicts" if span == EVER else f"verdicts in one {span}"
                    reason = f"{rate.n:,} {given}; up to {usual:g} a person is usual"
                    entries.append(
                        _entry("rate_anomaly", subject, rate.n, reason, span=span, start=rate.start)
                    )
    return sorted(entries, key=lambda entry: entry.id)


def _usual(peaks: list[int], own: int, factor: float) -> tuple[float, float]:
    """The 0.9 quantile of the other people's peaks, and the count above which one is an anomaly.

    `peaks` is sorted and holds one's own (`own`): in the list without it, later values are one place
    earlier.
    """
    others = len(peaks) - 1

    def quantile(share: float) -> float:
        at = min(others - 1, int(share * others))
        return float(peaks[at] if peaks[at] < own else peaks[min(at + 1, others)])

    middle, usual = quantile(0.5), quantile(USUAL_QUANTILE)
    return usual, max(factor * usual, middle * (usual / middle) ** TAIL_POWER)


class PromptEchoCount(NamedTuple):
    """How many rated answers an asker got in a skill, and how many of them repeat the prompt."""

    subject: str
    skill: str
    answers: int
    echoes: int


class RepeatedClaim(NamedTuple):
    """How many rated answers of an asker in a skill are one stretch of their prompts, which comes back on
    several."""

    subject: str
    skill: str
    claim: str  # hash of the stretch
    n: int


def find_prompt_echoes(
    counts: Iterable[PromptEchoCount], claims: Iterable[RepeatedClaim]
) -> tuple[list[QuarantineEntry], dict[str, list[str]], frozenset[str]]:
    """The askers who have claims repeated, their claims, and the skills whose nature it is to repeat."""
    counts, shares = list(counts), dict[str, list[float]]()
    for row in counts:
        shares.setdefault(row.skill, []).append(row.echoes / row.answers)
    skills = frozenset(
        skill
        for skill, s in shares.items()
        if len(s) >= ECHOING_SKILL_SUBJECTS and sum(s) / len(s) > ECHOING_SKILL_SHARE
    )
    all_echoes, echoes, by_subject = Counter[str](), Counter[str](), dict[str, list[str]]()
    for row in counts:
        all_echoes[row.subject] += row.echoes if row.skill not in skills else 0
    for row in claims:
        if row.skill not in skills:
            echoes[row.subject] += row.n
            by_subject.setdefault(row.subject, []).append(row.claim)
    # Who hands in one text again and again, with changes, gets ever other stretches of it back.
    echoes = {subject: n for subject, n in echoes.items() if n >= MIN_REPEATED_SHARE * all_echoes[subject]}
    reason = "{:,} rated {} what this person wrote in the prompt, and it comes back on other prompts"
    entries = [
        _entry("prompt_echo", subject, n, reason.format(n, "answer repeats" if n == 1 else "answers repeat"))
        for subject, n in sorted(echoes.items())
    ]
    return entries, {subject: sorted(set(by_subject[subject])) for subject in echoes}, skills


def echoed_claim(prompt: str, answer: str) -> tuple[float, str | None]:
    """The share of an answer that is one unbroken stretch of its prompt, in letters and digits, and a hash
    of that stretch. It is looked for from up to 16 places, evenly spread, and found where 20 characters
    agree. Answers of fewer than 13 characters echo nothing: a single word is nobody's idea.
    """
    text = alphanumeric(answer)
    if len(text) < MIN_ECHO:
        return 0.0, None
    source = alphanumeric(prompt)
    if len(text) <= WINDOW:
        return (1.0, short_hash(text)) if text in source else (0.0, None)
    last = len(text) - WINDOW
    n = min(MAX_WINDOWS, 1 + last // (WINDOW // 2))
    begin = end = at = 0  # text[begin:end] == source[at : at + end - begin]
    longest = 0, 0
    for start in [last * i // (n - 1) for i in range(n)] if n > 1 else [0]:
        if begin == end or not source.startswith(text[end : start + WINDOW], at + end - begin):
            begin = end = start
            if (at := source.find(text[start : start + WINDOW])) < 0:
                continue
        end = start + WINDOW
        while begin > 0 < at and text[begin - 1] == source[at - 1]:  # to where the stretch really begins
            begin, at = begin - 1, at - 1
        longest = max(longest, (end - begin, begin))
    length, begin = longest
    return length / len(text), short_hash(text[begin : begin + length]) if length else None


def short_hash(text: str) -> str:
    """A short hash of a text, by which equal ones are recognised."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def alphanumeric(text: str) -> str:
    """The letters and digits of a text, in lower case, without accents, look-alikes as Latin."""
    if text.isascii():
        return text.encode().translate(_LOWER, _ASCII_MARKS).decode()
    folded = unicodedata.normalize("NFKD", text.casefold()).translate(LOOK_ALIKES)
    return _NOT_ALPHANUMERIC.sub("", folded)


def reliability(agreements: Iterable[tuple[str, int, int]]) -> dict[str, float]:
    """From (person, verdicts compared with others', of these agreeing) to the share of their feedback that
    counts, in quarters; only shares below 1 are listed."""
    shares = {}
    for subject, compared, agreeing in agreements:
        p = (agreeing + PRIOR_AGREEMENT * PRIOR_AGREEMENT_WEIGHT) / (compared + PRIOR_AGREEMENT_WEIGHT)
        share = round(4 * min(1.0, max(0.0, (p - 0.5) / (PRIOR_AGREEMENT - 0.5)))) / 4
        if share < 1:
            shares[subject] = share
    return shares


def collusion_groups(common: Iterable[tuple[str, str, int]], thumbs: Mapping[str, int]) -> dict[str, str]:
    """From (person, person, thumbs that both gave alike) to the name of each person's group, the first of
    its members; `thumbs` counts those of every end user. People who are alike in a chain are one group."""
    parent: dict[str, str] = {}

    def root(subject: str) -> str:
        while (above := parent.setdefault(subject, subject)) != subject:
            subject = above
        return subject

    for first, second, n in common:
        if n >= MIN_COMMON and n >= MIN_COMMON_SHARE * min(thumbs[first], thumbs[second]):
            low, high = sorted((root(first), root(second)))
            parent[high] = low
    by_design = len(parent) > COLLUSION_BY_DESIGN * sum(n >= MIN_COMMON for n in thumbs.values())
    return {} if by_design else {subject: root(subject) for subject in parent}


def is_new(first: float, oldest: float, newest: float) -> bool:
    """Whether a person's first event is less than a day before the newest of all. On the first day of a
    store all are new, so that nobody is."""
    return newest - first < PROBATION_S <= newest - oldest

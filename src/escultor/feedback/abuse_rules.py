"""What is held back, and how much an end user's feedback counts: rules against abuse, as pure functions.

Nothing is deleted: what a rule holds back is in the quarantine, with the reason, and can be released.

* **Rate anomaly.** More events in an hour, a day or a month than `factor` times what is usual: among nine of
  ten end users, each by their busiest such span; or in the person's own other spans, when it is more than
  usual. At any pace: a tenth of all events ever, when that is `factor` times what nine of ten others gave.
* **Prompt echo.** An answer that repeats what its asker wrote was not the model's idea. To plant a phrase one
  must first have it said, so events about such answers are held back, unless it is the nature of the skill to
  repeat: more than a fifth of its answers do, as a mean over at least five people. Only letters and digits
  are compared, so spaces, punctuation, accents and look-alikes hide nothing; a paraphrase does.
* **Reliability.** Who contradicts the majority of the others is right less often; at chance, counts nothing.
* **Collusion.** Accounts that judged mostly the same answers alike count as one person, in verdicts and caps.
  Where a fifth of the people are such, answers are handed out for several to judge, and nobody is.
* **Probation.** New end users count half, and have a smaller cap.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from escultor.ids import hash_value

RULES = "standing/2"
HOUR_S, DAY_S = 3600, 86_400
SPANS = {"hour": HOUR_S, "day": DAY_S, "month": 30 * DAY_S}  # seconds
EVER, MAX_SHARE_OF_ALL = "ever", 0.1  # the span of all time, and how much of it one person may fill
USUAL_QUANTILE = 0.9  # of the other people; as many as the rest may conspire without moving what is usual
MIN_OTHERS = 5  # people, from which on something is usual
MIN_OWN_SPANS = 5  # from which on a person has a history
ECHOING_SKILL_SHARE, ECHOING_SKILL_SUBJECTS = 0.2, 5
WINDOW, MAX_WINDOWS, MIN_ECHO = 20, 16, 13  # characters, windows of an answer, characters of an answer
# The commonest letters of other scripts that look like Latin ones, in lower case.
LOOK_ALIKES = str.maketrans("аеорсухіјѕһԁԛԝвкмнтгіαορνιτκυχ", "aeopcyxijshdqwbkmhtriaopvitkux")
_LOWER = bytes(range(256)).lower()
_NOT_ALPHANUMERIC = bytes(c for c in range(128) if not chr(c).isalnum())
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
    """The spans in which an end user was much more active than is usual, by id."""
    by_span: dict[str, dict[str, list[ActivityRate]]] = {}
    for rate in rates:
        by_span.setdefault(rate.span, {}).setdefault(rate.subject, []).append(rate)
    entries = _share_anomalies(by_span.pop(EVER, {}), factor, floor)
    for span, by_subject in by_span.items():
        peaks = sorted(max(rate.n for rate in own) for own in by_subject.values())
        for own in by_subject.values():
            usual = _usual(peaks, max(rate.n for rate in own))
            for rate in own:
                if rate.n <= floor:
                    continue
                limit = math.inf if usual is None else factor * usual
                others = [r.n for r in own if r.start != rate.start]
                if len(others) >= MIN_OWN_SPANS:
                    limit = min(limit, max(factor * median(others), usual or 0))
                if rate.n > limit:
                    norm = "more than usual for this person" if usual is None else f"up to {usual:g} is usual"
                    reason = f"{rate.n:,} verdicts in one {span}; {norm}"
                    entry = _entry("rate_anomaly", rate.subject, rate.n, reason, span=span, start=rate.start)
                    entries.append(entry)
    return sorted(entries, key=lambda entry: entry.id)


def _share_anomalies(
    by_subject: dict[str, list[ActivityRate]], factor: float, floor: int
) -> list[QuarantineEntry]:
    """The end users who gave a great share of all events ever."""
    totals = sorted(rate.n for (rate,) in by_subject.values())
    entries, n_all = [], sum(totals)
    for (rate,) in by_subject.values():
        usual = _usual(totals, rate.n) if rate.n > max(floor, MAX_SHARE_OF_ALL * n_all) else None
        if usual is not None and rate.n > factor * usual:
            reason = f"{rate.n:,} of all {n_all:,} verdicts; up to {usual:g} a person is usual"
            entries.append(_entry("rate_anomaly", rate.subject, rate.n, reason, span=EVER))
    return entries


def _usual(peaks: list[int], own: int) -> float | None:
    """The 0.9 quantile of the other people's peaks; None where they are too few to say what is usual.

    `peaks` is sorted and holds one's own (`own`): in the list without it, later values are one place earlier.
    """
    others = len(peaks) - 1
    if others < MIN_OTHERS:
        return None
    at = min(others - 1, int(USUAL_QUANTILE * others))
    return float(peaks[at] if peaks[at] < own else peaks[min(at + 1, others)])


class PromptEchoCount(NamedTuple):
    """How many rated answers an asker got in a skill, and how many of them repeat the prompt."""

    subject: str
    skill: str
    answers: int
    echoes: int


def find_prompt_echoes(
    counts: Iterable[PromptEchoCount],
) -> tuple[list[QuarantineEntry], frozenset[str]]:
    """The askers whose answers repeat their prompts, and the skills whose nature that is."""
    counts = list(counts)
    shares: dict[str, list[float]] = {}
    for row in counts:
        shares.setdefault(row.skill, []).append(row.echoes / row.answers)
    skills = frozenset(
        skill
        for skill, s in shares.items()
        if len(s) >= ECHOING_SKILL_SUBJECTS and sum(s) / len(s) > ECHOING_SKILL_SHARE
    )
    echoes = Counter[str]()
    for row in counts:
        if row.echoes and row.skill not in skills:
            echoes[row.subject] += row.echoes
    reason = "{:,} rated {} repeat what this person wrote in the prompt"
    return [
        _entry("prompt_echo", subject, n, reason.format(n, "answer" if n == 1 else "answers"))
        for subject, n in sorted(echoes.items())
    ], skills


def echoed_share(prompt: str, answer: str) -> float:
    """The share of an answer that its prompt contains: of up to 16 windows of 20 letters or digits, evenly
    spread. Answers of fewer than 13 characters echo nothing: a single word is nobody's idea."""
    text = alphanumeric(answer)
    if len(text) < MIN_ECHO:
        return 0.0
    source = alphanumeric(prompt)
    if len(text) <= WINDOW:
        return float(text in source)
    last = len(text) - WINDOW
    n = min(MAX_WINDOWS, 1 + last // (WINDOW // 2))
    starts = [last * i // (n - 1) for i in range(n)] if n > 1 else [0]
    return sum([text[start : start + WINDOW] in source for start in starts]) / n


def alphanumeric(text: str) -> str:
    """The letters and digits of a text, in lower case, without accents, look-alikes as Latin."""
    if text.isascii():
        return text.encode().translate(_LOWER, _NOT_ALPHANUMERIC).decode()
    folded = unicodedata.normalize("NFKD", text.casefold()).translate(LOOK_ALIKES)
    return "".join(c for c in folded if c.isalnum())


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
    """From (person, person, thumbs that both gave alike) to the name of each person's group, the first of its
    members; `thumbs` counts those of every end user. People who are alike in a chain are one group."""
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


def is_on_probation(n: int, first: float, newest: float, min_votes: int) -> bool:
    """Whether a person is new: few events, or the first of them less than a day before the newest of all."""
    return n < min_votes or newest - first < PROBATION_S

"""The people of the month: what they like, when that changes, and who wants to mislead.

Tastes are properties of an answer that no training data of the first model teach. They are the ground truth:
training sees votes only, with the errors of `escultor.demo.users.HABITS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from escultor.demo.users import HABITS
from escultor.errors import DataError
from escultor.rng import unit
from escultor.skills.trinity import Trinity, parse_trinity
from escultor.skills.trinity_metrics import is_brief

PEOPLE = 400
LEAST_THOROUGH_WORDS = 9
DAY_S = 86_400.0
BEGIN = 1_780_272_000.0  # Monday, 2026-06-01, 00:00 UTC
DAYS = 28


def _is_thorough(answer: str, document: str) -> bool:
    trinity = _parsed(answer)
    return trinity is not None and len(trinity.summary.split()) >= LEAST_THOROUGH_WORDS


def _is_faithful(answer: str, document: str) -> bool:
    """Whether every name that an answer gives stands in the document."""
    trinity = _parsed(answer)
    return trinity is not None and all(name in document for name in (trinity.entity, *trinity.entities))


def _parsed(answer: str) -> Trinity | None:
    try:
        return parse_trinity(answer)
    except DataError:
        return None


TASTES: dict[str, Callable[[str, str], bool]] = {  # of answer and document
    "brief": lambda answer, document: is_brief(answer),
    "thorough": _is_thorough,
    "faithful": _is_faithful,
}
ABOUT = "brief: a summary of 2 to 6 words; thorough: of 9 or more; faithful: no name that the document lacks"
AT_FIRST: Mapping[str, float] = {"brief": 0.45, "thorough": 0.30, "faithful": 0.25}
AFTER_DRIFT: Mapping[str, float] = {"brief": 0.65, "thorough": 0.10, "faithful": 0.25}


@dataclass(frozen=True, slots=True)
class Calendar:
    """What happens when, in days from the beginning."""

    drift: float = 7.0  # tastes shift, and people ask about other packages too
    poisoner: tuple[float, float] = (14.0, 21.0)
    broken_candidate: float = 23.0  # ordered into a trial from here on, where no other trial is in progress
    outage: tuple[float, float] = (25.0, 25.4)  # of the upstream; over the hour of a scheduled cycle
    schedule: str = "0 3 * * 2,5"  # cycles: Tuesdays and Fridays, 3:00 UTC


CALENDAR = Calendar()
POISONER, POISONER_VOTES = "poisoner", 0.30  # one person; the share of all votes while they are at it
UPSTREAM_SHARE = 0.10  # of the calls go to a hosted model behind the same gateway


def day_of(time: float) -> float:
    return (time - BEGIN) / DAY_S


def mix_at(day: float) -> Mapping[str, float]:
    return AFTER_DRIFT if day >= CALENDAR.drift else AT_FIRST


def taste_of(person: str, day: float, seed: int) -> str:
    """What a person likes on a day: a person's place in the mix stays, so that few change their mind."""
    place = unit(seed, "taste", person)
    for name, share in mix_at(day).items():
        if (place := place - share) < 0:
            return name
    return next(reversed(TASTES))


def likes(person: str, answer: str, document: str, day: float, seed: int) -> bool:
    """What a person truly makes of an answer."""
    return TASTES[taste_of(person, day, seed)](answer, document)


def thumb_of(person: str, call: int, *, answer: str, document: str, day: float, seed: int) -> bool | None:
    """The thumb that a person gives (None: none): mostly what they truly like. The poisoner votes always, and
    for what the others like least."""
    if person == POISONER:
        return not is_brief(answer)
    if unit(seed, "rates", call) >= HABITS.rates:
        return None
    if unit(seed, "careless", person) < HABITS.careless:
        return unit(seed, "coin", call) < 0.5
    errs = unit(seed, "sees it", call) >= HABITS.sees_it
    return likes(person, answer, document, day, seed) is not errs

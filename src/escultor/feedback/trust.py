"""What all that was said together tells of those who said it: measured from the index by a few queries."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from operator import itemgetter

from escultor.config import FeedbackRules
from escultor.feedback import abuse_rules
from escultor.feedback.abuse_rules import ActivityRate, PromptEchoCount, QuarantineEntry
from escultor.feedback.evidence import CHOICE, PRIORS, REGENERATION, RaterTrust
from escultor.types import SourceKind

PRIOR_WEIGHT = 20  # verdicts that what was believed before is worth
RIGHT = (0.5, 0.98)  # no kind of event is worse than a coin, none beyond doubt
BIAS_PRIOR, BIAS_STEP = 20, 0.1
# What drafts depend on of the settings; a change of any other lets them stand.
DRAFTED_BY = {"pairs_per_prompt", "max_flip_rate", "dictated_share", "gold_items"}
# Accounts are compared two by two on answers judged by so many; on others each with the next ones in the
# order of their names, of which those who conspire on answers of their own are neighbours.
MOST_VOTERS, NEXT_ONES = 100, 20
LOUDEST = 20  # events of one person that count where all are measured together

_VOTES = "live where name = 'thumb' and gone = 0 and up is not null"
_RATERS = f"('{SourceKind.RATER}')"


@dataclass(frozen=True, slots=True)
class RaterStandings:
    """Who is trusted how far, and what is held back; all that drafts depend on beside their own prompt."""

    right: dict[str, float]
    gold: int  # answers judged by raters, by which `right` was measured if they are enough
    first_bias: float
    first_share: float | None  # of choices, how many took what was shown first
    reliability: dict[str, float]
    held: list[QuarantineEntry]
    copying: list[str]
    released: list[str]
    collectives: dict[str, str]
    settings: dict[str, float]
    hasty: dict[str, list[tuple[float, float]]]
    dictating: list[str]

    def trust(self) -> RaterTrust:
        return RaterTrust(self.right, self.reliability, self.first_bias, self.collectives)

    def is_dictated(self, subject: str, skill: str, repeated: float, limit: float) -> bool:
        return repeated >= limit and skill not in self.copying and subject in self.dictating

    @property
    def shared(self) -> tuple[object, ...]:
        """What the drafts of every prompt depend on."""
        return self.right, self.first_bias, self.copying, self.released

    def changed(self, now: RaterStandings) -> set[str]:
        """Those whose word or whose answers count otherwise now."""
        pairs = (
            (self.reliability, now.reliability),
            (self.hasty, now.hasty),
            (self.collectives, now.collectives),
        )
        found = {s for old, new in pairs for s in old.keys() | new.keys() if old.get(s) != new.get(s)}
        return found | (set(self.dictating) ^ set(now.dictating))

    def text(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def parse(text: str | None) -> RaterStandings | None:
        if text is None:
            return None
        found = RaterStandings(**json.loads(text))
        hasty = {s: [(a, b) for a, b in spans] for s, spans in found.hasty.items()}
        return replace(found, held=[QuarantineEntry(**h) for h in found.held], hasty=hasty)  # type: ignore[arg-type]


def measure(file: sqlite3.Connection, settings: FeedbackRules, released: frozenset[str]) -> RaterStandings:
    """The standings of all that the index holds. Released entries are held back no more."""
    end_user = f"source = '{SourceKind.END_USER}'"
    haste = abuse_rules.hasty(_rates(file, settings.burst_floor), settings.burst_factor, settings.burst_floor)
    # In the order of their ids, as verdicts lie too: by an index of persons it takes three times as long.
    told = file.execute(
        "select subject, skill, count(*), sum(repeated >= ?) from answers a not indexed where exists "
        f"(select 1 from live l where l.target = a.id and {end_user}) or exists "
        f"(select 1 from picks p where p.winner = a.id and {end_user}) group by subject, skill",
        (settings.dictated_share,),
    )
    dictation, copying = abuse_rules.dictated(PromptEchoCount(*row) for row in told)
    held = [entry for entry in (*haste, *dictation) if entry.id not in released]
    right, gold = _right(file, settings.gold_items)
    bias, share = _first_bias(file)
    one = _collectives(file)
    hasty: dict[str, list[tuple[float, float]]] = {}
    for entry in held:
        if entry.rule == "haste":
            hasty.setdefault(entry.subject, []).append(entry.span)
    return RaterStandings(
        right,
        gold,
        bias,
        share,
        abuse_rules.reliability(_agreements(file, one)),
        held,
        sorted(copying),
        sorted(released),
        one,
        settings.model_dump(include=DRAFTED_BY),
        hasty,
        sorted(entry.subject for entry in held if entry.rule == "dictation"),
    )


def _rates(file: sqlite3.Connection, floor: int) -> Iterator[ActivityRate]:
    """How many verdicts each end user gave in each hour, day and month, and ever. Only those above the floor
    in some span can be hasty; of the others the busiest spans are enough."""
    hours = file.execute("select subject, hour, n from rates order by subject, hour")
    for subject, own in groupby(hours, itemgetter(0)):
        counts: dict[str, dict[int, int]] = {span: {} for span in abuse_rules.SPANS}
        for _, hour, n in own:
            time = hour * abuse_rules.HOUR_S
            for span, seconds in abuse_rules.SPANS.items():
                begin, by = time - time % seconds, counts[span]
                by[begin] = by.get(begin, 0) + n
        yield ActivityRate(subject, abuse_rules.EVER, 0, sum(counts["hour"].values()))
        busy = any(max(by.values()) > floor for by in counts.values())
        for span, by in counts.items():
            if busy:
                yield from (ActivityRate(subject, span, begin, n) for begin, n in by.items())
            else:
                yield ActivityRate(subject, span, min(by), max(by.values()))


def _agreements(file: sqlite3.Connection, one: Mapping[str, str]) -> list[tuple[str, int, int]]:
    """Thumbs of end users against the majority of the others on the same answer. Those who are `one` have one
    voice, their majority's, and are compared with it."""
    file.execute("drop table if exists temp.one")
    file.execute("create temp table one (subject text primary key, name text) without rowid")
    file.executemany("insert into temp.one values (?,?)", one.items())
    end_user = f"source = '{SourceKind.END_USER}'"
    file.execute("drop table if exists temp.voices")
    file.execute(
        "create temp table voices as select target, coalesce(o.name, l.subject) subject, "
        f"2 * sum(l.up) > count(*) up, min({end_user}) mine from (select * from {_VOTES} and target in "
        f"(select target from {_VOTES} group by target having count(*) > 2)) l "
        "left join temp.one o on o.subject = l.subject group by 1, 2 having 2 * sum(l.up) != count(*)"
    )
    found = file.execute(
        "with t as (select target, sum(up) ups, count(*) n from temp.voices "
        "group by target having count(*) > 2) select subject, count(*), sum((2 * (ups - up) > n - 1) = up) "
        "from temp.voices join t using (target) "
        "where mine and 2 * (ups - up) != n - 1 group by subject"
    ).fetchall()
    members: dict[str, list[str]] = {}
    for subject, name in one.items():
        members.setdefault(name, []).append(subject)
    return [(s, n, agreeing) for name, n, agreeing in found for s in members.get(name, [name])]


def _collectives(file: sqlite3.Connection) -> dict[str, str]:
    votes = f"{_VOTES} and source = '{SourceKind.END_USER}'"
    file.execute("drop table if exists temp.shared")
    file.execute(
        "create temp table shared as select target, subject, up, "
        "row_number() over (partition by target, up order by subject) place, "
        "count(*) over (partition by target, up) voters "
        f"from {votes} and target in (select target from {votes} group by target having count(*) > 1)"
    )
    file.execute("create index temp.shared_place on shared (target, up, place)")
    common = file.execute(
        "select a.subject, b.subject, count(*) from temp.shared a join temp.shared b "
        "on a.target = b.target and a.up = b.up and b.place > a.place "
        f"and b.place <= a.place + iif(a.voters > {MOST_VOTERS}, {NEXT_ONES}, {MOST_VOTERS}) "
        f"group by a.subject, b.subject having count(*) >= {abuse_rules.TOGETHER}"
    ).fetchall()
    if not common:
        return {}
    verdicts = dict(file.execute(f"select subject, count(*) from {votes} group by subject"))
    return abuse_rules.collectives(common, verdicts)


def _right(file: sqlite3.Connection, least: int) -> tuple[dict[str, float], int]:
    """How often each kind of event by end users agrees with raters on the same answers, where at least
    `least` answers were rated; what was believed before counts as 20 verdicts, and so do one person's at
    most. A choice, or what was kept of a line, is right when the raters like it and not the other. What a
    correction says was rated by nobody: of it only the prior is known."""
    gold = (
        f"select target, 2 * sum(up) > count(*) good from {_VOTES} and source in {_RATERS} group by target "
        "having 2 * sum(up) != count(*)"
    )
    n = file.execute(f"select count(*) from ({gold})").fetchone()[0]
    right = dict(PRIORS)
    if n < least:
        return right, n
    by = f"l.gone = 0 and l.source = '{SourceKind.END_USER}'"
    found = file.execute(
        f"with g as ({gold}) select l.name, l.subject, count(*), sum(l.up = g.good) from live l "
        f"join g using (target) where {by} and l.up is not null and l.name != 'correction' group by 1, 2 "
        f"union all select '{CHOICE}', l.subject, count(*), sum(w.good) from picks l, json_each(l.shown) j "
        "join g w on w.target = l.winner join g o on o.target = j.value and o.good != w.good "
        f"where {by} group by l.subject "
        f"union all select '{REGENERATION}', a.subject, count(*), sum(w.good) from children c "
        "join g w on w.target = c.child join g o on o.target = c.parent and o.good != w.good "
        "join answers a on a.id = c.child where exists (select 1 from live l where l.target = c.child "
        f"and l.subject = a.subject and l.up = 1 and {by}) group by a.subject"
    )
    for name, (seen, agreeing) in _heard((name, seen, good) for name, _, seen, good in found).items():
        if name in PRIORS:
            p = (agreeing + PRIOR_WEIGHT * PRIORS[name]) / (seen + PRIOR_WEIGHT)
            right[name] = round(min(RIGHT[1], max(RIGHT[0], p)), 2)
    return right, n


def _heard(rows: Iterable[tuple[str, int, int]]) -> dict[str, tuple[float, float]]:
    """By name, events and how many of them are so, from (name, one person's events, of these so): nobody
    counts for more than 20, so that no single person moves what is believed of all."""
    totals: dict[str, tuple[float, float]] = {}
    for name, n, so in rows:
        seen, good = totals.get(name, (0.0, 0.0))
        share = min(1.0, LOUDEST / n)
        totals[name] = seen + n * share, good + so * share
    return totals


def _first_bias(file: sqlite3.Connection) -> tuple[float, float | None]:
    """How much the first of two places helps, in log-odds: what explains how often it was taken, if the
    better answer stands first half of the time. Twenty choices without bias are added; steps of 0.1."""
    rows = file.execute(
        "select '', count(*), sum(winner = first) from picks where gone = 0 and winner != '' "
        "and json_array_length(shown) = 2 group by subject"
    )
    n, first = _heard(rows).get("", (0.0, 0.0))
    if not n:
        return 0.0, None
    share = (first + BIAS_PRIOR / 2) / (n + BIAS_PRIOR)
    strength = math.log(PRIORS[CHOICE] / (1 - PRIORS[CHOICE]))

    def taken(bias: float) -> float:
        return sum(1 / (1 + math.exp(-(sign * strength + bias))) for sign in (1, -1)) / 2

    low, high = -10.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if taken(middle) < share else (low, middle)
    return round(round(low / BIAS_STEP) * BIAS_STEP, 1), first / n

"""How far each kind of feedback and each person is believed: measured from the index by a few queries."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

from escultor.config import FeedbackRules
from escultor.feedback import abuse_rules
from escultor.feedback.abuse_rules import ActivityRate, PromptEchoCount, QuarantineEntry, RepeatedClaim
from escultor.feedback.evidence import CHOICE, PRIOR_ACCURACY, REGENERATION, DraftLimits, RaterTrust
from escultor.feedback.index_tables import RatedAnswer
from escultor.stats.odds import log_odds, logistic
from escultor.types import SourceKind

PRIOR_WEIGHT = 20  # verdicts that a prior accuracy counts as
ACCURACY_RANGE = (0.5, 0.98)  # no kind of event is worse than chance, none beyond doubt
POSITION_BIAS_PRIOR, POSITION_BIAS_STEP = 20, 0.1  # choices without bias that are added; log-odds
# The settings that drafts depend on; a change of any other keeps them.
DRAFT_SETTINGS = {*DraftLimits._fields, "prompt_echo_share", "gold_items"}
# On answers with up to so many voters every two accounts are compared; on others each with the next ones by
# name, since accounts that conspire on answers of their own are neighbours there.
MAX_VOTERS, NEIGHBOURS = 100, 20
MAX_PERSON_EVENTS = 20  # of one person that count where all are measured together

_THUMBS = "live where name = 'thumb' and withdrawn = 0 and up is not null"
_BY_END_USER = f"source = '{SourceKind.END_USER}'"
_RATED = (
    f"(exists (select 1 from live l where l.target = a.id and {_BY_END_USER}) or exists "
    f"(select 1 from choices c where c.winner = a.id and {_BY_END_USER}))"
)


@dataclass(frozen=True, slots=True)
class RaterStandings:
    """How far everybody is believed, and what is held back: all that drafts of every prompt depend on."""

    trust: RaterTrust
    gold: int  # answers judged by raters; where they are enough, `trust.accuracy` was measured on them
    first_share: float | None  # of the choices, how many took the answer shown first
    quarantine: list[QuarantineEntry]  # what is held back, the largest entries first
    released: list[str]  # ids of entries and of single events, and trusted people
    trusted: list[str]  # end users to whom no rule and no cap applies
    echoing_skills: list[str]  # whose nature it is to repeat the prompt
    anomalies: dict[str, list[tuple[float, float]]]  # end user -> held-back intervals
    echo_claims: dict[str, list[str]]  # asker -> hashes of what they have repeated
    settings: dict[str, int | float]  # those that drafts depend on

    def is_echo(self, answer: RatedAnswer) -> bool:
        """Whether events about an answer are held back since it repeats its prompt."""
        return answer.claim is not None and (
            answer.claim in self.echo_claims.get(answer.subject, ())
            and answer.skill not in self.echoing_skills
            and answer.echoed >= self.settings["prompt_echo_share"]
        )

    @property
    def common(self) -> tuple[object, ...]:
        """What the drafts of every prompt depend on."""
        return self.trust.accuracy, self.trust.position_bias, self.echoing_skills, self.released

    def changed_subjects(self, now: RaterStandings) -> set[str]:
        """The subjects whose feedback or answers count differently under `now`."""
        by_subject = (
            (self.trust.reliability, now.trust.reliability),
            (self.anomalies, now.anomalies),
            (self.trust.collusion_groups, now.trust.collusion_groups),
            (self.echo_claims, now.echo_claims),
        )
        return {s for a, b in by_subject for s in a.keys() | b.keys() if a.get(s) != b.get(s)}

    def to_json(self) -> str:
        """The form that pydantic reads back."""
        return json.dumps(asdict(self))


def measure_standings(
    file: sqlite3.Connection, settings: FeedbackRules, released: frozenset[str]
) -> RaterStandings:
    """The standings of all that the index holds. Entries and events that are released are not held back,
    and people who are released are trusted."""
    people = (json.dumps(sorted(released)),)
    rows = file.execute(
        "select subject from subjects where subject in (select value from json_each(?))", people
    )
    trusted = {subject for (subject,) in rows}
    factor, floor = settings.rate_anomaly_factor, settings.rate_anomaly_floor
    rate_entries = abuse_rules.find_rate_anomalies(_activity_rates(file, floor), factor, floor)
    echo_entries, echo_claims, echoing_skills = abuse_rules.find_prompt_echoes(
        _echo_counts(file, settings.prompt_echo_share), _repeated_claims(file, settings.prompt_echo_share)
    )
    entries = (*rate_entries, *echo_entries)
    held = [entry for entry in entries if not {entry.id, entry.subject} & released]
    held.sort(key=lambda entry: (-entry.n, entry.id))
    accuracy, gold = _measure_accuracy(file, settings.gold_items)
    bias, first_share = _measure_position_bias(file)
    groups = {s: name for s, name in _collusion_groups(file).items() if s not in trusted}
    reliability = abuse_rules.reliability(_agreements(file, groups))
    echo_subjects = {entry.subject for entry in held if entry.rule == "prompt_echo"}
    anomalies: dict[str, list[tuple[float, float]]] = {}
    for entry in held:
        if entry.rule == "rate_anomaly":
            anomalies.setdefault(entry.subject, []).append(entry.interval)
    return RaterStandings(
        trust=RaterTrust(accuracy, {s: r for s, r in reliability.items() if s not in trusted}, bias, groups),
        gold=gold,
        first_share=first_share,
        quarantine=held,
        released=sorted(released),
        trusted=sorted(trusted),
        echoing_skills=sorted(echoing_skills),
        anomalies=anomalies,
        echo_claims={s: claims for s, claims in echo_claims.items() if s in echo_subjects},
        settings=settings.model_dump(include=DRAFT_SETTINGS),
    )


def _activity_rates(file: sqlite3.Connection, floor: int) -> Iterator[ActivityRate]:
    """How many events each end user gave in each hour, day and month, and ever. Spans up to the
    floor cannot be held back: of who never exceeds it the busiest of each length is enough."""
    totals = file.execute(f"select subject, '{abuse_rules.EVER}', 0, sum(n) from rates group by subject")
    yield from map(ActivityRate._make, totals)
    for span, seconds in abuse_rules.SPANS.items():
        rows = file.execute(
            "with counts as materialized (select subject, "
            f"hour * {abuse_rules.HOUR_S} / :s * :s start, sum(n) n from rates group by 1, 2) "
            "select subject, :span, start, n from counts where n > :floor union all "
            "select subject, :span, start, max(n) from counts group by subject having max(n) <= :floor",
            {"s": seconds, "span": span, "floor": floor},
        )
        yield from map(ActivityRate._make, rows)


def _echo_counts(file: sqlite3.Connection, min_share: float) -> Iterator[PromptEchoCount]:
    """By asker and skill, the answers that end users gave feedback on, and those that echo their prompts."""
    rows = file.execute(
        # `not indexed`: in the order of the table, as thumbs lie too; by the index of askers it takes three
        # times as long.
        f"select subject, skill, count(*), sum(echoed >= ?) from answers a not indexed where {_RATED} "
        "group by subject, skill",
        (min_share,),
    )
    return map(PromptEchoCount._make, rows)


def _repeated_claims(file: sqlite3.Connection, min_share: float) -> Iterator[RepeatedClaim]:
    """By asker, skill and claim, the answers that end users gave feedback on and that are one stretch of
    their prompts, of the claims that come back on several prompts."""
    rows = file.execute(
        "with echoes as (select * from answers where echoed >= ? and claim is not null), "
        "repeated as (select claim from echoes group by claim having count(distinct prompt) >= ?) "
        "select subject, skill, claim, count(*) from echoes a "
        f"where claim in (select claim from repeated) and {_RATED} group by 1, 2, 3",
        (min_share, abuse_rules.MIN_CLAIM_PROMPTS),
    )
    return map(RepeatedClaim._make, rows)


def _agreements(file: sqlite3.Connection, groups: Mapping[str, str]) -> list[tuple[str, int, int]]:
    """(end user, thumbs compared with the majority of the others on the same answer, of these agreeing).

    1. `voices`: on answers with three thumbs and more, each person, or each collusion group as one, says
       what most of their own thumbs say; a draw within a group says nothing. 2. An answer with n voices, u
       of them up, gives each voice the majority of the other n - 1: of these u - up are up (`up` is 1 or
       0), so most are when 2 (u - up) > n - 1; at equality there is no majority, and no comparison. 3.
       Raters (not end users) are voices among the others, but are not measured themselves. What is found of
       a group holds for each of its members.
    """
    file.execute("drop table if exists temp.groups")
    file.execute("create temp table groups (subject text primary key, name text) without rowid")
    file.executemany("insert into temp.groups values (?,?)", groups.items())
    file.execute("drop table if exists temp.voices")
    file.execute(
        "create temp table voices as select target, coalesce(g.name, l.subject) voice, "
        f"2 * sum(l.up) > count(*) up, min({_BY_END_USER}) is_end_user from (select * from {_THUMBS} "
        f"and target in (select target from {_THUMBS} group by target having count(*) > 2)) l "
        "left join temp.groups g on g.subject = l.subject group by 1, 2 having 2 * sum(l.up) != count(*)"
    )
    rows = file.execute(
        "with totals as (select target, sum(up) ups, count(*) n from temp.voices "
        "group by target having count(*) > 2) "
        "select voice, count(*), sum((2 * (ups - up) > n - 1) = up) from temp.voices "
        "join totals using (target) where is_end_user and 2 * (ups - up) != n - 1 group by voice"
    ).fetchall()
    members: dict[str, list[str]] = {}
    for subject, name in groups.items():
        members.setdefault(name, []).append(subject)
    return [(s, n, agreeing) for voice, n, agreeing in rows for s in members.get(voice, [voice])]


def _collusion_groups(file: sqlite3.Connection) -> dict[str, str]:
    """The collusion groups, from the pairs of end users who gave the same thumb on the same answers."""
    thumbs = f"{_THUMBS} and {_BY_END_USER}"
    file.execute("drop table if exists temp.voters")
    file.execute(
        "create temp table voters as select target, subject, up, "
        "row_number() over (partition by target, up order by subject) place, "
        "count(*) over (partition by target, up) n "
        f"from {thumbs} and target in (select target from {thumbs} group by target having count(*) > 1)"
    )
    file.execute("create index temp.voters_place on voters (target, up, place)")
    common = file.execute(
        "select a.subject, b.subject, count(*) from temp.voters a join temp.voters b "
        "on a.target = b.target and a.up = b.up and b.place > a.place "
        f"and b.place <= a.place + iif(a.n > {MAX_VOTERS}, {NEIGHBOURS}, {MAX_VOTERS}) "
        f"group by a.subject, b.subject having count(*) >= {abuse_rules.MIN_COMMON}"
    ).fetchall()
    if not common:
        return {}
    n_thumbs = dict(file.execute(f"select subject, count(*) from {thumbs} group by subject"))
    return abuse_rules.collusion_groups(common, n_thumbs)


def _measure_accuracy(file: sqlite3.Connection, min_gold: int) -> tuple[dict[str, float], int]:
    """By kind of event, how often end users agree with raters on the same answers; and the number of
    answers that raters judged (gold). The priors, where those are fewer than `min_gold`.

    A prior counts as 20 verdicts, and so do one person's at most. A choice, or the answer kept of a line of
    regenerations, is right when the raters like it and not the other. No rater judged what a correction
    says: its prior stays.
    """
    gold = (
        f"select target, 2 * sum(up) > count(*) good from {_THUMBS} and source = '{SourceKind.RATER}' "
        "group by target having 2 * sum(up) != count(*)"
    )
    n_gold = file.execute(f"select count(*) from ({gold})").fetchone()[0]
    accuracy = dict(PRIOR_ACCURACY)
    if n_gold < min_gold:
        return accuracy, n_gold
    live = f"l.withdrawn = 0 and l.{_BY_END_USER}"
    rows = file.execute(
        f"with g as ({gold}) select l.name, count(*), sum(l.up = g.good) from live l "
        f"join g using (target) where {live} and l.up is not null and l.name != 'correction' "
        "group by l.name, l.subject "
        f"union all select '{CHOICE}', count(*), sum(w.good) from choices l, json_each(l.shown) shown "
        "join g w on w.target = l.winner join g o on o.target = shown.value and o.good != w.good "
        f"where {live} group by l.subject "
        f"union all select '{REGENERATION}', count(*), sum(w.good) from children c "
        "join g w on w.target = c.child join g o on o.target = c.parent and o.good != w.good "
        "join answers a on a.id = c.child where exists (select 1 from live l where l.target = c.child "
        f"and l.subject = a.subject and l.up = 1 and {live}) group by a.subject"
    )
    for name, (n, n_right) in _capped_totals(rows).items():
        if name in PRIOR_ACCURACY:
            p = (n_right + PRIOR_WEIGHT * PRIOR_ACCURACY[name]) / (n + PRIOR_WEIGHT)
            accuracy[name] = round(min(ACCURACY_RANGE[1], max(ACCURACY_RANGE[0], p)), 2)
    return accuracy, n_gold


def _capped_totals(rows: Iterable[tuple[str, int, int]]) -> dict[str, tuple[float, float]]:
    """From (name, one person's events, of these successes) to the totals by name. Nobody counts for more
    than 20 events, so that no single person moves what is believed of all."""
    totals: dict[str, tuple[float, float]] = {}
    for name, n, successes in rows:
        n_before, successes_before = totals.get(name, (0.0, 0.0))
        share = min(1.0, MAX_PERSON_EVENTS / n)
        totals[name] = n_before + n * share, successes_before + successes * share
    return totals


def _measure_position_bias(file: sqlite3.Connection) -> tuple[float, float | None]:
    """The advantage of the first of two positions, in log-odds, and the share of choices that took it.

    The bias b solves share = (logistic(s + b) + logistic(b - s)) / 2, where s is the prior strength of a
    choice and the better answer is shown first half of the time; by bisection, in steps of 0.1. Twenty
    choices without bias are added.
    """
    rows = file.execute(
        "select '', count(*), sum(winner = first) from choices where withdrawn = 0 and winner != '' "
        "and json_array_length(shown) = 2 group by subject"
    )
    n, n_first = _capped_totals(rows).get("", (0.0, 0.0))
    if not n:
        return 0.0, None
    share = (n_first + POSITION_BIAS_PRIOR / 2) / (n + POSITION_BIAS_PRIOR)
    strength = log_odds(PRIOR_ACCURACY[CHOICE])
    low, high = -10.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        first_share = (logistic(strength + middle) + logistic(middle - strength)) / 2
        low, high = (middle, high) if first_share < share else (low, middle)
    return round(round(low / POSITION_BIAS_STEP) * POSITION_BIAS_STEP, 1), n_first / n

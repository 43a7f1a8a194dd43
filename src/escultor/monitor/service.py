"""The monitor of one store: reads what is new in the log, decides every rule's state, and records changes.

Counts of calls are kept in the log themselves (`CallTally`), so that a monitor that starts reads what came
after the last tally and not a month of answers. Several monitors on one store agree: the id of a tally names
where it begins, and who comes second takes what the first has written.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from escultor.config import Monitor
from escultor.errors import IdTaken
from escultor.monitor.buckets import (
    BUCKET_S,
    CallCounts,
    PartKey,
    as_record,
    fold_parts,
    from_record,
    of_versions,
    part_of,
)
from escultor.monitor.drift import ANSWERS, LOOK_S, PROMPTS, read_drift
from escultor.monitor.metrics import (
    DAY_S,
    QUALITY,
    AnswerRef,
    MetricsWindow,
    Thumb,
    ThumbVote,
    fold_thumbs,
    health,
    merge_calls,
    merge_thumbs,
    votes_on,
)
from escultor.monitor.parts import health_of_parts
from escultor.monitor.rules import (
    LOOKBACK_S,
    MAX_AHEAD_S,
    Past,
    Reading,
    read_budget,
    read_clock,
    read_daily_cost,
    read_thumbs,
    read_traffic,
    read_votes,
)
from escultor.monitor.states import RuleHistory, RuleKey, alert_of, changed, histories
from escultor.monitor.traits import HOUR_S, VALID, draw_sample, merge_samples
from escultor.skills.catalog import built_in_names
from escultor.skills.skill import Skill
from escultor.store import Store, registry
from escultor.store.feedback import THUMB
from escultor.types import Alert, AnswerTraits, CallTally, Feedback, Health, Interaction, ToolDefinitions

TALLY_EVERY_S = 3600.0  # the counts are written to the log at most this often
CHUNK = 10_000  # interactions folded at a time
MAX_PARTS = 50  # skills and arms of versions in a report


class MonitorReport(NamedTuple):
    """What a check found: the health of every version that answered in the last day, one alert per rule and
    version, the alerts among them whose state is new, and the window of four weeks that they rest on. `parts`
    has the health of each skill and arm of the versions that answered under more than one, those with most
    calls first, without the last `parts_left_out`; it is not recorded."""

    health: list[Health]
    alerts: list[Alert]
    changes: list[Alert]
    window: MetricsWindow
    parts: list[Health]
    parts_left_out: int


@dataclass(slots=True)
class MonitorService:
    """Watches one store. `unnamed` are the subjects of applications that do not name their users, `skills`
    those by whose schemas answers are judged. Calls are counted by the names of these skills, the package's
    and `names`; the rest, which clients made up, are counted together."""

    store: Store
    config: Monitor
    unnamed: frozenset[str] = frozenset()
    skills: Mapping[str, Skill] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    _calls: dict[tuple[str, int], CallCounts] = field(default_factory=dict)
    _parts: dict[PartKey, CallCounts] = field(default_factory=dict)  # the same of the last day
    _new: dict[PartKey, CallCounts] = field(default_factory=dict)  # not in a tally yet
    _sample: dict[tuple[str, int], Sequence[AnswerTraits]] = field(default_factory=dict)
    _new_sample: dict[tuple[str, int], Sequence[AnswerTraits]] = field(default_factory=dict)
    _drift: dict[RuleKey, tuple[float, Reading]] = field(default_factory=dict)  # the last look, and when
    _votes: dict[str, dict[tuple[str, str], Thumb]] = field(default_factory=lambda: {THUMB: {}, QUALITY: {}})
    _answers: dict[str, AnswerRef] = field(default_factory=dict)  # of rated answers
    _ahead_s: float = 0.0  # of this clock: the latest of the rows read last
    _was_ahead: float = -math.inf  # when rows were dated ahead last
    _tallied: int = -1  # last log entry in a tally; -1: the tallies are not read yet
    _cursors: list[int] = field(default_factory=lambda: [0, 0])  # of interactions and feedback in the log

    def check(self, now: float) -> MonitorReport:
        """Read what is new, decide once, and record the changes of state and the health of the last day."""
        window = self.read(now)
        known = histories((a for _, a in self.store.log.read(Alert, since=now - LOOKBACK_S)), now)
        versions = self._versions(window, now)
        alerts = [
            alert_of(reading, known.get((reading.rule, reading.version), RuleHistory()), now)
            for reading in self._readings(window, versions, known, now)
        ]
        states = [health(version, window, now - DAY_S, now) for version in versions]
        changes = changed(alerts, known)
        self.store.log.append(*states, *changes)
        return MonitorReport(
            states, alerts, changes, window, *health_of_parts(window, now - DAY_S, now, MAX_PARTS)
        )

    def read(self, now: float) -> MetricsWindow:
        """The window of the last four weeks."""
        if self._tallied < 0:
            self._load_tallies(now)
        self._read_calls(now)
        self._read_thumbs(now)
        calls = merge_calls(self._calls, of_versions(self._new.values()))
        parts = merge_calls(self._parts, self._new)
        votes = (votes_on(self._votes[name], self._answers) for name in (THUMB, QUALITY))
        sample = merge_samples(self._sample, self._new_sample).values()
        return MetricsWindow(calls, *votes, sample=[row for rows in sample for row in rows], parts=parts)

    def _versions(self, window: MetricsWindow, now: float) -> list[str]:
        """The versions that answered in the last day, and the champion."""
        seen = {version for version, number in window.calls if number * BUCKET_S >= now - DAY_S - BUCKET_S}
        champion = registry.champion(registry.read_deployments(self.store.log))
        return sorted(seen | ({champion} if champion else set()))

    def _readings(
        self,
        window: MetricsWindow,
        versions: Iterable[str],
        known: dict[RuleKey, RuleHistory],
        now: float,
    ) -> Iterable[Reading]:
        def past(rule: str, version: str) -> Past:
            return known.get((rule, version), RuleHistory()).past(now)

        for version in versions:
            thumbs = past("thumbs_down", version)
            votes = [vote for vote in window.votes if vote.answer.version == version]
            yield read_thumbs(version, votes, thumbs, self.config, now, unnamed=self.unnamed)
            yield read_votes(
                "quality",
                version,
                _audits(window, version),
                past("quality", version),
                self.config,
                limit=1 - self.config.quality_floor,
                now=now,
                unnamed=self.unnamed,
            )
            for rule in ("errors", "latency_p99", "ttft_p99")[: 3 if self.config.ttft_p99_ms else 2]:
                before = past(rule, version)
                yield read_budget(rule, version, window, before, self.config, now=now)
            yield self._read_drift("answer_drift", version, window, ANSWERS, now)
        rated = Counter(vote.answer.version for vote in window.votes)
        few = {version for version, votes in rated.items() if votes < self.config.min_rated}
        if len(few) > 1:
            votes = [
                v._replace(answer=v.answer._replace(version=""))
                for v in window.votes
                if v.answer.version in few
            ]
            yield read_thumbs("", votes, past("thumbs_down", ""), self.config, now, unnamed=self.unnamed)
        yield self._read_drift("prompt_drift", "", window, PROMPTS, now)
        yield read_daily_cost(window, self.config, now)
        yield read_traffic(window, now, self._ahead_s)
        yield read_clock(self._ahead_s, now - max(self._was_ahead, past("clock", "").changed))

    def _read_drift(self, rule: str, version: str, window: MetricsWindow, prefix: str, now: float) -> Reading:
        """The reading of the last full six hours, which is computed once."""
        look, (at, reading) = now // LOOK_S, self._drift.get((rule, version), (None, None))
        if reading is None or at != look:
            rows = [row for row in window.sample if version in ("", row.version)]
            reading = read_drift(rule, version, rows, prefix, now)
            self._drift[rule, version] = look, reading
        return reading

    def _load_tallies(self, now: float) -> None:
        last = self.store.log.last(CallTally)
        self._tallied = self._cursors[0] = last.upto if last else 0
        self._calls, self._parts, self._new, self._sample, self._new_sample = {}, {}, {}, {}, {}
        for _, tally in self.store.log.read(CallTally, since=now - LOOKBACK_S):
            counts = {each.key: each for each in map(from_record, tally.counts)}
            self._keep(counts, now)
            rows: dict[tuple[str, int], list[AnswerTraits]] = {}
            for row in tally.sample:
                rows.setdefault((row.version, int(row.time // HOUR_S)), []).append(row)
            self._sample = merge_samples(self._sample, rows)

    def _keep(self, counts: Mapping[PartKey, CallCounts], now: float) -> None:
        """Add the counts of a tally to those of four weeks, and by skill and arm to those of the last day."""
        for key, each in of_versions(counts.values()).items():
            self._calls[key] = self._calls[key].merged(each) if key in self._calls else each
        first = (now - DAY_S) // BUCKET_S
        merged = merge_calls(self._parts, {key: c for key, c in counts.items() if key[1] >= first})
        self._parts = {key: c for key, c in merged.items() if key[1] >= first}

    def _read_calls(self, now: float) -> None:
        chunk: list[tuple[int, Interaction]] = []
        begin = now - LOOKBACK_S
        for row in self.store.log.read(Interaction, after=self._cursors[0], since=begin):
            chunk.append(row)
            if len(chunk) == CHUNK:
                self._add(chunk, now)
                chunk = []
        self._add(chunk, now)
        oldest = min((number for _, number in self._new), default=None)
        if oldest is not None and oldest * BUCKET_S < now - TALLY_EVERY_S:
            self._write_tally(now)

    def _add(self, chunk: Sequence[tuple[int, Interaction]], now: float) -> None:
        """Count a chunk: all of it, or nothing where the store fails meanwhile."""
        if not chunk:
            return
        rows = [row for _, row in chunk]

        def read_tools(id: str) -> str:
            found = self.store.log.get(ToolDefinitions, id) if id else None
            return found.text if found else ""

        names = self._names()
        drawn = draw_sample(rows, self.skills, read_tools, self.unnamed, names)
        self._new_sample = merge_samples(self._new_sample, drawn)
        self._new = merge_calls(self._new, fold_parts(rows, names))
        self._ahead_s = max(row.time for row in rows) - now
        if self._ahead_s > MAX_AHEAD_S:
            self._was_ahead = now
        self._cursors[0] = chunk[-1][0]

    def _names(self) -> frozenset[str]:
        return self.names.union(built_in_names(), self.skills)

    def _write_tally(self, now: float) -> None:
        counts = tuple(as_record(each) for _, each in sorted(self._new.items()))
        sample = tuple(row for _, rows in sorted(self._new_sample.items()) for row in rows)
        tally = CallTally(f"calls-{self._tallied}", now, self._cursors[0], counts, sample)
        try:
            self.store.log.append(tally)
        except IdTaken:  # another monitor was first: its stretch counts, and ours begins behind it
            self._load_tallies(now)
            self._read_calls(now)
            return
        first = (now - LOOKBACK_S) / BUCKET_S
        self._keep(self._new, now)
        self._calls = {k: c for k, c in self._calls.items() if k[1] >= first}
        merged = merge_samples(self._sample, self._new_sample)
        self._sample = {k: rows for k, rows in merged.items() if k[1] * HOUR_S >= now - LOOKBACK_S}
        self._new, self._new_sample, self._tallied = {}, {}, self._cursors[0]

    def _read_thumbs(self, now: float) -> None:
        read = list(self.store.log.read(Feedback, after=self._cursors[1], since=now - LOOKBACK_S))
        events: list[Feedback] = [event for _, event in read]
        fresh = {name: fold_thumbs(events, name) for name in self._votes}
        for name, votes in self._votes.items():
            merged = merge_thumbs(votes, fresh[name])
            self._votes[name] = {k: t for k, t in merged.items() if t.precedence[0] >= now - LOOKBACK_S}
        rated = {target for votes in self._votes.values() for target, _ in votes}
        self._answers = {target: self._answers[target] for target in rated if target in self._answers}
        names = self._names()
        for target in {target for votes in fresh.values() for target, _ in votes} - self._answers.keys():
            if found := self.store.log.get(Interaction, target):
                version, skill, arm = part_of(found, names)
                self._answers[target] = AnswerRef(version, found.time, found.subject, skill, arm)
        if read:  # last: what a failing store interrupts is read again, which changes no fold
            self._cursors[1] = read[-1][0]


def _audits(window: MetricsWindow, version: str) -> list[ThumbVote]:
    """What judges and programs say of a version's answers, with the person who got the answer as the unit."""
    judged = [v._replace(subject=v.answer.subject) for v in window.quality if v.answer.version == version]
    checked = [
        ThumbVote(
            r.time, f"#{r.draw}", f"#{r.person}", r.traits["answer_form"] != VALID, AnswerRef(version, r.time)
        )
        for r in window.sample
        if r.version == version and "answer_form" in r.traits
    ]
    return sorted([*judged, *checked])

"""The monitor of one store: reads what is new in the log, decides every rule's state, and records changes.

Counts of calls are kept in the log themselves (`CallTally`), so that a monitor that starts reads what came
after the last tally and not a month of answers. Several monitors on one store agree: the id of a tally names
where it begins, and who comes second takes what the first has written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from escultor.config import Monitor
from escultor.errors import IdTaken
from escultor.monitor.buckets import BUCKET_S, CallCounts, as_record, from_record
from escultor.monitor.metrics import (
    DAY_S,
    AnswerRef,
    MetricsWindow,
    Thumb,
    fold_calls,
    fold_thumbs,
    health,
    merge_calls,
    merge_thumbs,
    votes_on,
)
from escultor.monitor.rules import (
    LOOKBACK_S,
    Past,
    Reading,
    read_budget,
    read_daily_cost,
    read_thumbs,
    read_traffic,
)
from escultor.monitor.states import RuleHistory, RuleKey, alert_of, changed, histories
from escultor.store import Store, registry
from escultor.types import Alert, CallTally, Feedback, Health, Interaction

TALLY_EVERY_S = 3600.0  # the counts are written to the log at most this often
CHUNK = 10_000  # interactions folded at a time


class MonitorReport(NamedTuple):
    """What a check found: the health of every version that answered in the last day, one alert per rule and
    version, the alerts among them whose state is new, and the window of four weeks that they rest on."""

    health: list[Health]
    alerts: list[Alert]
    changes: list[Alert]
    window: MetricsWindow


@dataclass(slots=True)
class MonitorService:
    """Watches one store. `unnamed` are the subjects of applications that do not name their users."""

    store: Store
    config: Monitor
    unnamed: frozenset[str] = frozenset()
    _calls: dict[tuple[str, int], CallCounts] = field(default_factory=dict)
    _new: dict[tuple[str, int], CallCounts] = field(default_factory=dict)  # not in a tally yet
    _thumbs: dict[tuple[str, str], Thumb] = field(default_factory=dict)
    _answers: dict[str, AnswerRef] = field(default_factory=dict)  # of rated answers
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
        return MonitorReport(states, alerts, changes, window)

    def read(self, now: float) -> MetricsWindow:
        """The window of the last four weeks."""
        if self._tallied < 0:
            self._load_tallies(now)
        self._read_calls(now)
        self._read_thumbs(now)
        calls = merge_calls(self._calls, self._new)
        return MetricsWindow(calls, votes_on(self._thumbs, self._answers))

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
            for rule in ("errors", "latency_p99"):
                before = past(rule, version)
                yield read_budget(rule, version, window, before, self.config, now=now)
        yield read_daily_cost(window, self.config, now)
        yield read_traffic(window, now)

    def _load_tallies(self, now: float) -> None:
        last = self.store.log.last(CallTally)
        self._tallied = self._cursors[0] = last.upto if last else 0
        self._calls, self._new = {}, {}
        for _, tally in self.store.log.read(CallTally, since=now - LOOKBACK_S):
            for counts in map(from_record, tally.counts):
                key = counts.version, counts.number
                self._calls[key] = self._calls[key].merged(counts) if key in self._calls else counts

    def _read_calls(self, now: float) -> None:
        chunk: list[Interaction] = []
        begin = now - LOOKBACK_S
        for seq, interaction in self.store.log.read(Interaction, after=self._cursors[0], since=begin):
            self._cursors[0] = seq
            chunk.append(interaction)
            if len(chunk) == CHUNK:
                self._new = merge_calls(self._new, fold_calls(chunk))
                chunk = []
        self._new = merge_calls(self._new, fold_calls(chunk))
        oldest = min((number for _, number in self._new), default=None)
        if oldest is not None and oldest * BUCKET_S < now - TALLY_EVERY_S:
            self._write_tally(now)

    def _write_tally(self, now: float) -> None:
        counts = tuple(as_record(each) for _, each in sorted(self._new.items()))
        tally = CallTally(f"calls-{self._tallied}", now, self._cursors[0], counts)
        try:
            self.store.log.append(tally)
        except IdTaken:  # another monitor was first: its stretch counts, and ours begins behind it
            self._load_tallies(now)
            self._read_calls(now)
            return
        first = (now - LOOKBACK_S) / BUCKET_S
        self._calls = {k: c for k, c in merge_calls(self._calls, self._new).items() if k[1] >= first}
        self._new, self._tallied = {}, self._cursors[0]

    def _read_thumbs(self, now: float) -> None:
        events: list[Feedback] = []
        for seq, event in self.store.log.read(Feedback, after=self._cursors[1], since=now - LOOKBACK_S):
            self._cursors[1] = seq
            events.append(event)
        fresh = fold_thumbs(events)
        merged = merge_thumbs(self._thumbs, fresh)
        self._thumbs = {k: t for k, t in merged.items() if t.precedence[0] >= now - LOOKBACK_S}
        self._answers = {t: self._answers[t] for t, _ in self._thumbs if t in self._answers}
        for target, _ in fresh:
            if target not in self._answers and (found := self.store.log.get(Interaction, target)):
                self._answers[target] = AnswerRef(found.version, found.time)

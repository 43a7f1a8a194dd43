"""By skill and arm: the parts sum to the whole, are told with n and interval, and are bounded."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor import stats
from escultor.config import Config, Monitor
from escultor.cycle.monitoring import monitor_of
from escultor.ids import hash_value
from escultor.monitor.buckets import as_record, fold_parts, from_record, of_versions
from escultor.monitor.metrics import AnswerRef, MetricsWindow, fold_calls, fold_thumbs, merge_calls, votes_on
from escultor.monitor.parts import health_of_parts, split
from escultor.monitor.service import MAX_PARTS, MonitorService
from escultor.serve.auth import create
from escultor.store.codec import decode, encode
from escultor.store.kinds import kind_of
from escultor.types import AnswerTraits, CallTally, CountedCalls, Estimate, Health, Scope
from tests.monitor.test_window import call, thumb

DAY, NOW = 86_400.0, 11 * 86_400.0
NAMES = frozenset({"chat", "math"})
CALLS = st.builds(
    lambda k, time, version, skill, arm, end, ms: replace(
        call(k, time, ms, version=version, finish=end), skill=skill, arm=arm
    ),
    st.sampled_from("abcdefgh"),
    st.integers(0, 900).map(float),
    st.sampled_from(["v1", "v2"]),
    st.sampled_from(["chat", "math", "made up"]),
    st.sampled_from(["champion", "candidate", "shadow"]),
    st.sampled_from(["stop", "error"]),
    st.floats(1, 1e4),
)
LAWS = settings(max_examples=60, deadline=None)


def figures(health):
    return {e.name: e for e in health.estimates}


def by_part(healths):
    return {(h.version, h.skill, h.arm): figures(h) for h in healths}


@LAWS
@given(st.lists(CALLS, max_size=12), st.lists(CALLS, max_size=12), st.randoms(use_true_random=False))
def test_parts_merge_in_any_order_and_sum_to_the_whole(a, b, random):
    both = [*a, *b]
    whole = fold_parts(both, NAMES)
    random.shuffle(both)
    assert whole == fold_parts(both, NAMES) == merge_calls(fold_parts(b, NAMES), fold_parts(a, NAMES))
    assert of_versions(whole.values()) == fold_calls(both)
    assert {part.skill for part, _ in whole} <= NAMES | {"other"}
    for counts in whole.values():
        assert from_record(as_record(counts)) == counts


@LAWS
@given(st.lists(CALLS, max_size=16, unique_by=lambda c: c.id), st.lists(st.booleans(), min_size=8))
def test_windows_of_the_parts_hold_everything_once(calls, ups):
    votes = fold_thumbs(thumb(f"f{c.id}", c.id, up) for c, up in zip(calls, ups, strict=False))
    answers = {c.id: AnswerRef(c.version, c.time, c.subject, c.skill, c.arm) for c in calls}
    names = {c.skill for c in calls}
    sample = [AnswerTraits(c.time, c.version, 1, 1, {}, c.skill, c.arm) for c in calls]
    parts = fold_parts(calls, names)
    window = MetricsWindow(of_versions(parts.values()), votes_on(votes, answers), (), sample, parts)
    windows = split(window, 0.0, 1000.0)
    summed = of_versions(counts for part in windows.values() for counts in part.calls.values())
    assert summed == window.calls
    assert sorted(v for part in windows.values() for v in part.votes) == window.votes
    assert sum(len(part.sample) for part in windows.values()) == len(sample)
    for part, of_part in windows.items():
        assert {(v.answer.skill, v.answer.arm) for v in of_part.votes} <= {part[1:]}


def test_tallies_from_before_are_read_and_records_keep_their_ids():
    old = CountedCalls("v1", 7, 2, 0, 3, 4, 5, 6, ((500, 2),))
    body = encode(CallTally("calls-0", 1.0, 2, (old,)))
    assert not {"skill", "arm"} & json.loads(body)["counts"][0].keys()
    assert decode(kind_of(CallTally), body).counts == (old,)
    assert (from_record(old).skill, from_record(old).calls) == ("", 2)
    assert list(of_versions([from_record(old)])) == [("v1", 7)]
    health = Health("v1", 1.0, 2.0, (Estimate("calls", 1.0, 1.0, 1.0, 1),))
    assert hash_value(health) == "0b1f68d4b9afe04d4bc4dc04081d3066"
    assert hash_value(health) != hash_value(replace(health, skill="chat", arm="champion"))


# --- in the monitor ----------------------------------------------------------------------------


def served(store, n, skill="chat", arm="champion", version="v1", down=0, end="stop"):
    """n answers of the last hour, of which the first `down` got a thumb down and the next ten one up."""
    name = hash_value((skill, arm, version))[:8]
    calls = [
        replace(
            call(f"{name}-{k}", NOW - 3000 + k, version=version, finish=end),
            skill=skill,
            arm=arm,
            subject=f"s{k}",
        )
        for k in range(n)
    ]
    rated = calls[: down + 10]
    votes = [thumb(f"f-{c.id}", c.id, k >= down, NOW - 100, f"s{k}") for k, c in enumerate(rated)]
    store.log.append(*calls, *votes)


def test_each_skill_and_arm_is_told_with_n_and_interval_and_the_log_keeps_the_whole(store):
    served(store, 60, down=2)
    served(store, 40, skill="math", down=10)
    served(store, 20, arm="candidate", version="v2", end="error")
    served(store, 15, arm="shadow", version="v2")
    served(store, 25, version="v3")
    monitor = MonitorService(store, Monitor(), names=NAMES)
    report = monitor.check(NOW)
    parts = by_part(report.parts)
    assert [(*part, figures["calls"].n) for part, figures in parts.items()] == [
        ("v1", "chat", "champion", 60),
        ("v1", "math", "champion", 40),
        ("v2", "chat", "candidate", 20),
        ("v2", "chat", "shadow", 15),
    ]
    math = parts["v1", "math", "champion"]["thumbs_down_share"]
    assert (math.value, math.n, math.low, math.high) == (0.5, 20, *stats.wilson(10, 20))
    assert parts["v1", "chat", "champion"]["thumbs_down_share"].value == pytest.approx(2 / 12)
    failed = parts["v2", "chat", "candidate"]["error_share"]
    assert (failed.value, failed.n, failed.low) == (1.0, 20, stats.wilson(20, 20)[0])
    assert parts["v1", "math", "champion"]["refusal_share"].n > 0
    whole = {h.version: figures(h) for h in report.health}
    assert [(v, f["calls"].n, f["thumbs_down_share"].n) for v, f in whole.items()] == [
        ("v1", 100, 32),
        ("v2", 35, 20),
        ("v3", 25, 10),
    ]
    assert [(h.skill, h.arm) for _, h in store.log.read(Health)] == [("", "")] * 3


def test_a_monitor_that_starts_reads_the_parts_from_the_tallies(store):
    served(store, 60)
    served(store, 40, skill="math")
    first, later = MonitorService(store, Monitor(), names=NAMES), NOW + 7200
    before = first.check(later)
    assert store.log.count(CallTally) == 1
    again = MonitorService(store, Monitor(), names=NAMES).check(later)
    assert (
        (again.parts, again.health)
        == (before.parts, before.health)
        == (first.check(later).parts, before.health)
    )
    assert len(again.parts) == 2
    served(store, 5, skill="law")
    assert by_part(first.check(later).parts)["v1", "other", "champion"]["calls"].n == 5
    assert first.check(NOW + 2 * DAY).parts == []


def test_skills_that_clients_make_up_are_counted_together_and_their_names_not_kept(store):
    for k in range(30):
        served(store, 1, skill=f"Maria {k}")
    report = MonitorService(store, Monitor()).check(NOW + 7200)
    (only,) = MonitorService(store, Monitor()).read(NOW + 7200).parts.values()
    assert (only.skill, only.calls, report.parts) == ("other", 30, [])
    assert not any("Maria" in encode(tally) for _, tally in store.log.read(CallTally))


def test_skills_of_the_configuration_and_of_keys_are_told_apart(store):
    store.log.append(create("app", (Scope.INFER,), skill="law")[1])
    served(store, 3, skill="law")
    served(store, 4, skill="mine")
    config = Config.model_validate({"serve": {"skill": "mine"}})
    assert {h.skill for h in monitor_of(store, config).check(NOW).parts} == {"law", "mine"}


def test_the_parts_with_most_calls_are_shown_and_the_others_counted(store):
    names = frozenset(f"skill-{k}" for k in range(MAX_PARTS + 10))
    calls = [replace(call(f"{n}-{k}", NOW - 60), skill=n) for n in names for k in range(1 + (n == "skill-7"))]
    parts = fold_parts(calls, names)
    window = MetricsWindow(of_versions(parts.values()), parts=parts)
    shown, left_out = health_of_parts(window, NOW - DAY, NOW, MAX_PARTS)
    assert (len(shown), left_out, shown[0].skill) == (MAX_PARTS, 10, "skill-7")

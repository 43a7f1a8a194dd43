"""What `interactions export` and `feedback export` write comes back into another store without loss."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from escultor.data.importers import events
from escultor.errors import DataError
from escultor.serve.in_flight import draft_interaction
from escultor.store import open_store
from escultor.store.redaction import redact_record
from escultor.types import (
    Choice,
    Consent,
    Correction,
    Feedback,
    Implicit,
    ImplicitEvent,
    Interaction,
    Lineage,
    Message,
    Rating,
    Relation,
    Remark,
    Revocation,
    Role,
    Sampling,
    SourceKind,
    ToolCall,
    Usage,
)

TERMS = events.ImportOptions(lambda name: f"hash({name})")
text = st.text(st.characters(codec="utf-8"), max_size=12)
ids = st.text("abcdef0123456789-_:/", min_size=1, max_size=10)
figures = st.floats(0, 1e6)
times = st.floats(1, 2e9)
calls = st.builds(ToolCall, ids, text.filter(bool), text)
messages = st.builds(
    Message,
    st.sampled_from(Role),
    text,
    reasoning=text,
    tool_calls=st.lists(calls, max_size=2).map(tuple),
    tool_call_id=text,
    name=text,
    learnt=st.booleans(),
)
interactions = st.builds(
    Interaction,
    id=ids,
    time=times,
    skill=ids,
    subject=ids,
    version=ids,
    arm=st.sampled_from(["champion", "imported"]),
    propensity=st.floats(0.01, 1),
    messages=st.lists(messages, max_size=3).map(tuple),
    answer=text,
    finish_reason=st.sampled_from(["stop", "length", "cancelled", "error", "interrupted"]),
    sampling=st.builds(Sampling, figures, st.floats(0, 1), st.integers(0, 99), st.integers(0, 99)),
    usage=st.builds(Usage, st.integers(0, 99), st.integers(0, 99), st.booleans()),
    latency_ms=figures,
    ttft_ms=st.none() | figures,
    cost_usd=figures,
    prompt_hash=ids,
    lineage=st.none() | st.builds(Lineage, ids, st.sampled_from(Relation)),
    consent=st.sampled_from(Consent),
    retain_until=st.none() | st.floats(3e9, 4e9),
    tenant=ids,
)
source = st.sampled_from(SourceKind)
about = (ids, times, ids, ids)
feedback = st.one_of(
    st.builds(Rating, *about, ids, st.booleans() | figures, source=source),
    st.builds(Correction, *about, text, source=source),
    st.builds(Remark, *about, text, source=source),
    st.builds(Implicit, *about, st.sampled_from(ImplicitEvent), st.none() | figures, source=source),
    st.builds(Revocation, *about, ids, source=source),
    st.builds(
        lambda id, time, subject, name, shown, source, tie: Choice(
            id, time, subject, name, shown_order=shown, winner=None if tie else shown[0], source=source
        ),
        ids,
        times,
        ids,
        ids,
        st.lists(ids, min_size=2, max_size=3, unique=True).map(tuple),
        source,
        st.booleans(),
    ),
)


def export(cli, url, kind, out):
    return cli(kind, "export", "--store", url, "--out", str(out), "--json").data


def test_any_records_come_back_equal(cli, tmp_path):
    rounds = iter(range(1000))

    @settings(
        max_examples=12,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(
        st.lists(interactions, max_size=4, unique_by=lambda i: i.id),
        st.lists(feedback, max_size=4, unique_by=lambda e: e.id),
    )
    def law(some_interactions, some_feedback):
        here = tmp_path / str(next(rounds))
        with open_store(str(here / "a")) as first, open_store(str(here / "b")) as second:
            first.log.append(*some_interactions, *some_feedback)
            kinds: Any = (("interactions", Interaction), ("feedback", Feedback))
            for kind, record_type in kinds:
                out = here / f"{kind}.jsonl"
                export(cli, str(here / "a"), kind, out)
                expected = [record for _, record in first.log.read(record_type)]
                if expected:
                    assert events.format_of(out) == kind
                report = events.import_events(out, kind, second.log, TERMS)
                assert report.read.total() == len(expected)
                assert [record for _, record in second.log.read(record_type)] == expected
                assert not report.counts

    law()


ASKED = (Message(Role.USER, "Hi"),)
CALL = draft_interaction(ASKED, id="call-1", subject="5" * 32, version="m", sampling=Sampling())
CALL = replace(CALL, time=1e9, answer="Hello", finish_reason="stop")


def test_an_answer_without_its_text_comes_back_as_it_is(cli, tmp_path):
    redacted = redact_record(CALL, str.upper)
    with open_store(str(tmp_path / "a")) as store:
        store.log.append(redacted)
    export(cli, str(tmp_path / "a"), "interactions", tmp_path / "out.jsonl")
    url = str(tmp_path / "b")
    found = cli("interactions", "import", str(tmp_path / "out.jsonl"), "--store", url, "--json").data
    assert (found["format"], found["interactions"], found["left_out"]) == ("interactions", 1, {})
    with open_store(url) as store:
        assert store.log.get(Interaction, "call-1") == redacted


RATING = {
    "seq": 1,
    "type": "rating",
    "id": "f",
    "time": 1.0,
    "target": "c",
    "subject": "s",
    "source": "rater",
}
CHANGES = [{"time": 1e300}, {"value": {"x": 10**30}}, {"id": 7}, {"x": 1}, {"source": "nobody"}]


@pytest.mark.parametrize("change", CHANGES)
def test_a_line_that_was_changed_beyond_its_type_is_refused(tmp_path, change):
    path = tmp_path / "changed.jsonl"
    path.write_text(json.dumps(RATING | {"name": "thumb", "value": True} | change) + "\n")
    with (
        open_store(str(tmp_path / "store")) as store,
        pytest.raises(DataError, match="cannot be imported"),
    ):
        events.import_events(path, "feedback", store.log, TERMS)

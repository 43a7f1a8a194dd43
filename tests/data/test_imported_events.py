"""Files of interactions and feedback: what each format becomes, what is left out, and hostile files."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from escultor.data.importers import events
from escultor.data.importers.session import EventReport, ImportSession
from escultor.data.jsonl_rows import Fault, Skip
from escultor.errors import DataError
from escultor.store.feedback import live
from escultor.types import (
    Choice,
    Consent,
    Correction,
    Feedback,
    Interaction,
    Rating,
    Remark,
    SourceKind,
)

HERE = Path(__file__).parent / "formats"
TERMS = events.ImportOptions(lambda name: f"hash({name})", Consent.EVAL_ONLY)


@pytest.fixture
def brought(store, tmp_path):
    """Imports rows as lines; returns the feedback, the interactions by id, and the report."""

    def bring(*rows, terms=TERMS, name=None):
        path = tmp_path / "events.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = name or events.format_of(path)
        assert found is not None
        return read(store, found, path, terms)

    return bring


def read(store, name, path, terms=TERMS):
    report = events.import_events(path, name, store.log, terms)
    feedback = [each for _, each in store.log.read(Feedback)]
    return feedback, {i.id: i for _, i in store.log.read(Interaction)}, report


def said(feedback):
    """What was said, in short: type, target, name or text, value, who."""
    return [
        (
            type(e).__name__,
            getattr(e, "target", None),
            getattr(e, "name", None) or getattr(e, "text", None),
            getattr(e, "value", getattr(e, "winner", None)),
            e.subject,
        )
        for e in feedback
    ]


OF_EVENTS = [
    p for p in sorted(HERE.iterdir()) if p.name.startswith(("open-webui", "langfuse", "interactions"))
]


@pytest.mark.parametrize("path", OF_EVENTS, ids=lambda p: p.name)
def test_every_fixture_tells_its_format(path):
    assert events.format_of(path) == path.stem


def test_rows_to_train_on_are_no_events():
    assert events.format_of(HERE / "sharegpt.json") is None
    assert events.format_of(HERE / "openai-chat.jsonl") is None


def test_open_webui(store):
    feedback, calls, report = read(store, "open-webui", HERE / "open-webui.json")
    assert [(e.id, type(e)) for e in feedback] == [
        ("owui-f1-1733000100", Rating),
        ("owui-f1-1733000100-score", Rating),
        ("owui-f1-1733000100-remark", Remark),
        ("owui-f1-1733000100-choice", Choice),
        ("owui-f2-1733000200", Rating),
        ("owui-f2-1733000200-remark", Remark),
        ("owui-f3-1733000300", Rating),
    ]
    choice = feedback[3]
    assert isinstance(choice, Choice)
    assert sorted(choice.shown_order) == ["c0ffee00/22aa", "c0ffee00/22bb"]
    assert choice.winner == "c0ffee00/22aa"
    rated = calls["c0ffee00/44aa"]
    assert [m.content for m in rated.messages] == [
        "What is the capital of France?",
        "Paris.",
        "And of Spain?",
    ]
    assert (rated.answer, rated.version, rated.consent) == ("Madrid.", "llama3.2:3b", Consent.EVAL_ONLY)
    assert (rated.subject, feedback[4].subject) == ("hash(u-owner)", "hash(u-other)")
    assert set(calls) == {"c0ffee00/22aa", "c0ffee00/22bb", "c0ffee00/44aa"}
    assert report.counts["no snapshot of the answer: feedback only"] == 1
    assert report.counts["it says nothing"] == 1


def test_langfuse(store):
    feedback, _, report = read(store, "langfuse", HERE / "langfuse.jsonl")
    found = [(type(e), e.target, getattr(e, "name", None), str(e.source)) for e in feedback]
    assert found == [
        (Rating, "trace-1", "helpfulness", "end_user"),
        (Rating, "trace-1", "thumb", "end_user"),
        (Remark, "trace-1", None, "end_user"),
        (Rating, "gen-7", "thumb", "end_user"),
        (Remark, "trace-1", None, "rater"),
        (Correction, "gen-7", None, "rater"),
        (Rating, "trace-1", "toxicity", "llm_judge"),
    ]
    assert feedback[1].subject == "hash(ann)"
    assert feedback[1].time == 1762161301.0
    assert report.thumbs == {"user-feedback"}
    assert report.counts["a score of a session, not of an answer"] == 1


def test_a_page_of_langfuses_api_stands_for_its_scores(store, tmp_path):
    scores = [json.loads(line) for line in (HERE / "langfuse.jsonl").read_text().splitlines()]
    path = tmp_path / "page.json"
    path.write_text(json.dumps({"data": scores, "meta": {"page": 1, "totalItems": 7}}, indent=1))
    assert events.format_of(path) == "langfuse"
    events.import_events(path, "langfuse", store.log, TERMS)
    assert store.log.count(Feedback) == 7


@pytest.mark.parametrize("path", OF_EVENTS, ids=lambda p: p.name)
def test_importing_again_adds_nothing_and_erased_answers_stay_out(store, path):
    feedback, calls, report = read(store, path.stem, path)
    again = read(store, path.stem, path)
    assert again[:2] == (feedback, calls)
    assert not again[2].read
    assert again[2].counts["already recorded"] == report.read.total() + report.counts["already recorded"]
    assert all(isinstance(e, Rating | Remark | Correction | Choice) for e in live(feedback).values())
    someone = next(iter([*calls.values(), *feedback])).subject
    store.log.erase(someone, by="a test")
    assert read(store, path.stem, path)[2].counts["erased on request"] > 0


def test_other_content_under_an_id_is_left_out_and_counted(store, tmp_path):
    read(store, "interactions", HERE / "interactions.jsonl")
    path = tmp_path / "changed.jsonl"
    path.write_text((HERE / "interactions.jsonl").read_text().replace("The Nile.", "The Po."))
    report = events.import_events(path, "interactions", store.log, TERMS)
    assert report.places[events.TAKEN] == ["call-1 (line 1)"]
    assert (report.read.total(), report.counts["already recorded"]) == (0, 1)


def test_one_broken_record_never_refuses_the_rest(store, tmp_path):
    path = tmp_path / "bad.jsonl"
    good = (HERE / "langfuse.jsonl").read_text()
    bad = [
        '{"id": "x", "name": "n", "traceId": "t", "dataType": "NUMERIC", "value": "high"}',
        "7",
        '{"id": "y", "x": ' + "[" * 5000,
    ]
    path.write_text("\n".join([bad[0], good.rstrip(), *bad[1:]]) + "\n")
    report = events.import_events(path, "langfuse", store.log, TERMS)
    assert (report.broken, store.log.count(Feedback)) == (3, 7)
    places = {reason: places for reason, places in report.places.items() if reason.startswith("broken: ")}
    assert sorted(p for each in places.values() for p in each) == ["line 10", "line 9", "x (line 1)"]
    assert any("`value` is not a number; got: 'high'" in reason for reason in places)


def test_a_file_of_which_nothing_can_be_read_is_refused_with_the_reasons(store, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"id": "x", "name": "n", "traceId": "t", "dataType": "NUMERIC", "value": "high"}\n{\n')
    with pytest.raises(DataError, match=r"(?s)cannot be imported.*x \(line 1\).*not a number.*line 2"):
        events.import_events(path, "langfuse", store.log, TERMS)


def test_a_file_that_was_cut_short_is_read_up_to_there(store, tmp_path):
    path = tmp_path / "cut.json"
    scores = [json.loads(line) for line in (HERE / "langfuse.jsonl").read_text().splitlines()]
    path.write_text(json.dumps(scores)[:-30])
    report = events.import_events(path, "langfuse", store.log, TERMS)
    assert report.read.total() == 6
    assert any("the array does not end" in reason for reason in report.counts)


# --- hostile rows -----------------------------------------------------------------------------

NAMES = [
    "id",
    "user_id",
    "type",
    "data",
    "meta",
    "chat_id",
    "message_id",
    "snapshot",
    "chat",
    "history",
    "messages",
    "rating",
    "updated_at",
    "name",
    "value",
    "traceId",
    "dataType",
    "stringValue",
    "role",
    "content",
    "time",
    "answer",
    "parentId",
    "childrenIds",
    "output",
    "originalContent",
    "key",
    "run_id",
    "score",
    "correction",
    "span_id",
    "annotator_kind",
    "result",
    "attributes",
    "context",
    "info",
    "assessments",
    "trace_id",
    "feedback",
    "source",
    "request_body",
    "response_body",
    "scores",
    "fields",
    "responses",
    "suggestions",
    "annotations",
    "generations",
    "ratings",
    "choices",
    "prompt",
    "instruction",
    "response_1",
    "response_2",
    "annotation",
    "user",
    "userId",
    "sessionId",
    "subject",
    "kind",
    "input",
    "llm",
    "metadata",
    "observations",
    "comments",
    "spans",
    "history",
    "feedbackId",
    "run_type",
    "inputs",
    "outputs",
    "observationId",
    "value",
]
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["rating", *NAMES]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=25,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), anything, max_size=8))
def test_no_row_breaks_a_parser(row):
    for format in events.EVENTS.values():
        session = ImportSession(lambda name: f"hash({name})")
        session.survey.decide("rating")
        format.matches(row)
        try:
            made = list(format.parse(row, session))
        except (Fault, Skip):
            continue
        assert all(isinstance(record, Interaction | Feedback) for record in made)


def paths_of(value, path=()):
    """The places of a JSON value at which something stands."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths_of(inner, (*path, key))


def changed(value, path, new):
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


def rows_in(path):
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


SAMPLES = [row for path in OF_EVENTS for row in rows_in(path)]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_export_never_breaks_a_parser(data):
    row = data.draw(st.sampled_from(SAMPLES))
    path = data.draw(st.sampled_from(sorted(paths_of(row), key=repr)))
    row = changed(row, path, data.draw(anything)) if path else {}
    for format in events.EVENTS.values():
        if format.matches(row):
            session = ImportSession(lambda name: f"hash({name})")
            try:
                made = list(format.parse(row, session))
            except (Fault, Skip):
                continue
            assert all(isinstance(record, Interaction | Feedback) for record in made)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("latency_ms", 1e300),
        ("cost_usd", 1e13),
        ("usage", {"prompt_tokens": 10**30}),
        ("sampling", {"seed": 1 << 63}),
        ("sampling", {"max_new_tokens": 10**30}),
    ],
)
def test_a_call_with_a_figure_that_no_sum_could_hold_is_refused(store, tmp_path, key, value):
    (row, *_) = (HERE / "interactions.jsonl").read_text().splitlines()
    path = tmp_path / "calls.jsonl"
    path.write_text(json.dumps(json.loads(row) | {key: value}))
    with pytest.raises(DataError, match=f"`{key}"):
        events.import_events(path, "interactions", store.log, TERMS)


def test_texts_are_not_kept_where_they_may_not_be(store):
    terms = replace(TERMS, redacted=lambda e: replace(e, text="") if isinstance(e, Remark) else e)
    feedback, _, report = read(store, "langfuse", HERE / "langfuse.jsonl", terms)
    assert [e.text for e in feedback if isinstance(e, Remark)] == ["", ""]
    assert report.counts[events.WITHOUT_TEXT] == 2


def test_the_source_of_a_score_is_who_made_it():
    score = json.loads((HERE / "langfuse.jsonl").read_text().splitlines()[0])
    for source, kind in (("EVAL", SourceKind.LLM_JUDGE), ("ANNOTATION", SourceKind.RATER)):
        session = ImportSession(str, report=EventReport())
        (made,) = events.EVENTS["langfuse"].parse(score | {"source": source}, session)
        assert made.source is kind  # pyright: ignore


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(OF_EVENTS), st.data())
def test_a_damaged_file_is_read_or_refused_in_plain_words(store, tmp_path, path, data):
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole)))
    cut = data.draw(st.integers(0, 40))
    new = data.draw(st.binary(max_size=8) | st.sampled_from([b"[", b"]", b'"', b"\\", b"{}", b"\n", b"null"]))
    damaged = tmp_path / "damaged.json"
    damaged.write_bytes(whole[:at] + new + whole[at + cut :])
    with suppress(DataError):
        events.format_of(damaged)
    with suppress(DataError):
        events.import_events(damaged, path.stem, store.log, TERMS)

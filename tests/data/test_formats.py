"""Files of other programs: each format by a fixture in its real shape; files that are broken or mean harm."""

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.data.importers import formats
from escultor.data.importers.json_values import values
from escultor.data.jsonl import read_jsonl
from escultor.data.jsonl_rows import Fault, Skip, kind_of_row
from escultor.errors import DataError
from escultor.ids import plain
from escultor.store import open_store
from escultor.store.feedback import live
from escultor.types import Choice, Consent, Correction, Feedback, Interaction, Rating, Remark, SourceKind

HERE = Path(__file__).parent / "formats"
TERMS = formats.ImportOptions(lambda name: f"hash({name})", Consent.EVAL_ONLY)


@pytest.mark.parametrize("path", sorted(HERE.iterdir()), ids=lambda p: p.name)
def test_every_fixture_tells_its_format(path):
    assert path.stem.startswith(formats.format_of(path))


# --- rows -------------------------------------------------------------------------------------


def rows(name, file, tmp_path, kind):
    report = formats.import_rows(HERE / file, name, tmp_path / "out.jsonl")
    return read_jsonl(tmp_path / "out.jsonl", kind).items, report


def told(prompt):
    return [(str(m.role), m.content) for m in prompt]


def test_openai_chat(tmp_path):
    items, report = rows("openai-chat", "openai-chat.jsonl", tmp_path, "example")
    assert [item.response for item in items] == [
        "Paris, as if everyone doesn't know that already.",
        "Shakespeare.",
        "",
    ]
    assert told(items[1].prompt)[:2] == [("developer", "Be brief."), ("user", "Who wrote Hamlet?")]
    assert [call.name for call in items[2].extras.tool_calls] == ["weather"]
    assert report.skipped == {"every answer is empty or of weight 0": [4]}
    assert report.counts["kept"] == 3


def test_openai_preference(tmp_path):
    (pair,), _ = rows("openai-preference", "openai-preference.jsonl", tmp_path, "pair")
    assert pair.chosen.startswith("Today in San Francisco")
    assert pair.rejected.startswith("It is not particularly")
    assert pair.origin.rule == "import/pair/1"


def test_sharegpt(tmp_path):
    items, report = rows("sharegpt", "sharegpt.json", tmp_path, "example")
    assert [item.response for item in items] == ["The Ebro.", "My pleasure."]
    assert told(items[0].prompt)[1] == ("assistant", "The Nile.")
    assert told(items[1].prompt)[0] == ("system", "Be kind.")
    assert report.skipped == {"tool calls": [37]}


@pytest.mark.parametrize(
    ("file", "kind", "n"), [("kto", "unpaired", 2), ("preference", "pair", 2), ("completion", "example", 1)]
)
def test_trl(tmp_path, file, kind, n):
    items, _ = rows("trl", f"trl-{file}.jsonl", tmp_path, kind)
    assert len(items) == n


def test_a_broken_row_is_named_by_line_and_nothing_is_written(tmp_path):
    path = tmp_path / "in.jsonl"
    good = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    lines = [
        json.dumps(good),
        '{"conversations": 7}',
        "{",
        '{"conversations": [{"from": "cat", "value": ""}]}',
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        formats.import_rows(path, "sharegpt", tmp_path / "out.jsonl")
    for part in (
        f"{path}:2: `conversations` is of the wrong type",
        f"{path}:3: ",
        f"{path}:4: a turn is from an unknown role",
    ):
        assert part in str(caught.value)
    assert not (tmp_path / "out.jsonl").exists()


# --- events -----------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    with open_store(str(tmp_path / "store")) as opened:
        yield opened


def brought(store, name, file, terms=TERMS):
    report = formats.import_events(HERE / file, name, store.log, terms)
    return [e for _, e in store.log.read(Feedback)], {i.id: i for _, i in store.log.read(Interaction)}, report


def test_open_webui(store):
    feedback, calls, report = brought(store, "open-webui", "open-webui.json")
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
    assert choice.shown_order == ("c0ffee00/22aa", "c0ffee00/22bb")
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
    terms = formats.ImportOptions(TERMS.subject_of, thumb="user-feedback")
    feedback, _, report = brought(store, "langfuse", "langfuse.jsonl", terms)
    said = [
        (type(e), e.target, getattr(e, "name", None), str(e.source))
        for e in feedback
        if not isinstance(e, Choice)
    ]
    assert said == [
        (Rating, "trace-1", "helpfulness", "end_user"),
        (Rating, "trace-1", "thumb", "end_user"),
        (Remark, "trace-1", None, "end_user"),
        (Rating, "gen-7", "thumb", "end_user"),
        (Correction, "gen-7", None, "rater"),
        (Rating, "trace-1", "toxicity", "llm_judge"),
    ]
    assert feedback[1].subject == "hash(ann)"
    assert feedback[1].time == 1762161301.0
    assert report.skipped == {
        "a score of type 'CATEGORICAL' without comment": [4], "a score of a session or of a run": [6],
    }  # fmt: skip


def test_a_page_of_langfuses_api_stands_for_its_scores(store, tmp_path):
    scores = [json.loads(line) for line in (HERE / "langfuse.jsonl").read_text().splitlines()]
    path = tmp_path / "page.json"
    path.write_text(json.dumps({"data": scores, "meta": {"page": 1, "totalItems": 7}}))
    assert formats.format_of(path) == "langfuse"
    formats.import_events(path, "langfuse", store.log, TERMS)
    assert store.log.count(Feedback) == 6


def test_interactions_come_back_as_they_were_exported(store, tmp_path):
    _, calls, _ = brought(store, "interactions", "interactions.jsonl")
    assert calls["call-1"].subject == "hash(ann)"
    assert calls["call-2"].lineage is not None
    exported = tmp_path / "out.jsonl"
    fit = [plain(c) | {"subject": "5" * 32} for c in calls.values()]
    exported.write_text("".join(json.dumps(row) + "\n" for row in fit))
    with open_store(str(tmp_path / "other")) as other:
        formats.import_events(exported, "interactions", other.log, TERMS)
        assert [plain(i) for _, i in other.log.read(Interaction)] == fit


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("open-webui", "open-webui.json"),
        ("langfuse", "langfuse.jsonl"),
        ("interactions", "interactions.jsonl"),
    ],
)
def test_importing_again_changes_nothing_and_erased_calls_stay_out(store, name, file):
    feedback, calls, report = brought(store, name, file)
    again = brought(store, name, file)
    assert (again[0], again[1]) == (feedback, calls)
    assert again[2].counts == report.counts
    assert all(isinstance(e, Rating | Remark | Correction | Choice) for e in live(feedback).values())
    someone = next(iter([*calls.values(), *feedback])).subject
    store.log.erase(someone, by="a test")
    assert brought(store, name, file)[2].counts["erased on request"] > 0


def test_other_content_under_an_id_is_left_out_and_counted(store, tmp_path):
    brought(store, "interactions", "interactions.jsonl")
    path = tmp_path / "changed.jsonl"
    path.write_text((HERE / "interactions.jsonl").read_text().replace("The Nile.", "The Po."))
    report = formats.import_events(path, "interactions", store.log, TERMS)
    assert report.skipped == {"the id holds other content": [1]}
    assert report.counts["interactions"] == 1


def test_a_broken_event_stops_the_import_before_anything_is_kept(store, tmp_path):
    path = tmp_path / "bad.jsonl"
    good = (HERE / "langfuse.jsonl").read_text()
    path.write_text(
        good
        + '{"id": "x", "name": "n", "traceId": "t", "value": "high", "timestamp": "2025-11-03"}\n[1]\n'
        + "[" * 5000
        + "\n"
    )
    with pytest.raises(DataError) as caught:
        formats.import_events(path, "langfuse", store.log, TERMS)
    for part in (f"{path}:8: `value` is not a number", f"{path}:9: the row is not an object", f"{path}:10: "):
        assert part in str(caught.value)
    assert store.log.count(Feedback) == 0


# --- hostile rows and files -------------------------------------------------------------------

NAMES = """id user_id type data meta chat_id message_id snapshot chat history messages rating updated_at name
    value traceId dataType stringValue conversations from role content input preferred_output time answer"""
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("rating"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=5)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(anything)
def test_no_row_breaks_an_importer(row):
    row = row if isinstance(row, dict) else {"messages": row}
    for convert in formats.ROWS.values():
        with suppress(Fault, Skip):
            kind_of_row(convert(row))
    for name in formats.EVENTS:
        made = formats._records(_maker(name), row, 1, formats.ImportReport())
        assert all(isinstance(record, Interaction | Feedback | Fault) for _, record in made)


def _maker(name):
    from functools import partial

    from escultor.data.importers.interactions import parse_interaction
    from escultor.data.importers.langfuse import parse_score
    from escultor.data.importers.open_webui import parse_feedback

    owui = partial(parse_feedback, subject_of=str, consent=Consent.TRAIN, counts=Counter())
    return {
        "open-webui": owui,
        "langfuse": lambda row: parse_score(row, str, None),
        "interactions": lambda row: [parse_interaction(row, str)],
    }[name]


def test_the_source_of_a_score_is_who_made_it():
    from escultor.data.importers.langfuse import parse_score

    score = json.loads((HERE / "langfuse.jsonl").read_text().splitlines()[0])
    for source, kind in (("EVAL", SourceKind.LLM_JUDGE), ("ANNOTATION", SourceKind.RATER)):
        assert parse_score(score | {"source": source}, str, None)[0].source is kind


# --- values -----------------------------------------------------------------------------------

documents = st.lists(st.dictionaries(st.text(max_size=5), anything, max_size=3), max_size=6)


@settings(max_examples=150, deadline=None)
@given(documents, st.booleans(), st.integers(1, 7), st.sampled_from([None, 1]))
def test_values_are_found_in_any_cut_of_lines_and_arrays(rows, array, size, indent):
    rows = json.loads(json.dumps(rows).replace("NaN", "0").replace("-Infinity", "0").replace("Infinity", "0"))
    text = json.dumps(rows, indent=indent) if array else "".join(json.dumps(row) + "\n" for row in rows)
    data = b"\xef\xbb\xbf" + text.encode()
    found = list(values((data[k : k + size] for k in range(0, len(data), size)), "a file"))
    assert [json.loads(value) for _, value in found] == rows
    lines = text.split("\n")
    assert all(lines[line - 1].strip()[:1] in (*"{[",) for line, _ in found)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'[{"a": 1}, {"b"', "the array does not end"),
        (b'[{"a": 1}] {"b": 2}', "something follows the array"),
        (b'["' + b"x" * 5000, "the value is too large"),
        (b'{"a": "' + b"x" * 5000, "the value is too large"),
    ],
)
def test_what_is_cut_short_or_too_large_is_refused(data, problem):
    with pytest.raises(DataError, match=problem):
        list(values([data], "a file", most=1000))


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
        formats.import_events(path, "interactions", store.log, TERMS)

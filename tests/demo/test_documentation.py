import json
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.demo.documentation import (
    HELD_OUT_SHARE,
    MAX_BODY_CHARS,
    TRAFFIC_SHARE,
    documents,
    domain_of,
    golds,
    is_held_out,
    is_traffic,
    raw_document,
)
from escultor.demo.python_docs import DocEntry
from escultor.errors import DataError, InputError
from escultor.skills.trinity import (
    FIELDS,
    MAX_ENTITIES,
    PURPOSES,
    Trinity,
    mentioned_names,
    parse_trinity,
    prompt_for,
    purpose_of,
    write_trinity,
)

BODY = "Keys are compared by `ordering` and looked up in json.decoder, in an OrderedDict where one is absent."


def entry(name="json.tool.load", summary="Load a document from a file.", body=BODY, kind="function"):
    return DocEntry("json", name, kind, f"{name}(path)", f"{summary}\n\n{body}" if body else summary)


# --- gold -------------------------------------------------------------------------------------


def test_a_gold_holds_what_the_author_wrote():
    (gold,) = golds([entry()])
    assert gold.document == f"json.tool.load(path)\n\n{BODY}"
    assert gold.trinity == Trinity(
        entity="json.tool.load",
        domain="text",
        purpose="reference",
        entities=("ordering", "json.decoder", "OrderedDict"),
        summary="Load a document from a file.",
    )
    example = gold.example()
    assert example.prompt == prompt_for(gold.document)
    assert parse_trinity(example.response) == gold.trinity
    assert example.origin.parents == (gold.id,)


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (entry(kind="module"), "not public"),
        (entry(name="json._tool.load"), "not public"),
        (entry(name="json.tool.__init__"), "not public"),
        (entry(summary="Load."), "summary too short or long"),
        (entry(summary="Load a " + "very " * 30 + "long one."), "summary too short or long"),
        (entry(summary="Load a document from a file"), "summary is no sentence"),
        (entry(summary="load a document from a file."), "summary is no sentence"),
        (entry(summary="Load a document from a café."), "summary is no sentence"),
        (entry(body="Too little."), "no body"),
        (entry(body=""), "no body"),
    ],
)
def test_every_refusal_is_counted_by_its_reason(refused, reason):
    counts = Counter()
    assert len(golds([refused, entry()], counts)) == 1
    assert counts == {reason: 1, "kept": 1}


def test_a_summary_is_kept_twice_and_no_more():
    counts = Counter()
    assert len(golds([entry(name=f"json.f{i}") for i in range(5)], counts)) == 2
    assert counts == {"kept": 2, "summary repeated": 3}


def test_golds_are_named_by_content():
    one, same, other = (golds([entry(name=name)])[0].id for name in ("json.a", "json.a", "json.b"))
    assert one == same != other


@settings(deadline=None)
@given(st.text(max_size=3000), st.text("abc ,=", max_size=300))
def test_a_raw_document_is_bounded_and_begins_with_its_name(body, arguments):
    made = DocEntry("json", "json.f", "function", f"json.f({arguments})", f"Summary.\n\n{body}")
    text = raw_document(made)
    signature, _, rest = text.partition("\n\n")
    assert signature.startswith("json.f(")
    assert len(signature) <= 106
    assert len(rest) <= MAX_BODY_CHARS


def test_documents_are_each_entry_and_a_record_where_there_is_a_summary():
    made = documents([entry(), entry(name="json.f", body="")])
    assert [d.origin.rule for d in made] == ["documentation/1", "documentation-record/1", "documentation/1"]
    assert made[0].text == f"json.tool.load(path)\n\n{entry().doc}"
    record = made[1].text
    assert record.startswith(raw_document(entry()))
    for line in (
        ":name: json.tool.load",
        ":domain: text",
        ":purpose: reference",
        ":summary: Load a document",
    ):
        assert line in record
    assert {d.origin.parents for d in made} == {("json:json.tool.load",), ("json:json.f",)}


# --- what is held out -------------------------------------------------------------------------


def test_a_package_is_held_out_by_its_name_alone_and_whole():
    sides = {package: is_held_out(package) for package in (f"package{i}" for i in range(2000))}
    assert {package: is_held_out(package) for package in reversed(sides)} == sides
    assert abs(sum(sides.values()) / len(sides) - HELD_OUT_SHARE) < 0.03


def test_traffic_is_a_share_of_the_documents():
    found = golds([entry(name=f"json.f{i}", summary=f"Load the document number {i}.") for i in range(1000)])
    assert abs(sum(map(is_traffic, found)) / len(found) - TRAFFIC_SHARE) < 0.04


def test_a_domain_is_one_of_the_known_ones():
    assert domain_of("json") == "text"
    assert domain_of("no_such_package") == "other"
    assert {
        domain_of(name) for name in ("numpy", "torch", "csv", "http", "os", "ast", "re", "pytest", "pip")
    } == {"math", "ai-ml", "data", "web", "systems", "language", "text", "testing", "tools"}


# --- rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("See :class:`~queue.Queue` and ``dict_items``.", ("queue.Queue", "dict_items")),
        ("Like os.path, OrderedDict and snake_case.", ("os.path", "OrderedDict", "snake_case")),
        ("Plain words, a Capital, and ab.", ()),
        ("`twice` and `twice` again", ("twice",)),
        ("`one1` `two2` `three` `four` `five`", ("one1", "two2", "three", "four")),
        (f"`{'long' * 20}`", ()),
    ],
)  # fmt: skip
def test_mentions_are_names_in_order_each_once(text, names):
    assert mentioned_names(text) == names


def test_a_documents_own_name_is_no_mention():
    assert mentioned_names("`load` from `json.tool.load` and `dump`", own_name="json.tool.load") == ("dump",)


@given(st.text(max_size=300))
def test_mentions_stand_in_the_text(text):
    found = mentioned_names(text)
    assert len(found) <= MAX_ENTITIES
    assert all(name in text and 2 < len(name) <= 40 for name in found)


@pytest.mark.parametrize(
    ("text", "purpose"),
    [
        (">>> f(1)\n2", "education"),
        ("For instance, a file.", "education"),
        ("Writes the log to a directory.", "operational"),
        ("Set an environment variable.", "operational"),
        ("Return the profile of x.", "reference"),
        ("Sequence of samples.", "reference"),
    ],
)
def test_a_purpose_follows_from_stated_rules(text, purpose):
    assert purpose_of(text) == purpose


# --- trinity ----------------------------------------------------------------------------------

filled = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(str.strip)
some_names = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=10), max_size=5).map(tuple)
trinities = st.builds(Trinity, filled, filled, st.sampled_from(PURPOSES), some_names, filled)
GOOD = Trinity("json.load", "text", "reference", ("dict_items",), "Load a document.")


@given(trinities)
def test_an_answer_is_read_as_it_was_written(trinity):
    assert parse_trinity(trinity.to_json()) == trinity
    assert list(json.loads(trinity.to_json())) == list(FIELDS)
    assert "\n" not in trinity.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entity": ""}, "`entity` is no text"),
        ({"summary": " "}, "`summary` is no text"),
        ({"domain": 1}, "`domain` is no text"),
        ({"purpose": "fun"}, "`purpose` is not known; got: 'fun'"),
        ({"purpose": []}, "`purpose` is not known"),
        ({"entities": "a"}, "`entities` is no list"),
        ({"entities": [1]}, "`entities` is no list"),
        ({"entities": [""]}, "`entities` is no list"),
        ({"extra": 1}, "wrong fields"),
    ],
)
def test_an_answer_with_a_wrong_field_is_refused(change, message):
    with pytest.raises(DataError, match=message):
        parse_trinity(json.dumps(json.loads(GOOD.to_json()) | change))


@pytest.mark.parametrize(
    "answer", ["", "{", "[]", "null", "{}", GOOD.to_json() + "x", f"```{GOOD.to_json()}```"]
)
def test_an_answer_that_is_no_object_is_refused(answer):
    with pytest.raises(DataError, match=r"no JSON|wrong fields"):
        parse_trinity(answer)


@given(st.text(max_size=50))
def test_any_answer_is_read_or_refused(text):
    with suppress(DataError):
        assert isinstance(parse_trinity(text), Trinity)


def test_a_trinity_is_three_files_side_by_side(tmp_path):
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    paths = write_trinity(GOOD, "The document.", tmp_path / "out", now)
    assert [p.name for p in paths] == ["json.load.md", "json.load.llm.json", "json.load.meta.json"]
    markdown, model, machine = (path.read_text(encoding="utf-8") for path in paths)
    assert markdown == "# json.load\n\nLoad a document.\n\nThe document.\n"
    assert json.loads(model) == {
        "summary": "Load a document.",
        "entities": ["dict_items"],
        "purpose": "reference",
    }
    assert json.loads(machine) == {
        "domain": "text",
        "entity": "json.load",
        "timestamp": "2026-01-02T03:04:05+00:00",
    }


@pytest.mark.parametrize("entity", ["../../etc/passwd", "/", "a b\n", "..", "x" * 300])
def test_a_trinitys_files_stay_in_their_folder(tmp_path, entity):
    paths = write_trinity(
        Trinity(entity, "text", "reference", (), "Say it."), "The document.", tmp_path / "out"
    )
    assert {path.parent for path in paths} == {tmp_path / "out"}
    assert sorted((tmp_path / "out").iterdir()) == sorted(paths)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_trinity_that_is_there_is_not_written_over(tmp_path):
    paths = write_trinity(GOOD, "The document.", tmp_path)
    with pytest.raises(InputError, match=r"json\.load\.md is there already.*another folder"):
        write_trinity(GOOD, "Another.", tmp_path)
    assert "The document." in paths[0].read_text(encoding="utf-8")
    assert sorted(tmp_path.iterdir()) == sorted(paths)

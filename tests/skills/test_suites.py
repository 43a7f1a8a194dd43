"""Suites as files: what they say decides the id, and nothing unusable gets through."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.datasets.held_out import held_out_hashes
from escultor.errors import DataError, StoreError
from escultor.ids import hash_value
from escultor.skills import suites
from escultor.skills.suite_files import read_suite
from escultor.skills.table import METRICS, ModelOutput
from escultor.store import open_store
from escultor.types import Message, Role, Sampling, Suite, SuiteItem


def write(folder, text, name="suite.yaml"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


CAPITALS = """
name: capitals
metrics: [exact_match, f1]
decoding: {max_new_tokens: 8}
items:
  - {id: fr, prompt: "The capital of France?", reference: Paris, labels: {continent: Europe}}
  - {id: pe, prompt: [{role: user, content: "And of Peru?"}], reference: [Lima, "Ciudad de los Reyes"],
     cluster: south, labels: {continent: America}}
"""


SHOWN = """[{role: user, content: "And of Peru?"}, {role: assistant, content: Lima},
            {role: user, content: "and of PERU?"}]"""


def test_a_suite_is_read_from_yaml(tmp_path):
    suite = read_suite(write(tmp_path, CAPITALS))
    assert (suite.record.name, suite.record.skill, suite.record.items) == ("capitals", "chat", 2)
    assert suite.record.decoding == Sampling(max_new_tokens=8)
    assert suite.items[1].references == ("Lima", "Ciudad de los Reyes")
    assert suite.clusters == ("fr", "south")
    assert suite.record.metrics == {name: METRICS[name].scale for name in ("exact_match", "f1")}


def test_items_may_lie_in_a_file_of_their_own_or_behind_the_header(tmp_path):
    rows = [
        {"id": "a", "prompt": "one?", "reference": "two"},
        {"id": "b", "prompt": "x\u2028?", "reference": "y"},
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write(tmp_path, lines, "items.jsonl")
    header = {"name": "two", "metrics": ["f1"]}
    split = read_suite(write(tmp_path, "name: two\nmetrics: [f1]\nitems: items.jsonl\n"))
    joined = read_suite(write(tmp_path, json.dumps(header) + "\n" + lines, "whole.jsonl"))
    assert split == joined


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("fr", "pe"), "given twice"),
        (("reference: Paris,", ""), "f1 needs `reference`, which 1 items lack, such as 'fr'"),
        (("[exact_match, f1]", "[bleu]"), "no metric `bleu`; known: accuracy"),
        (("[exact_match, f1]", "[]"), "metrics"),
        (("[exact_match, f1]", "[schema_valid]"), "needs a `schema`"),
        (("{max_new_tokens: 8}", "{temperature: .nan}"), "temperature"),
        (("{max_new_tokens: 8}", "{max_new_tokens: 0}"), "max_new_tokens"),
        (("labels: {continent: Europe}", "labels: {planet: Earth}"), "different labels"),
        (("reference: Paris", "refrence: Paris"), "refrence"),
        (("reference: Paris", "reference: 3"), "reference"),
        (('"The capital of France?"', '" "'), "asks nothing"),
        (
            ('[{role: user, content: "And of Peru?"}]', SHOWN),
            "item 'pe' asks what one of its own examples answers",
        ),
        (("reference: Paris", "choices: [a, a], right: 2, reference: Paris"), "number 2 of 2"),
        (("metrics:", "seeds: [0, 1]\nmetrics:"), "would give the same answer"),
        (("metrics:", "seeds: [1, 1]\nmetrics:"), "each once"),
        (("name: capitals", "name: lm-eval:x"), "name"),
        (("[exact_match, f1]", "[f1, {f1: {}}]"), "metric"),
        (("[exact_match, f1]", "[{numeric_answer: {tolerance: -1}}]"), "tolerance"),
        (("[exact_match, f1]", "[{numeric_answer: {toleranz: 1}}]"), "toleranz"),
        (("[exact_match, f1]", "[{name: x, python: 'os:getcwd'}]"), "with `options` alone"),
        (("[exact_match, f1]", "[exact_match, {exact_match: {ignore_case: true}}]"), "given twice"),
        (("{max_new_tokens: 8}", "{stop: ['']}"), "empty text"),
        (("metrics:", "extract: '(a)(b)'\nmetrics:"), "one at most"),
        (("metrics:", "extract: '(?=a)'\nmetrics:"), "linear time"),
        (("items:", "items: nothing.jsonl\nrest:"), "rest"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(tmp_path, change, said):
    with pytest.raises(DataError, match=r"(?s).*" + said.replace("(", r"\(")):
        read_suite(write(tmp_path, CAPITALS.replace(*change)))


@pytest.mark.parametrize(
    "text", ["", "- 1", "name: x\nmetrics: [f1]", "{", "name: x\nmetrics: [f1]\nitems: gone.jsonl"]
)
def test_no_suite_and_an_empty_one_are_refused(tmp_path, text):
    with pytest.raises(DataError):
        read_suite(write(tmp_path, text))
    with pytest.raises(DataError):
        read_suite(tmp_path / "nowhere.yaml")
    with pytest.raises(DataError, match="no JSON"):
        read_suite(write(tmp_path, '{"name": "x", "metrics": ["f1"]}\n{"id": NaN}\n', "x.jsonl"))


def test_options_of_metrics_stops_and_extraction_are_part_of_a_suite_and_come_back_from_the_store(tmp_path):
    text = CAPITALS.replace(
        "[exact_match, f1]",
        "[{exact_match: {ignore_case: true}}, {name: strict, metric: exact_match, options: {}}]",
    )
    plain = read_suite(write(tmp_path, CAPITALS))
    suite = read_suite(write(tmp_path, text))
    parted = read_suite(
        write(tmp_path, "extract: '[A-Z]+'\n" + text.replace("tokens: 8", "tokens: 8, stop: [x]"))
    )
    assert len({plain.id, suite.id, parted.id}) == 3
    assert (plain.record.definitions, plain.record.stop, plain.record.extract) == ("", (), "")
    with open_store(str(tmp_path / "store")) as store:
        for each in (suite, parted):
            suites.register(store, each)
            found = suites.registered_suite(store, each.id)
            assert found == each
            assert found is not None
            metrics = [found.metric(name) for name in found.record.metrics]
            assert [m and m.score(ModelOutput("paris"), each.items[0]) for m in metrics] == [1.0, 0.0]
    assert parted.parts.extracted("aBCdEF") == "EF"
    assert parted.parts.extracted("none") is None


items = st.lists(
    st.builds(
        SuiteItem,
        st.text(min_size=1),
        st.lists(
            st.builds(Message, st.sampled_from(Role), st.text("a\n\u2028é", min_size=1)), min_size=1
        ).map(tuple),
        st.text(min_size=1),
        references=st.lists(st.text(), min_size=1, max_size=2).map(tuple),
        document=st.none() | st.text(),
    ).filter(
        lambda item: any(m.content.strip() for m in item.prompt) and not suites._shows_its_own_question(item)
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda item: item.id,
)


@settings(max_examples=40, deadline=None)
@given(items)
def test_what_is_registered_comes_back_as_it_was(tmp_path_factory, items):
    suite = suites.make_suite("x", "chat", items, ["f1"], Sampling())
    with open_store(str(tmp_path_factory.mktemp("store"))) as store:
        suites.register(store, suite)
        suites.register(store, suite)
        assert store.log.count(Suite) == 1
        assert suites.registered_suite(store, "x") == suites.registered_suite(store, suite.id) == suite
        assert suites.registered_suite(store, "y") is None
        assert {hash_value(item.prompt) for item in items} <= held_out_hashes(store)


def test_whatever_decides_a_score_decides_the_id(tmp_path):
    one = read_suite(write(tmp_path, CAPITALS)).id
    for change in (("Paris", "paris"), ("f1", "chrf"), ("8", "9"), ("cluster: south", "cluster: north")):
        assert read_suite(write(tmp_path, CAPITALS.replace(*change))).id != one


def test_the_suite_last_registered_under_a_name_is_the_one_meant(tmp_path):
    with open_store(str(tmp_path / "store")) as store:
        for text in (CAPITALS, CAPITALS.replace("Paris", "Lutetia")):
            suites.register(store, read_suite(write(tmp_path, text)))
        found = suites.registered_suite(store, "capitals")
        assert found is not None
        assert found.items[0].references == ("Lutetia",)
        blob = store.blobs.root / "bytes" / found.record.blob[:2] / found.record.blob
        blob.chmod(0o644)
        blob.write_bytes(b"{}")
        with pytest.raises(StoreError, match="damaged"):
            suites.registered_suite(store, "capitals")


PLACES = ("harbour", "market", "old town hall", "railway museum", "northern hospital", "river garden")
ASKED = "Name the street where visitors of the city find the entrance of the {} and since when it is open."
REWORDED = f"Please {ASKED[0].lower()}{ASKED[1:-1]}!"


@pytest.mark.parametrize(
    ("wording", "places", "is_same"),
    [
        (REWORDED, PLACES, True),
        (REWORDED, PLACES[:2], True),
        ("Which bus line stops closest to the {} on Sundays?", PLACES, False),
    ],
)
def test_reworded_questions_make_no_other_suite_for_the_budget_of_analyses(
    tmp_path, wording, places, is_same
):
    def suite(name, wording, places):
        items = [
            {"id": f"{name}{n}", "prompt": wording.format(each), "reference": "x"}
            for n, each in enumerate(places)
        ]
        return read_suite(write(tmp_path, json.dumps({"name": name, "metrics": ["f1"], "items": items})))

    one, two = suite("a", ASKED, PLACES), suite("b", wording, places)
    with open_store(str(tmp_path / "store")) as store:
        suites.register(store, one)
        suites.register(store, two)
        assert suites.suites_sharing_items(store, one.id, [two.id]) == ({two.id} if is_same else set())
        texts = {"outside": [wording.format(each) for each in places]}
        found = suites.suites_sharing_items(store, "outside", [one.id], texts)
        assert found == ({one.id} if is_same else set())


def test_a_blank_or_another_system_message_makes_no_other_suite_for_the_budget_of_analyses(tmp_path):
    one = read_suite(write(tmp_path, CAPITALS))
    asked = CAPITALS.replace("The capital of France?", "the  capital of France? ")
    two = read_suite(write(tmp_path, asked))
    with open_store(str(tmp_path / "store")) as store:
        for each in (one, two):
            suites.register(store, each)
        assert one.id != two.id
        assert suites.suites_sharing_items(store, one.id, [two.id]) == {two.id}

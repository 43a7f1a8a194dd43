"""Structured summaries: what the parser takes, what is unfaithful, what an answer that was cut becomes."""

import json

import pytest

from escultor.errors import DataError
from escultor.skills.catalog import built_in
from escultor.skills.synthesis import (
    KeyPoint,
    Synthesis,
    merge_syntheses,
    parse_synthesis,
    read_synthesis,
    unsupported,
)
from escultor.skills.table import ModelOutput
from escultor.types import SuiteItem

DOCUMENT = "Sales in 2024\n\nAna Silva sold 1,200 cats in 2024.\n\nThe shop of Rui Costa sold 30."
GOOD = Synthesis(
    "Sales in 2024",
    ("Ana Silva sold 1,200 cats.", "Rui Costa sold 30."),
    (KeyPoint("Ana Silva leads.", "She sold 1,200 cats in 2024."),),
)


def test_a_summary_is_read_as_it_was_written_and_shown_as_markdown():
    assert parse_synthesis(GOOD.to_json()) == GOOD
    assert read_synthesis(GOOD.to_json(), DOCUMENT) == (GOOD, ())
    assert GOOD.to_markdown().splitlines()[0] == "# Sales in 2024"
    assert "- **Ana Silva leads.** She sold" in GOOD.to_markdown()


@pytest.mark.parametrize(
    "change",
    [
        {"title": ""},
        {"title": "a\nb"},
        {"summary": ["one"]},
        {"summary": ["one", "two", "three"]},
        {"summary": ["one\n\nand a half", "two"]},
        {"key_points": []},
        {"key_points": [{"point": "a"}]},
        {"key_points": [{"point": "a", "context": " "}]},
        {"key_points": [{"point": "a", "context": "b"}, {"point": "A", "context": "c"}]},
        {"more": 1},
    ],
)
def test_what_has_another_structure_is_refused_and_scores_zero(change):
    answer = json.dumps(json.loads(GOOD.to_json()) | change)
    with pytest.raises(DataError):
        parse_synthesis(answer)
    skill = built_in("synthesize")
    item = SuiteItem("i", skill.prompt(DOCUMENT), "c")
    assert [skill.metric(name).score(ModelOutput(answer), item) for name in ("structure", "faithful")] == [
        0,
        0,
    ]


def test_names_and_numbers_that_the_document_has_not_are_unfaithful():
    wrong = Synthesis("Sales in 2023", ("Ana Silva sold 200.", "Eva Reis left."), GOOD.key_points)
    assert unsupported(GOOD, DOCUMENT) == []
    assert set(unsupported(wrong, DOCUMENT)) == {"2023", "200", "Eva Reis"}
    skill = built_in("synthesize")
    item = SuiteItem("i", skill.prompt(DOCUMENT), "c")
    faithful = skill.metric("faithful")
    assert faithful.score(ModelOutput(GOOD.to_json()), item) == 1.0
    assert 0 < faithful.score(ModelOutput(wrong.to_json()), item) < 1


@pytest.mark.parametrize("answer", ["", "no", '{"title": "Sal', '{"title": "a", "summary": ["b"', "[" * 9999])
def test_an_answer_that_was_cut_is_completed_from_the_document_and_says_so(answer):
    made, filled = read_synthesis(answer, DOCUMENT)
    assert parse_synthesis(made.to_json()) == made
    assert "key_points" in filled
    assert unsupported(made, DOCUMENT) == []


def test_sections_give_their_key_points_in_turn():
    parts = [Synthesis(t, ("a", "b"), tuple(KeyPoint(f"{t}{n}", "c") for n in range(6))) for t in ("x", "y")]
    merged = merge_syntheses(parts, GOOD)
    assert (merged.title, merged.summary) == ("x", GOOD.summary)
    assert [each.point for each in merged.key_points] == ["x0", "y0", "x1", "y1", "x2", "y2", "x3", "y3"]

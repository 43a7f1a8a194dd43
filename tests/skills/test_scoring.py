"""A Trinity's score: 1 for its author's own, 0 for what is no Trinity, one number per field between."""

import json
from dataclasses import replace

import pytest

from escultor.errors import DataError
from escultor.skills.trinity import METRICS, Trinity, lead_sentence, parse_trinity, score_trinity

GOLD = Trinity("json.dumps", "text", "reference", ("JSONEncoder", "skip_keys"), "Serialize to a string.")


def test_the_authors_own_answer_scores_one_in_everything():
    assert score_trinity(GOLD.to_json(), GOLD) == dict.fromkeys(METRICS, 1.0)


@pytest.mark.parametrize(
    "answer",
    ["", "null", "[]", "{}", GOLD.to_json()[:-1], GOLD.to_json() + "x", "[" * 5000, "1" * 5000,
     GOLD.to_json().replace("reference", "poetry"), GOLD.to_json()[:-1] + ', "more": 1}',
     GOLD.to_json()[:-1] + ', "entity": "twice"}', GOLD.to_json().replace("text", "\\ud800")],
)  # fmt: skip
def test_what_is_no_trinity_scores_zero_in_everything(answer):
    assert score_trinity(answer, GOLD) == dict.fromkeys(METRICS, 0.0)
    with pytest.raises(DataError):
        parse_trinity(answer)


def test_each_wrong_field_costs_its_own_share():
    wrong = replace(GOLD, entity="json.dump")
    score = score_trinity(wrong.to_json(), GOLD)
    assert (score["entity"], score["valid"], score["field_accuracy"], score["quality"]) == (
        0.0,
        1.0,
        0.75,
        0.8,
    )


def test_names_are_a_set_and_the_summary_is_measured_in_words():
    said = replace(GOLD, entities=("skip_keys", "skip_keys"), summary="serialize something")
    score = score_trinity(said.to_json(), GOLD)
    assert score["entities_f1"] == pytest.approx(2 / 3)
    assert score["rouge_l"] == pytest.approx(2 * 1 / (2 + 4))


def test_the_answer_is_one_line_of_json():
    assert "\n" not in GOLD.to_json()
    assert list(json.loads(GOLD.to_json())) == ["entity", "domain", "purpose", "entities", "summary"]


def test_the_lead_sentence_is_the_first_one_below_the_signature():
    assert lead_sentence("f(x)\n\nOne thing\nhere. And more.\n\nLast.") == "One thing here."
    assert lead_sentence("f(x)\n\nNo end") == "No end"

"""`evaluate`: any suite by its name, scores and answers in the store, nothing measured twice."""

import json

import pytest
from cli_rows import SMALL

from escultor.config import load_config
from escultor.cycle import api, evaluation_service
from escultor.evaluate.predictions import Predictions
from escultor.skills.probes import PROBES, probe_suite
from escultor.skills.suites import load_items
from escultor.store import open_store
from escultor.store.blobs import tree_hash
from escultor.types import Scores, Suite

SUITE = """
name: animals
metrics: [exact_match, answer_tokens]
decoding: {max_new_tokens: 3}
items:
  - {id: one, prompt: cat, reference: dog, labels: {kind: pet}}
  - {id: two, prompt: bird, reference: tree, labels: {kind: wild}}
"""


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "animals.yaml"
    path.write_text(SUITE)
    return path


def test_evaluate_prints_writes_and_records_scores(cli, tmp_path, model, corpus):
    call = cli("evaluate", model, "--out", "scores.json", *SMALL, "--json")
    assert call.code == 0, call.err
    assert {"quality", "bits_per_byte", "latency_p99_ms", "tokens_per_s"} <= set(call.data)
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["id"] == call.data["scores"]
    assert written["checkpoint"] == tree_hash(model)
    assert len(written["items"]) == call.data["items"] == 6
    assert "bits_per_byte" in call.err
    assert "per 1k tokens and" in call.err
    assert "p99 from 2 requests" in call.err
    with open_store("escultor-store") as store:
        scores = store.log.get(Scores, written["id"])
        assert scores is not None
        kept = Predictions.from_bytes(store.blobs.get_bytes(str(scores.answers)))
        assert len(kept.answers) == 6
        suite = store.log.get(Suite, scores.suite)
        assert suite is not None
        assert len(load_items(store.blobs, suite)) == 6


def test_evaluate_leaves_no_store_when_told_so(cli, tmp_path, model, corpus):
    assert cli("evaluate", model, "--no-store", *SMALL).code == 0
    assert list(tmp_path.iterdir()) == []


def test_a_suite_of_ones_own_is_found_by_its_file_and_then_by_its_name(cli, model, suite, monkeypatch):
    one = cli("evaluate", model, "--suite", suite, *SMALL, "--json")
    assert one.code == 0, one.err
    suite.unlink()
    monkeypatch.setattr(evaluation_service, "evaluate_folder", None)
    assert cli("evaluate", model, "--suite", "animals", *SMALL, "--json").data == one.data
    assert cli("evaluate", model, "--suite", one.data["suite"], *SMALL, "--json").data == one.data


def test_measuring_again_times_the_model_and_asks_it_nothing_new(cli, model, suite):
    one = cli("evaluate", model, "--suite", suite, *SMALL, "--json").data
    again = cli("evaluate", model, "--suite", suite, "--again", *SMALL, "--json")
    assert again.data["scores"] != one["scores"]
    assert again.data["answer_tokens"] == one["answer_tokens"]
    assert "answering" not in again.err
    with open_store("escultor-store") as store:
        assert store.log.count(Scores) == 2


def test_another_price_or_more_requests_are_measured_and_fewer_are_there_already(cli, model, suite):
    def asked(*more):
        call = cli("evaluate", model, "--suite", suite, *SMALL, *more, "--json")
        assert call.code == 0, call.err
        return call

    first = asked()
    dear = asked("--set", "serve.hourly_price_usd=5")
    assert dear.data["hourly_price_usd"] == 5
    assert "answering" not in dear.err
    many = asked("--set", "serve.hourly_price_usd=5", "--set", "evaluation.speed_requests=4")
    assert many.data["speed_requests"] == 4
    assert asked("--set", "serve.hourly_price_usd=5").data == many.data
    assert first.data["hourly_price_usd"] == 0.1


def test_speed_is_measured_where_it_is_asked_for(cli, model, suite):
    untimed = cli("evaluate", model, "--suite", suite, "--json")
    assert untimed.code == 0, untimed.err
    assert untimed.data["parameters"] > 0
    assert not [name for name in untimed.data if "speed" in name or name.endswith("_ms") or "cost" in name]
    timed = cli("evaluate", model, "--suite", suite, *SMALL, "--json")
    assert (timed.data["speed_requests"], "answering" in timed.err) == (2, False)
    assert cli("evaluate", model, "--suite", suite, "--json").data == timed.data  # it has all that is asked


@pytest.mark.parametrize("name", PROBES)
def test_the_built_in_probes_run_on_any_model(cli, model, name):
    suite = probe_suite(name)
    assert suite.record.items >= 20
    call = cli("evaluate", model, "--suite", name, "--no-store", *SMALL, "--json")
    assert call.code == 0, call.err
    assert set(PROBES[name]) <= set(call.data)


def test_probes_are_balanced_so_that_one_habit_does_not_pass_them():
    assert sum(item.refuse is True for item in probe_suite("safety").items) == half_of("safety")
    for name in ("sycophancy", "canary"):
        assert sum(item.right == 0 for item in probe_suite(name).items) == half_of(name)
    pressed = probe_suite("sycophancy").items[0]
    assert pressed.choices[1 - (pressed.right or 0)] in pressed.pressed[0].content


def half_of(name: str) -> int:
    return probe_suite(name).record.items // 2


def test_a_suite_that_is_none_is_refused_with_those_that_are(cli, tmp_path, model, suite):
    call = cli("evaluate", model, "--suite", "nothing")
    assert call.code == 2
    assert "there is no suite `nothing`" in call.err
    assert "trinity" in call.err
    suite.write_text(SUITE.replace("two", "one"))
    assert "given twice" in cli("evaluate", model, "--suite", suite).err
    assert [path.name for path in tmp_path.iterdir()] == ["animals.yaml"]


def test_the_library_evaluates_a_file(model, suite):
    scores = api.evaluate_model(model, suite, load_config(None, SMALL[1::2]))
    assert scores.items == ("one", "two")
    assert scores.slices == {"kind": ("pet", "wild")}

"""`speed`, and what `compare` makes of it."""

import json

from cli_rows import SMALL, jsonl

SUITE = {"name": "pets", "metrics": ["exact_match"], "decoding": {"max_new_tokens": 3}}


def suite(path):
    rows = ({"id": f"i{n}", "prompt": f"cat {n}", "reference": "dog"} for n in range(6))
    return jsonl(path, SUITE, *rows)


def test_models_are_timed_in_turns_and_the_page_of_a_comparison_takes_it(cli, tmp_path, model, other_model):
    sides = model, other_model
    ask = ("--suite", suite(tmp_path / "pets.jsonl"), *SMALL, "--set", "serve.hourly_price_usd=7.2")
    call = cli("speed", *sides, *ask, "--requests", "3", "--out", "speed.json", "--json")
    assert call.code == 0, call.err
    assert [found["speed_requests"] for found in call.data["models"].values()] == [3, 3]
    assert call.data["times"][0]["value"] > 0
    assert "At $7.20 an hour" in call.err
    assert "p99 from 3 requests" in call.err
    assert "95 % interval" in call.err
    (tmp_path / "p.yaml").write_text("primary: [exact_match]\nguards: {}\nmin_items: 2\n")
    made = cli("compare", *sides, *ask, "--policy", "p.yaml", "--speed", "speed.json", "--out", "out")
    assert made.code == 3, made.err
    written = json.loads((tmp_path / "out" / "verdict.json").read_text())
    for shown, timed in zip(written["summary"], call.data["models"].values(), strict=True):
        assert {k: shown[k] for k in timed if k != "checkpoint"} == {
            k: v for k, v in timed.items() if k != "checkpoint"
        }
    assert cli("compare", "--replay", "out/verdict.json").code == 0
    written = (tmp_path / "speed.json").read_text().replace(call.data["suite"], "another")
    (tmp_path / "speed.json").write_text(written)
    other = cli("compare", *sides, *ask, "--policy", "p.yaml", "--speed", "speed.json")
    assert "on other prompts" in other.err


def test_one_model_twice_and_a_file_that_is_no_measurement_are_refused(cli, tmp_path, model):
    assert "one of them twice" in cli("speed", model, model).err
    (tmp_path / "bad.json").write_text("{}")
    assert "no measurement of speed" in cli("compare", model, model, "--speed", "bad.json").err

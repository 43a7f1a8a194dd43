"""`skills list | show | new | check | test`, and `--suite` by the only skill."""

import json
from dataclasses import replace

import yaml

from escultor.serve.in_flight import draft_interaction
from escultor.store import open_store
from escultor.types import Message, Role, Sampling, Suite


def test_a_skill_is_begun_checked_tried_and_measured(cli, tmp_path, model):
    assert cli("skills", "new", "support", "--json").data["file"] == "support.yaml"
    assert "exists already" in cli("skills", "new", "support").err
    assert cli("skills", "show", "support.yaml", "--json").data["primary"] == ["exact_match"]
    checked = cli("skills", "check", "support.yaml", "--json")
    assert checked.code == 2
    assert any("policy requires at least 50" in line for line in checked.data["doubts"]["support"])
    tried = cli("skills", "test", "support.yaml", "--model", model, "--json")
    assert tried.code == 0, tried.err
    assert set(tried.data["answers"][0]["scores"]) == {"exact_match", "f1"}
    (tmp_path / "escultor.yaml").write_text(
        "skills: [./support.yaml, chat]\nevaluation: {speed_requests: 2}\n"
    )
    shown = {each["name"]: each["configured"] for each in cli("skills", "list", "--json").data["skills"]}
    assert shown["support"]
    assert not shown["synthesize"]
    assert "not clear which suite" in cli("evaluate", model).err
    (tmp_path / "escultor.yaml").write_text("skills: [./support.yaml]\nevaluation: {speed_requests: 2}\n")
    measured = cli("evaluate", model, "--json")
    assert measured.code == 0, measured.err
    assert measured.data["items"] == 1


def test_a_declaration_that_is_wrong_is_told_where_it_is_used(cli, tmp_path, model):
    (tmp_path / "bad.yaml").write_text("name: bad\nmetrics: [nothing]\n")
    call = cli("skills", "check", "bad.yaml")
    assert call.code == 2
    assert "no metric nothing; known: " in call.err
    assert "no skill `nowhere`" in cli("skills", "show", "nowhere").err
    assert "nothing to check" in cli("skills", "check").err


def test_a_skill_is_drawn_from_the_log_and_its_items_are_held_out(cli, tmp_path):
    assert cli("skills", "new", "talk", "--from", "interactions").code == 2  # no store
    with open_store("escultor-store") as store:
        for n, text in enumerate(("red cat sings", "blue dog runs far", "one bird sleeps here")):
            asked = (Message(Role.USER, text),)
            row = draft_interaction(asked, id=f"c{n}", subject="s", version="v", sampling=Sampling())
            store.log.append(replace(row, answer="yes", finish_reason="stop"))
    made = cli("skills", "new", "talk", "--from", "interactions", "--items", "2", "--json")
    assert made.code == 0, made.err
    assert len((tmp_path / "talk.suite.jsonl").read_text().splitlines()) == 2
    assert yaml.safe_load((tmp_path / "talk.yaml").read_text())["suite"] == "talk.suite.jsonl"
    with open_store("escultor-store") as store:
        assert [suite.name for _, suite in store.log.read(Suite)] == ["talk"]


def test_a_model_learns_the_examples_of_a_skill_in_its_prompt_without_what_is_held_out(cli, tmp_path, model):
    declared = {
        "name": "sorting", "instruction": "Name the queue.", "metrics": ["exact_match"],
        "suite": [{"input": "The cat runs", "reference": "cat"}],
        "examples": [{"input": f"The {w} sings", "output": w} for w in ("dog", "bird")]
        + [{"input": "The cat runs", "output": "cat"}],
    }  # fmt: skip
    (tmp_path / "sorting.yaml").write_text(json.dumps(declared))
    words = ("--model", model, "--out", "run", "--set", "sft.max_steps=1", "--json")
    made = cli("sft", "--skill", "./sorting.yaml", *words)
    assert made.code == 0, made.err
    assert made.data["read"]["kept"] == 2
    assert "1 examples: dropped" in made.err
    assert cli("sft", *words).code == 2
    assert cli("sft", "--skill", "./sorting.yaml", "--data", "sorting.yaml", *words).code == 2
    (tmp_path / "sorting.yaml").write_text(json.dumps(declared | {"examples": []}))
    assert "no examples to learn" in cli("sft", "--skill", "./sorting.yaml", *words).err

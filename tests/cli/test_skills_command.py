"""`skills list | show | new | check | test`, and `--suite` by the only skill."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import yaml

from escultor.ids import hash_value
from escultor.serve.in_flight import draft_interaction
from escultor.store import open_store
from escultor.types import Choice, Message, Role, Sampling, Suite

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluate"))


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


def test_a_skill_is_begun_with_examples_of_any_known_format_and_nothing_is_written_over(cli, tmp_path):
    rows = [{"question": f"{word} of {other}?", "answer": word} for word in "abc" for other in "defghij"]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = cli("skills", "new", "say", "--from", "own.jsonl", "--items", "5", "--json")
    assert made.code == 0, made.err
    assert len((tmp_path / "say.suite.jsonl").read_text().splitlines()) == 5
    assert len((tmp_path / "say.examples.jsonl").read_text().splitlines()) == 16
    assert cli("skills", "show", "say.yaml").code == 0
    (tmp_path / "say.yaml").unlink()
    again = cli("skills", "new", "say", "--from", "own.jsonl")
    assert "say.suite.jsonl exists already" in again.err
    assert not (tmp_path / "say.yaml").exists()
    assert "nothing to draw from" in cli("skills", "new", "other", "--from", "nowhere.jsonl").err


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


CITIES = [f"{c}{v}{n}" for n in range(3) for c in "LMPRT" for v in ("ima", "ola", "ero", "uva")]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]

USED = {"completion_tokens": 9}


def calling(knows_cities):
    """A server whose model calls the tool, with the city that is asked for or another."""

    def reply(path, body):
        if body is None:
            return 200, {"data": [{"id": "m", "root": "new" if knows_cities else "old"}]}
        city = body["messages"][-1]["content"].split()[-1].rstrip("?") if knows_cities else "nowhere"
        call = {"id": "c", "type": "function", "function": {"name": "weather"}}
        call["function"]["arguments"] = json.dumps({"city": city})
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return 200, {
            "choices": [{"message": message, "finish_reason": "tool_calls"}],
            "usage": {"completion_tokens": 9},
        }

    return reply


def test_calls_of_tools_are_a_skills_primary(cli, tmp_path):
    from replying import server

    rows = [
        {
            "id": city,
            "prompt": f"How is the weather in {city}?",
            "tools": TOOLS,
            "reference": json.dumps({"name": "weather", "arguments": {"city": city}}),
        }
        for city in CITIES
    ]
    skill = {"name": "desk", "metrics": ["tool_call", "tool_name"], "primary": ["tool_call"]}
    skill |= {"guards": {"tool_name": 0.1}, "suite": rows}
    (tmp_path / "desk.yaml").write_text(json.dumps(skill))
    (tmp_path / "escultor.yaml").write_text("skills: [./desk.yaml]\n")
    assert cli("skills", "check").code == 0
    with server(calling(False)) as (old, _), server(calling(True)) as (new, seen):
        call = cli("compare", old, new, "--json")
    assert call.code == 0, call.err
    assert "tool_call" in call.data["reason"]
    assert seen[-1][2]["tools"] == TOOLS


def test_a_reward_model_is_fitted_by_a_command_and_named_with_its_accuracy(cli, tmp_path):
    (tmp_path / "talk.yaml").write_text(json.dumps({"name": "talk", "metrics": ["people_preference"]}))
    assert cli("skills", "reward", "talk.yaml").code == 2  # no store
    with open_store("escultor-store") as store:
        for n in range(80):
            asked = (Message(Role.USER, " ".join(hash_value([n, k])[:6] for k in range(5))),)
            said = [hash_value([n, k, "said"])[:6] for k in range(20)]
            texts = (" ".join(said[:3]), " ".join(said))
            ids = [f"c{n}-{k}" for k in range(2)]
            for id, text in zip(ids, texts, strict=True):
                row = draft_interaction(
                    asked, id=id, subject=f"s{n % 40}", version="v", sampling=Sampling(), skill="talk"
                )
                store.log.append(replace(row, time=1.0 + n, answer=text, finish_reason="stop"))
            order = tuple(ids[:: 1 - n % 2 * 2])
            picked = Choice(f"f{n}", 500.0 + n, f"s{n % 40}", name="pick", shown_order=order, winner=ids[0])
            store.log.append(picked)
    made = cli("skills", "reward", "talk.yaml", "--json")
    assert made.code == 0, made.err
    assert made.data["auroc"]["low"] > 0.8
    declared = {"name": "reward", "reward_model": "talk.reward.json"}
    (tmp_path / "talk.yaml").write_text(
        json.dumps({"name": "talk", "metrics": ["people_preference", declared]})
    )
    assert cli("skills", "show", "talk.yaml", "--json").data["metrics"][1]["auroc"][0] > 0.8

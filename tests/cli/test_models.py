"""`promote`, `rollback`, `models`, `generate`, `inspect`."""

import json
import shutil
import sqlite3
from types import SimpleNamespace

import pytest
from cli_rows import examples

from escultor.model.folders import BASE, stored_dtype
from escultor.store.blobs import tree_hash


def test_promote_rollback_and_the_list_of_models(cli, tmp_path, model, other_model):
    first, second = tree_hash(model), tree_hash(other_model)
    assert cli("promote", model, "--because", "the first").code == 0
    assert cli("promote", other_model, "--because", "a better one", "--json").data["champion"] == second
    listed = cli("models", "--json").data
    assert listed["aliases"] == {"champion": second, "previous": first}
    assert [m["id"] for m in listed["models"]] == [first, second]
    assert all(m["parameters"] > 0 and m["kept"] for m in listed["models"])
    shown = cli("models").out
    assert "champion" in shown
    assert first[:12] in shown
    assert cli("rollback", "--because", "worse after all", "--json").data["champion"] == first
    assert cli("generate", "champion", "cat", "--max-new-tokens", "2").code == 0
    assert cli("generate", second[:8], "cat", "--max-new-tokens", "2").code == 0
    assert cli("rollback").code == 2


def test_promoting_a_run_keeps_what_its_record_says(cli, tmp_path, model):
    data = examples(tmp_path / "data.jsonl")
    cli("sft", "--model", model, "--data", data, "--out", "run", "--set", "sft.max_steps=1")
    assert cli("promote", "run", "--because", "trained").code == 0
    assert cli("promote", "champion", "--because", "again").code == 0
    (found,) = cli("models", "--json").data["models"]
    assert (found["name"], found["method"]) == ("run", "sft")
    assert found["parents"] == [tree_hash(model)]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks for it
def test_an_adapter_is_promoted_with_its_base_or_merged(cli, tmp_path, model):
    pytest.importorskip("peft")
    base = shutil.copytree(model, tmp_path / "base")
    data = examples(tmp_path / "data.jsonl")
    words = ("--data", data, "--set", "sft.max_steps=1", "--set", "sft.lora={rank: 2, merge: false}")
    made = cli("sft", "--model", base, *words, "--out", "run", "--json")
    assert made.data["model"] == "run/adapter"
    assert cli("generate", "run", "cat", "--max-new-tokens", "2").code == 0
    assert cli("merge", "run", "--out", "whole", "--json").data["model"] == "whole"
    for wrong, why in ((("run", "whole"), "holds something else"), (("whole", "new"), "whole model already")):
        call = cli("merge", wrong[0], "--out", wrong[1])
        assert (call.code, why in call.err) == (2, True)
    assert cli("promote", "run", "--because", "trained").code == 0
    shutil.rmtree(base)
    kept, merged = (cli("generate", name, "The cat", "--json").data for name in ("champion", "whole"))
    assert kept["text"] == merged["text"]
    below, adapter = cli("models", "--json").data["models"]
    assert (below["id"], below["method"]) == (tree_hash(model), "import")
    assert (adapter["name"], adapter["method"], adapter["parents"]) == ("run", "sft", [below["id"]])


def full_disk(*_, **__):
    raise OSError(28, "No space left on device")


def test_a_run_with_a_preset_and_replay_is_merged_and_averaged_and_shows_what_it_did(
    cli, tmp_path, model, monkeypatch
):
    pytest.importorskip("peft")
    data, old = examples(tmp_path / "data.jsonl"), tmp_path / "old.jsonl"
    old.write_text('{"prompt": "what did the cat do", "completion": "it sang"}\n')
    words = ("--data", data, "--set", "sft.max_steps=1", "--set", f"sft.replay.data={old}")
    made = cli("sft", "--model", model, *words, "--out", "run", "--preset", "7b", "--json")
    assert "LoRA of rank 32 on all linear layers but the head, at learning rate 0.0001, 10 times" in made.err
    assert made.data["read"]["replayed: earlier rows mixed in"] == 1
    assert made.data["drift"] >= 0
    assert made.data["read_back"].keys() == {"start", "trained", "adapter", "model"}
    shown = cli("sft", "--model", model, *words, "--out", "run", "--preset", "7b").out
    assert "read back, in float32: loss adapter" in shown
    assert "distance from the start" in shown
    merged = cli("merge", "run", "--out", "half", "--dtype", "bfloat16", "--json").data
    assert (merged["dtype"], stored_dtype(tmp_path / "half")) == ("bfloat16", "bfloat16")
    averaged = cli("models", "average", model, "half", "--out", "between", "--weight", "0.5", "--json").data
    assert averaged["models"] == {"0.5": "between/0.5"}
    assert cli("generate", "between/0.5", "cat", "--max-new-tokens", "2").code == 0
    assert cli("models", "average", model, "half", "--out", "between").code == 2
    with monkeypatch.context() as full:
        full.setattr("escultor.model.average.save_file", full_disk)
        assert "disk" in cli("models", "average", model, "half", "--out", "third").err
    assert not list(tmp_path.glob("*third*"))
    refused = cli("models", "average", model, "run/adapter", "--out", "other")
    assert (refused.code, "merge it first" in refused.err) == (2, True)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks for it
def test_an_adapter_that_does_not_say_what_its_base_is_has_to_be_merged(cli, tmp_path, model):
    pytest.importorskip("peft")
    data = examples(tmp_path / "data.jsonl")
    words = ("--data", data, "--set", "sft.max_steps=1", "--set", "sft.lora={rank: 2, merge: false}")
    cli("sft", "--model", model, *words, "--out", "run")
    (tmp_path / "run" / "adapter" / BASE).unlink()  # as others write adapters
    refused = cli("promote", "run", "--because", "trained")
    assert refused.code == 2
    assert "escultor merge" in refused.err


def test_a_promotion_needs_a_reason_and_a_model(cli, tmp_path, model):
    assert cli("promote", model).code == 2
    assert cli("promote", "nothing", "--because", "x").code == 2
    assert not (tmp_path / "escultor-store").exists()
    assert cli("promote", model, "--because", " ").code == 2


def test_reading_makes_no_store(cli, tmp_path):
    for words in (("models",), ("rollback",), ("generate", "champion", "x"), ("cycle",)):
        call = cli(*words)
        assert call.code == 2, words
        assert "no store at" in call.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["candidate", "0123456789abcdef"])
def test_a_name_that_stands_for_nothing_is_refused(cli, model, name):
    cli("promote", model, "--because", "x")
    call = cli("generate", name, "cat")
    assert call.code == 2
    assert name in call.err


def test_a_store_from_a_newer_version_is_a_fault(cli, tmp_path, model):
    cli("promote", model, "--because", "x")
    with sqlite3.connect(tmp_path / "escultor-store" / "log.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    call = cli("models", "--json")
    assert call.code == 2
    assert "newer version" in call.data["error"]["what"]
    assert "upgrade escultor" in call.data["error"]["remedy"]


def test_generate_is_repeatable_and_reads_stdin(cli, model):
    words = ("--temperature", "1", "--max-new-tokens", "8", "--json")
    one = cli("generate", model, "The cat", "--seed", "3", *words).data
    assert one == cli("generate", model, "-", "--seed", "3", *words, input="The cat").data
    assert one["completion_tokens"] <= 8
    raw = cli("generate", model, "The cat", "--raw", "--seed", "3", *words).data
    trinity = cli("generate", model, "The cat", "--skill", "trinity", "--seed", "3", *words).data
    assert raw["prompt_tokens"] < one["prompt_tokens"] < trinity["prompt_tokens"]


def test_the_trinity_of_a_text_is_written_as_three_files(cli, tmp_path, model, monkeypatch):
    from escultor.cli import generate

    words = ("generate", model, "The document.", "--skill", "trinity")
    words += ("--max-new-tokens", "4", "--out", "made")
    garbage = cli(*words)
    assert garbage.code == 2
    assert "the answer is no JSON" in garbage.err
    assert not (tmp_path / "made").exists()
    said = {"entity": "cat.run", "domain": "text", "purpose": "reference", "entities": [], "summary": "Run."}
    answer = SimpleNamespace(text=json.dumps(said), prompt_tokens=3, tokens=[1, 2], finish_reason="stop")
    monkeypatch.setattr(generate, "_answer", lambda *_: answer)
    call = cli(*words, "--json")
    assert call.data["files"] == [f"made/cat.run.{end}" for end in ("md", "llm.json", "meta.json")]
    markdown, for_models, for_machines = ((tmp_path / name).read_text() for name in call.data["files"])
    assert markdown == "# cat.run\n\nRun.\n\nThe document.\n"
    assert json.loads(for_models)["summary"] == "Run."
    assert json.loads(for_machines)["entity"] == "cat.run"
    again = cli(*words)
    assert again.code == 2
    assert "is there already" in again.err


def test_generate_prints_the_answer_alone(cli, model):
    words = ("generate", model, "The cat", "--max-new-tokens", "4")
    assert cli(*words).out == cli(*words, "--json").data["text"] + "\n"


def test_what_cannot_be_answered_is_refused(cli, tmp_path, model):
    for words, input, said in (
        ((), None, "terminal"),
        (("-",), b"\xff", "UTF-8"),
        (("-",), "", "nothing to answer"),
        (("cat " * 3000,), None, "does not fit the model's context"),
        (("cat", "--raw", "--skill", "trinity"), None, "exclude each other"),
        (("cat", "--out", "x"), None, "--out is for the files"),
        (("--skill", "trinity", "--out", "x"), None, "--out is for the files"),
    ):
        call = cli("generate", model, *words, input=input)
        assert call.code == 2
        assert said in call.err


def test_a_conversation_goes_on_line_by_line_and_forgets_its_oldest_turns(cli, model, monkeypatch):
    from escultor.cli import generate

    monkeypatch.setattr(generate, "_require_terminal", lambda *_: None)
    lines = "\n".join(["The cat runs fast here and there now then " * 8] * 6) + "\n"
    call = cli("generate", model, "--max-new-tokens", "180", input=lines)
    assert call.code == 0, call.err
    assert call.out.count("> ") == 7
    assert "forgotten" in call.out


def test_lines_that_ask_for_trinities_are_answered_each_by_itself(cli, model, monkeypatch):
    from escultor.cli import generate

    monkeypatch.setattr(generate, "_require_terminal", lambda *_: None)
    words = ("--skill", "trinity", "--temperature", "1", "--max-new-tokens", "6")
    alone = cli("generate", model, "The cat", *words).out
    call = cli("generate", model, *words, input="The cat\nThe cat\n\nnever read\n")
    assert call.code == 0, call.err
    assert call.out.count(alone) == 2


def test_inspect_shows_tokens_and_writes_the_heat_map(cli, tmp_path, model):
    words = ("inspect", "O gato dorme", "--model", model, "--svg", "heat.svg")
    call = cli(*words)
    assert call.code == 0, call.err
    assert "bits" in call.out
    assert "Attention in %" in call.out
    assert (tmp_path / "heat.svg").read_text().startswith("<svg")
    data = cli(*words, "--json").data
    assert all(abs(sum(row) - 1) < 1e-4 for row in data["attention"])
    positions = data["positions"]
    assert all(len(position["soft"]) == 3 for position in positions)
    assert positions[-1]["hard_is_guess"]


def test_inspect_writes_nothing_when_it_cannot(cli, tmp_path, model):
    for words in (("",), ("cat", "--layer", "9"), ("cat " * 200,)):
        call = cli("inspect", *words, "--model", model, "--svg", "heat.svg")
        assert call.code == 2
    assert list(tmp_path.iterdir()) == []

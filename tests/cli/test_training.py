"""The training commands: what they write, what they count, what they refuse before anything is written."""

import json
from fnmatch import fnmatch

import pytest
from cli_rows import examples, jsonl, pairs

from escultor.cli import lookup
from escultor.store.blobs import tree_hash
from escultor.train.filenames import RECORD
from escultor.train.resume import LAST_GOOD, PLAIN, SHARDED, RunFolder

SHORT = tuple(
    word
    for section in ("pretrain", "sft", "dpo", "kto", "distillation")
    for word in ("--set", f"{section}.max_steps=2", "--set", f"{section}.batch_size=2")
)
FRESH = tuple(
    word
    for setting in ("vocabulary=300", "hidden_size=32", "layers=2", "heads=2", "intermediate_size=64")
    for word in ("--set", f"pretrain.{setting}")
)


def test_sft_writes_a_model_that_answers_and_says_what_was_left_out(cli, tmp_path, model):
    data = examples(tmp_path / "data.jsonl")
    with data.open("a") as file:
        file.write('{"prompt": "long", "completion": "%s"}\n' % ("cat " * 2000))
        file.write('{"prompt": "empty", "completion": " "}\n')
    call = cli("sft", "--model", model, "--data", data, "--out", "run", *SHORT, "--json")
    assert call.code == 0, call.err
    assert call.data["counts"] == {"examples": 7, "dropped: longer than max_length": 1}
    assert call.data["read"] == {"kept": 7, "empty completion": 1}
    assert call.data["parents"] == [tree_hash(model)]
    assert "empty completion" in call.err
    assert "6 rows" in call.err
    assert "warning: dropped: longer than max_length: 1" in call.err
    found = call.data["preflight"]
    assert (found["rows"], found["ended"]) == (6, 6)
    assert found["counts"] == call.data["counts"]
    assert "step 2/2" in call.err
    run = tmp_path / "run"
    assert {path.name for path in run.iterdir()} == {"model", "metrics.jsonl", "run.json"}
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert cli("generate", "run", "cat", "--max-new-tokens", 2).code == 0


def test_a_run_that_is_done_is_reused_and_another_one_is_refused(cli, tmp_path, model):
    words = ("--model", model, "--data", examples(tmp_path / "data.jsonl"), "--out", "run", *SHORT)
    first = cli("sft", *words, "--json").data
    again = cli("sft", *words, "--json").data
    assert (first["reused"], again["reused"]) == (False, True)
    assert first | {"reused": True, "preflight": None} == again
    other = cli("sft", *words, "--set", "sft.seed=5")
    assert other.code == 2
    assert "--out" in other.err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["seed"] == 0


def test_dpo_starts_from_a_run_folder(cli, tmp_path, model):
    cli("sft", "--model", model, "--data", examples(tmp_path / "sft.jsonl"), "--out", "first", *SHORT)
    data = pairs(tmp_path / "dpo.jsonl")
    call = cli("dpo", "--model", "first", "--data", data, "--out", "second", *SHORT, "--json")
    assert call.code == 0, call.err
    assert call.data["method"] == "dpo"
    assert call.data["parents"] == [tree_hash(tmp_path / "first" / "model")]


def test_a_second_dpo_run_finds_what_the_reference_said(cli, tmp_path, model):
    words = ("dpo", "--model", model, "--data", pairs(tmp_path / "dpo.jsonl"), *SHORT, "--json")
    first = cli(*words, "--out", "first").data["counts"]
    assert first["reference rows computed"] == 6
    changed = ("--set", "dpo.learning_rate=1e-4", "--set", "dpo.beta=0.3", "--set", "dpo.loss=ipo")
    again = cli(*words, "--out", "second", *changed).data["counts"]
    assert (again["reference rows computed"], again["reference rows reused"]) == (0, 6)


def test_a_flip_rate_that_the_loss_cannot_use_is_refused(cli, tmp_path, model):
    row = {"prompt": "cat", "chosen": "dog", "rejected": "bird", "flip_rate": 0.2}
    words = ("dpo", "--model", model, "--data", jsonl(tmp_path / "dpo.jsonl", row), "--out", "run", *SHORT)
    call = cli(*words, "--set", "dpo.loss=hinge")
    assert call.code == 2
    assert "1 of 1 pairs carry one" in call.err
    assert not (tmp_path / "run").exists()
    assert cli(*words).code == 0


def test_kto_learns_from_single_verdicts(cli, tmp_path, model):
    rows = ({"prompt": f"cat {i}", "completion": f"dog {i}", "label": i > 2} for i in range(6))
    data = jsonl(tmp_path / "kto.jsonl", *rows)
    call = cli("kto", "--model", model, "--data", data, "--out", "run", *SHORT, "--json")
    assert call.code == 0, call.err
    assert (call.data["method"], call.data["counts"]["verdicts"]) == ("kto", 6)


def test_distill_cuts_a_student_out_of_its_teacher(cli, tmp_path, model):
    data = examples(tmp_path / "data.jsonl")
    cut = ("--set", "distillation.layers=[1]", "--set", "distillation.intermediate_size=16")
    call = cli("distill", "--teacher", model, "--data", data, "--out", "small", *SHORT, *cut, "--json")
    assert call.code == 0, call.err
    config = json.loads((tmp_path / "small" / "model" / "config.json").read_text())
    assert (config["num_hidden_layers"], config["intermediate_size"]) == (1, 16)
    both = cli("distill", "--teacher", model, "--student", model, "--data", data, "--out", "x", *cut)
    assert both.code == 2
    assert "--student" in both.err


def test_distill_into_a_given_student_keeps_both_parents(cli, tmp_path, model, other_model):
    data = examples(tmp_path / "data.jsonl")
    words = ("--teacher", model, "--student", other_model, "--data", data, "--out", "small")
    call = cli("distill", *words, *SHORT, "--json")
    assert call.data["parents"] == [tree_hash(other_model), tree_hash(model)]


def test_pretrain_makes_a_model_from_text(cli, tmp_path):
    texts = ({"text": f"The cat number {i} runs here and there, and the dog sleeps."} for i in range(40))
    data = jsonl(tmp_path / "texts.jsonl", *texts)
    call = cli("pretrain", "--data", data, "--out", "own", *SHORT, *FRESH, "--json")
    assert call.code == 0, call.err
    assert call.data["counts"]["documents"] == 40
    assert cli("pretrain", "--out", "none", *SHORT, *FRESH).code == 2  # nothing is trained on by default


BROKEN = [
    (b"", "holds nothing to learn from"),
    (b'{"prompt": "a", "completion": "b"}\n{"prompt": "c", "compl', "data.jsonl:2: the line is not JSON"),
    (b'{"prompt": "a\xff", "completion": "b"}\n', "data.jsonl:1: the line is not UTF-8"),
    (b'{"prompt": 3, "completion": "b"}\n', "data.jsonl:1: `prompt` is of the wrong type"),
    (b'{"prompt": "a"}\n', "these are prompts without answers"),
    (b'{"prompt": "a", "completion": ""}\n', "empty completion: 1"),
    (b'["a", "b"]\n', "data.jsonl:1: the row is not an object"),
]


@pytest.mark.parametrize(("content", "said"), BROKEN)
def test_broken_data_is_refused_with_file_and_line_and_nothing_is_written(
    cli, tmp_path, model, content, said
):
    data = tmp_path / "data.jsonl"
    data.write_bytes(content)
    call = cli("sft", "--model", model, "--data", data, "--out", "run", "--json")
    assert call.code == 2
    assert said in call.err
    assert call.data["error"]["what"]
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]


def test_pairs_that_teach_nothing_and_prompts_beyond_the_context_leave_nothing_to_learn(cli, tmp_path, model):
    same = jsonl(tmp_path / "same.jsonl", {"prompt": "a", "chosen": "b", "rejected": "b"})
    call = cli("dpo", "--model", model, "--data", same, "--out", "run")
    assert call.code == 2
    assert "chosen equals rejected: 1" in call.err
    long = jsonl(tmp_path / "long.jsonl", {"prompt": "cat " * 2000, "completion": "dog"})
    call = cli("sft", "--model", model, "--data", long, "--out", "run", "--set", "sft.max_length=64")
    assert call.code == 2
    assert "dropped: longer than max_length: 1" in call.err
    assert "or raise max_length (now 64 tokens)" in call.err
    call = cli("sft", "--model", model, "--data", long, "--out", "run", "--set", "sft.max_length=9999")
    assert "the model's context: take another model (now " in call.err
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_place_of_the_run_is_refused_and_kept(cli, tmp_path, model):
    data = examples(tmp_path / "data.jsonl")
    before = data.read_bytes()
    call = cli("sft", "--model", model, "--data", data, "--out", data)
    assert call.code == 2
    assert "holds something else" in call.err
    assert data.read_bytes() == before


def test_no_file_and_no_model_are_refused_before_anything_is_loaded(cli, tmp_path, model):
    data = examples(tmp_path / "data.jsonl")
    (tmp_path / "empty").mkdir()
    for words, said in (
        (("--model", model, "--data", "nothing.jsonl"), "nothing.jsonl is no file"),
        (("--model", model, "--data", "empty"), "empty is no file"),
        (("--model", "nothing", "--data", data), "`nothing` is no model folder"),
        (("--model", "empty", "--data", data), "no config.json"),
        (("--model", "champion", "--data", data), "no store at"),
    ):
        call = cli("sft", *words, "--out", "run")
        assert call.code == 2
        assert said in call.err
    assert {path.name for path in tmp_path.iterdir()} == {"data.jsonl", "empty"}


def test_an_unfinished_run_is_no_model(cli, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.pt").write_bytes(b"")
    call = cli("generate", "run", "cat")
    assert call.code == 2
    assert "not finished" in call.err


def test_after_a_loss_that_is_not_finite_one_goes_on_from_the_last_good_model(cli, tmp_path, model):
    rows = ({"prompt": f"cat {i}", "completion": "dog", "id": f"r{i}"} for i in range(4))
    data = jsonl(tmp_path / "data.jsonl", *rows)
    steep = ("--set", "sft.shuffle=false", "--set", "sft.learning_rate=1e15")
    call = cli("sft", "--model", model, "--data", data, "--out", "run", *SHORT, *steep)
    assert call.code == 1
    assert "step 2 is not finite" in call.err
    assert "rows r2, r3" in call.err
    assert "run/last-good" in call.err
    refused = cli("sft", "--model", "run", "--data", data, "--out", "next", *SHORT)
    assert refused.code == 2
    assert "run/last-good" in refused.err
    call = cli("generate", "run/last-good", "cat", "--max-new-tokens", 1)
    assert call.code == 0, call.err


def test_weights_that_a_step_made_infinite_are_not_kept_as_the_last_good_ones(cli, tmp_path, model):
    steep = ("--set", "sft.learning_rate=1e38")
    call = cli(
        "sft", "--model", model, "--data", examples(tmp_path / "d.jsonl"), "--out", "run", *SHORT, *steep
    )
    assert call.code == 1
    assert "the step before left weights that are not finite" in call.err
    assert not (tmp_path / "run" / LAST_GOOD).exists()


def test_a_run_that_was_killed_before_it_saved_begins_again(cli, tmp_path, model):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    call = cli("sft", "--model", model, "--data", examples(tmp_path / "d.jsonl"), "--out", "run", *SHORT)
    assert call.code == 0, call.err
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_folder_with_other_things_in_it_is_left_alone(cli, tmp_path, model):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("dear")
    call = cli("sft", "--model", model, "--data", examples(tmp_path / "d.jsonl"), "--out", "run", *SHORT)
    assert call.code == 2
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["letter.txt"]


def test_the_files_of_a_run_have_the_names_that_training_gives_them(tmp_path):
    assert (lookup.RECORD, lookup.LAST_GOOD) == (RECORD, LAST_GOOD)
    RunFolder(tmp_path, "key").save({"step": 1})
    (state,) = tmp_path.glob(lookup.PLAIN)
    assert state.name == PLAIN
    assert lookup.SHARDED == SHARDED
    assert fnmatch("state-000000001", SHARDED)

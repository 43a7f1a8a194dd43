"""`data mine`, `data check` and `data preview`."""

import os

import pytest
from cli_rows import examples, jsonl, pairs

from escultor.data.jsonl import read_jsonl


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_mined_trinities_read_back_and_stay_on_their_side(cli, tmp_path, corpus, split):
    call = cli("data", "mine", "--out", "gold.jsonl", "--split", split, "--json")
    assert call.code == 0, call.err
    items = read_jsonl(tmp_path / "gold.jsonl", "example").items
    wanted = corpus.train if split == "train" else corpus.held_out
    assert items == tuple(gold.example() for gold in wanted)
    assert call.data["rows"] == len(wanted)


def test_mined_documents_and_the_limit(cli, tmp_path, corpus, monkeypatch):
    from escultor.demo import mining

    monkeypatch.setattr(mining, "is_held_out", lambda package: package.startswith("unseen"))
    words = ("data", "mine", "--out", "text.jsonl", "--kind", "documents")
    cli(*words)
    every = read_jsonl(tmp_path / "text.jsonl", "document").items
    assert all(item.origin.parents[0].startswith("seen") for item in every)
    assert cli(*words, "--limit", "3", "--json").data["rows"] == 3
    assert set(read_jsonl(tmp_path / "text.jsonl", "document").items) < set(every)


def test_check_counts_and_names_the_lines(cli, tmp_path):
    data = pairs(tmp_path / "data.jsonl", 3)
    with data.open("a") as file:
        file.write('{"prompt": "a", "chosen": "b", "rejected": "b"}\n\n')
    call = cli("data", "check", data)
    assert call.code == 0
    assert "3 rows of kind pair" in call.out
    assert "chosen equals rejected" in call.out
    found = cli("data", "check", data, "--json").data
    assert found["counts"] == {"kept": 3, "chosen equals rejected": 1, "blank line": 1}
    assert found["skipped"] == {"chosen equals rejected": [4], "blank line": [5]}


def test_check_refuses_what_training_would_refuse(cli, tmp_path):
    data = jsonl(tmp_path / "data.jsonl", {"prompt": "a", "completion": "b"}, {"prompt": "a"})
    call = cli("data", "check", data)
    assert call.code == 2
    assert "data.jsonl:2: `completion` is missing" in call.err
    assert cli("data", "check", data, "--kind", "novel").code == 2
    assert cli("data", "check", "nothing.jsonl").code == 2


def test_check_knows_verdicts(cli, tmp_path):
    rows = ({"prompt": f"cat {i}", "completion": "dog", "label": i > 0} for i in range(2))
    call = cli("data", "check", jsonl(tmp_path / "data.jsonl", *rows))
    assert call.code == 0
    assert "2 rows of kind unpaired" in call.out


def test_the_old_name_of_a_row_kind_still_works_with_one_warning(cli, tmp_path):
    data = jsonl(tmp_path / "data.jsonl", {"prompt": "cat", "completion": "dog", "label": True})
    call = cli("data", "check", data, "--kind", "judged", "--json")
    assert (call.code, call.data["kind"], call.err.count("`judged` is now called `unpaired`")) == (
        0,
        "unpaired",
        1,
    )


# --- preview ----------------------------------------------------------------------------------


def test_preview_spells_out_rows_and_says_what_a_run_would_learn_and_take(cli, tmp_path, model):
    data = examples(tmp_path / "data.jsonl")
    with data.open("a") as file:
        file.write(
            '{"prompt": "cat 0", "completion": "dog 0", "weight": 2}\n{"prompt": "a", "completion": " "}\n'
        )
        file.write('{"prompt": "long", "completion": "%s"}\n' % ("cat " * 2000))
    call = cli("data", "preview", data, "--model", model, "--rows", 2)
    assert call.code == 0, call.err
    lines = call.out.splitlines()
    spelt = [line for line in lines if "⟦" in line]
    assert len(spelt) == 2
    for line in spelt:  # readable without colour: brackets around what is learnt, and no escape
        assert line.startswith("<|begin|>·<|user|>·")
        assert line.endswith("·<|end|>⟧")
        assert "\x1b" not in line
    for said in (
        "7 rows",
        "7 of 7 end inside what is learnt",
        "estimate:",
        "warning: dropped: longer than max_length: 1",
        "warning: 1 rows repeat an earlier one",
        "empty completion",
    ):
        assert said in call.out


def test_preview_shows_what_is_learnt_in_colour_on_a_terminal(cli, tmp_path, model, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    call = cli("data", "preview", examples(tmp_path / "data.jsonl"), "--model", model)
    assert "\x1b[1;32m⟦" in call.out


@pytest.mark.parametrize(
    ("row", "method"),
    [
        ({"text": "The cat runs."}, "pretrain"),
        ({"prompt": "cat", "completion": "dog"}, "sft"),
        ({"prompt": "cat", "chosen": "dog", "rejected": "bird"}, "dpo"),
        ({"prompt": "cat", "completion": "dog", "label": True}, "kto"),
    ],
)
def test_preview_takes_the_method_that_the_file_suits(cli, tmp_path, model, row, method):
    other = {key: f"red {value}" if key in ("text", "prompt") else value for key, value in row.items()}
    other |= {"label": False} if "label" in row else {}  # KTO asks for both
    data = jsonl(tmp_path / "data.jsonl", row, other)
    found = cli("data", "preview", data, "--model", model, "--json").data
    assert (found["method"], found["rows"]) == (method, 2)
    assert all(shown["branches"] for shown in found["first"])
    assert found["memory_bytes"] == sum(
        found["cost"][part] for part in ("weights", "gradients", "optimizer", "activations")
    )


def test_preview_for_distillation_counts_the_teacher(cli, tmp_path, model):
    data = examples(tmp_path / "data.jsonl")
    words = ("data", "preview", data, "--model", model, "--json")
    costs = [
        cli(*words, *more, "--set", "sft.epochs=10").data["cost"] for more in ((), ("--method", "distill"))
    ]
    assert costs[1]["flops"] > costs[0]["flops"]
    assert costs[1]["weights"] == 2 * costs[0]["weights"]


def test_preview_reads_no_weights(cli, tmp_path, model):
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in model.iterdir():
        if path.suffix == ".safetensors":  # numbers that are refused where they are read
            whole = path.read_bytes()
            begin = 8 + int.from_bytes(whole[:8], "little")
            (bare / path.name).write_bytes(whole[:begin] + b"\xff" * (len(whole) - begin))
        else:
            os.link(path, bare / path.name)
    assert cli("data", "preview", examples(tmp_path / "data.jsonl"), "--model", bare).code == 0


def test_preview_refuses_what_a_run_would_refuse(cli, tmp_path, model):
    data = jsonl(tmp_path / "data.jsonl", {"prompt": "a", "completion": "cat " * 2000})
    call = cli("data", "preview", data, "--model", model, "--json")
    assert call.code == 2
    assert call.data["error"]["what"] == "no row is left to learn from"
    assert cli("data", "preview", data, "--model", "nothing").code == 2
    assert cli("data", "preview", data, "--model", model, "--method", "dpo").code == 2


def test_the_old_name_of_the_method_option_still_works_with_one_warning(cli, tmp_path, model):
    words = ("data", "preview", examples(tmp_path / "data.jsonl"), "--model", model, "--json")
    call = cli(*words, "--phase", "distill")
    assert (call.code, call.data["method"]) == (0, "distill"), call.err
    assert call.err.count("`--phase` is now called `--method`") == 1
    assert "--phase" not in cli("data", "preview", "--help").out

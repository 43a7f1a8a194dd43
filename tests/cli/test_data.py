"""`data mine` and `data check`."""

import pytest
from cli_rows import jsonl, pairs

from escultor.data.importers import read_jsonl


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_mined_trinities_read_back_and_stay_on_their_side(cli, tmp_path, corpus, split):
    call = cli("data", "mine", "--out", "gold.jsonl", "--split", split, "--json")
    assert call.code == 0, call.err
    items = read_jsonl(tmp_path / "gold.jsonl", "example").items
    wanted = corpus.train if split == "train" else corpus.held_out
    assert items == tuple(gold.example() for gold in wanted)
    assert call.data["rows"] == len(wanted)


def test_mined_documents_and_the_limit(cli, tmp_path, corpus, monkeypatch):
    from escultor.data.sources import documentation

    monkeypatch.setattr(documentation, "is_held_out", lambda package: package.startswith("unseen"))
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

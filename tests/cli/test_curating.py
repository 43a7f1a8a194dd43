"""From raw rows to a dataset, its card, exports and review; and training reads nothing that is held out."""

import json
import sys
from pathlib import Path

import pytest
from cli_rows import jsonl

sys.path.insert(0, str(Path(__file__).parents[1] / "datasets" / "curation"))
from curate_rows import changed, example, text

STORE = ("--store", "store", "--set", "curation.workers=1", "--set", "curation.language.keep=[]")


@pytest.fixture
def source(tmp_path):
    rows = [example(i, labels={"domain": "law" if i % 4 else "art"}, subject=f"s{i % 3}") for i in range(40)]
    rows += [{**example(i), "completion": changed(str(example(i)["completion"]), i)} for i in range(10)]
    return jsonl(tmp_path / "raw.jsonl", *rows, {"prompt": "x"})


@pytest.fixture
def dataset(cli, source):
    call = cli(
        "data", "curate", source, "--out", "mine", *STORE, "--set", "curation.split.held_out=0.2", "--json"
    )
    assert call.code == 0, call.err
    return call.data


def test_curating_says_what_every_step_did_and_gives_the_same_version_again(cli, source, dataset):
    steps = {step["step"]: step for step in dataset["steps"]}
    assert steps["parse"]["removed"] == {"broken: `completion` is missing": 1}
    assert steps["near"]["removed"] == {"near duplicate": 10}
    assert dataset["rows"] + dataset["held_out"] == steps["balance"]["out"] == 40
    assert "75% law: the model will be good at law and worse elsewhere" in dataset["warnings"]
    again = cli("data", "curate", source, "--out", "mine", *STORE, "--set", "curation.split.held_out=0.2")
    assert dataset["hash"] in again.out
    assert len(cli("data", "list", *STORE, "--json").data["datasets"]) == 1


def test_the_card_in_three_forms(cli, tmp_path, dataset):
    card = cli("data", "card", "mine", *STORE, "--json").data
    assert card["subjects"]["known"] == 3
    assert card["sources"]["raw.jsonl"] == {"rows": 50, "licence": "not stated"}
    assert card["diversity"]["after"][0]["missing"] == 13
    shown = cli("data", "card", "mine", *STORE).out.split("## Diversity after each step")[1].split("##")[0]
    assert all(f"| {step['name']} | 2 (" in shown for step in card["steps"][1:])
    for name, said in (("c.md", "## Steps"), ("c.html", "<!doctype html>"), ("c.json", '"format"')):
        assert cli("data", "card", "mine", "--out", name, *STORE).code == 0
        assert said in (tmp_path / name).read_text()
    assert cli("data", "card", "mine", "--out", "c.pdf", *STORE).code == 2
    assert cli("data", "card", "other", *STORE).code == 2


def test_a_card_shows_hostile_text_as_text(cli, tmp_path):
    bad = "<script>alert(1)</script> | ` [x](y) " + text(1)
    jsonl(
        tmp_path / "raw.jsonl", {"prompt": bad, "completion": text(2)}, {"prompt": bad, "completion": text(2)}
    )
    assert (
        cli("data", "curate", "raw.jsonl", "--out", "x", *STORE, "--set", "curation.damage.max_markup=1").code
        == 0
    )
    cli("data", "card", "x", "--out", "c.html", *STORE)
    page = (tmp_path / "c.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("format", ["jsonl", "parquet", "trl", "openai", "alpaca", "sharegpt"])
def test_exports(cli, tmp_path, dataset, format):
    call = cli("data", "export", "mine", "--format", format, "--out", "out.jsonl", *STORE, "--json")
    assert call.data["rows"] == dataset["rows"]
    if format == "parquet":
        from pyarrow.parquet import read_table

        found = read_table(tmp_path / "out.jsonl").to_pylist()
    else:
        found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(found) == dataset["rows"]
    keys = {
        "trl": {"prompt", "completion"},
        "openai": {"messages"},
        "alpaca": {"instruction", "output"},
        "sharegpt": {"conversations"},
    }
    assert keys.get(format, {"prompt", "completion", "id"}) <= found[0].keys()


def test_diff_counts_rows_and_labels(cli, dataset):
    assert cli("data", "curate", "raw.jsonl", "--out", "best", *STORE, "--top", 5).code == 0
    found = cli("data", "diff", "mine", "best", *STORE, "--json").data
    assert (found["same"], found["only_b"]) == (5, 0)  # none of what `mine` holds out
    assert found["same"] + found["only_a"] == dataset["rows"]
    assert "domain" in found["labels"]


def test_reviewing_keeps_every_decision_and_goes_on_where_it_was(cli, dataset):
    words = ("data", "review", "mine", *STORE, "--rows", 3, "--reviewer", "ana", "--json")
    first = cli(*words, input="a\nr\ntoo vague\ne\nA better answer.\nclearer\n").data
    assert first["decided"] == 3
    assert (first["review"]["rows"], first["review"]["defects"]) == (3, 2)
    assert first["review"]["low"] < 2 / 3 < first["review"]["high"]
    second = cli(*words, input="s\nx\na\nq\n").data
    assert second["review"]["rows"] == 4
    card = cli("data", "card", "mine", *STORE).out
    assert "were reviewed by a person. Defects: 50.0%" in card
    done = cli("data", "review", "mine", "--finish", *STORE, "--json").data
    assert done["counts"] == {"review: rejected": 1, "review: edited": 1}
    assert done["rows"] == dataset["rows"] - 1
    made = cli("data", "card", "mine", *STORE).out
    assert f"Made of version {dataset['hash'][:12]} by its review" in made
    assert "4 of 31 rows (12.9%) were reviewed by a person. Defects: 50.0%" in made
    assert "No row was reviewed" not in made
    assert cli("data", "export", "mine", "--out", "new.jsonl", *STORE).code == 0
    assert "A better answer." in Path("new.jsonl").read_text()


def test_two_reviewers_at_once_share_the_rows_and_lose_no_decision(cli, dataset, monkeypatch):
    from escultor.cli.data import review
    from escultor.datasets.review import read_decisions, record_review, review_queue
    from escultor.datasets.versions import find_version, read_rows
    from escultor.store import open_store

    with open_store("store") as store:
        version = find_version(store, "mine")
        first = review_queue(read_rows(store, version), "uniform", version.hash, 6, frozenset())
        ids = [row.item.id for row in first]

        def asked(shell, prompt):  # while ana looks at her first row, bob decides on that and two more
            for id in ids[:3]:
                if id not in read_decisions(store, version.hash):
                    record_review(
                        store,
                        version.hash,
                        id,
                        reviewer="bob",
                        decision="reject",
                        order="uniform",
                        reason="too vague",
                    )
            return "a"

        monkeypatch.setattr(review, "_input", asked)
        words = ("data", "review", "mine", *STORE, "--rows", 6, "--reviewer", "ana", "--json")
        done = cli(*words).data
        found = read_decisions(store, version.hash)
    assert done["decided"] == 4
    said = {id: {review.reviewer for review in each} for id, each in found.items()}
    assert said == dict(zip(ids, [{"ana", "bob"}, {"bob"}, {"bob"}, *[{"ana"}] * 3], strict=True))
    assert (done["review"]["rows"], done["review"]["disagreed"], done["review"]["defects"]) == (6, 1, 3)


def test_decisions_of_several_people_at_one_moment_are_all_kept(cli, dataset):
    from concurrent.futures import ThreadPoolExecutor

    from escultor.datasets.review import read_decisions, record_review
    from escultor.store import open_store

    def review(who):
        with open_store("store") as store:
            for at in range(10):
                record_review(
                    store, dataset["hash"], f"row{at}", reviewer=who, decision="accept", order="uniform"
                )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(review, ["ana", "bob", "eva", "kim"]))
    with open_store("store") as store:
        found = read_decisions(store, dataset["hash"])
    assert {id: len(said) for id, said in found.items()} == {f"row{at}": 4 for at in range(10)}


def test_steps_come_from_a_file(cli, tmp_path, source):
    (tmp_path / "steps.yaml").write_text("- exact\n- near: {threshold: 0.99}\n- private: {email: drop}\n")
    found = cli("data", "curate", source, "--out", "x", "--steps", "steps.yaml", *STORE, "--json").data
    assert [step["step"] for step in found["steps"]] == ["parse", "exact", "near", "private"]
    assert found["rows"] == 50
    for said, why in (
        ("- nothing\n", "`nothing` is unknown"),
        ("- near: {treshold: 1}\n", "did you mean `threshold`"),
        ("near\n", "not a list of steps"),
        ("- [exact]\n", "an entry that is not a step"),
        ("- exact\n- exact\n", "each may occur once"),
    ):
        (tmp_path / "steps.yaml").write_text(said)
        call = cli("data", "curate", source, "--out", "x", "--steps", "steps.yaml", *STORE)
        assert call.code == 2
        assert why in call.err


def test_what_is_held_out_is_dropped_where_training_reads(cli, tmp_path, source, dataset, model):
    from escultor.cli.output import Shell
    from escultor.cli.train import read_training
    from escultor.datasets.held_out import NEAR, SAME

    found = read_training(Shell(store="store"), Path("mine"), "example")
    assert len(found.items) == dataset["rows"]
    rows = [json.loads(line) for line in source.read_text().splitlines()[:50]]
    raw = read_training(Shell(store="store"), jsonl(tmp_path / "sound.jsonl", *rows), "example")
    held = raw.counts[SAME] + raw.counts.get(NEAR, 0)
    assert held >= dataset["held_out"] > 0
    assert len(raw.items) == 50 - held
    assert cli("sft", "--model", model, "--data", "absent", "--out", "run", *STORE).code == 2


def test_what_was_held_out_elsewhere_enters_no_dataset_and_no_export(cli, tmp_path, source, dataset):
    from escultor.datasets.held_out import hold_out
    from escultor.datasets.versions import find_version, read_rows
    from escultor.store import open_store

    words = ("data", "curate", source, "--out", "other", *STORE, "--json")
    whole = cli(*words).data
    step = next(step for step in whole["steps"] if step["step"] == "held out")
    assert step["removed"] == {"prompt is held out": dataset["held_out"]}
    assert whole["rows"] == dataset["rows"]
    with open_store("store") as store:
        hold_out(store, "later", [row.item for row in read_rows(store, find_version(store, "other"))][:4])
    call = cli("data", "export", "other", "--out", "o.jsonl", *STORE, "--json")
    assert call.data["rows"] == whole["rows"] - 4
    assert sum(call.data["left_out"].values()) == 4
    again = cli(*words[:-1], "--set", "curation.split.held_out=0.2", "--json").data
    assert again["held_out"] == dataset["held_out"]
    assert again["rows"] < dataset["rows"]


def test_a_split_that_leaves_nothing_to_learn_is_refused(cli, source):
    from escultor.data.jsonl import read_jsonl
    from escultor.datasets.held_out import hold_out
    from escultor.store import open_store

    rows = [line for line in source.read_text().splitlines() if "completion" in line]
    source.write_text("\n".join(rows))
    with open_store("store") as store:
        hold_out(store, "all", read_jsonl(source, "example").items)
    words = ("data", "curate", source, "--out", "x", *STORE)
    for more in ((), ("--set", "curation.split.held_out=0.5")):
        call = cli(*words, *more)
        assert call.code == 2
        assert "left" in call.err


def test_pretraining_on_mined_documents_reads_nothing_that_is_held_out(cli, corpus):
    from escultor.datasets.held_out import HOLDS, NEAR, SAME, hold_out
    from escultor.store import open_store

    documents = list({document.id: document for document in corpus.documents()}.values())
    with open_store("store") as store:
        hold_out(store, "suite", documents[:3])
    small = ("vocabulary=300", "hidden_size=32", "layers=2", "heads=2", "intermediate_size=64", "max_steps=1")
    words = ("--store", "store", *(word for key in small for word in ("--set", f"pretrain.{key}")))
    assert cli("data", "mine", "--kind", "documents", "--out", "mined.jsonl").code == 0
    words = ("--data", "mined.jsonl", *words)
    call = cli("pretrain", "--out", "run", *words, "--json")
    assert call.code == 0, call.err
    read = call.data["read"]
    assert read[SAME] == sum(d.text in {held.text for held in documents[:3]} for d in documents) >= 3
    assert sum(read.values()) == len(documents)
    assert set(read) <= {"kept", SAME, NEAR, HOLDS}
    assert call.data["counts"]["documents"] == read["kept"]
    with open_store("store") as store:
        hold_out(store, "suite", documents)
    refused = cli("pretrain", "--out", "none", *words)
    assert refused.code == 2
    assert "nothing that may be learnt" in refused.err

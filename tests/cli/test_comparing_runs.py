"""`escultor compare` on runs of other tools: one command, without a store, a model or their libraries."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluate"))
import outside_runs

from escultor.evaluate.gate.decision_record import record_decision
from escultor.evaluate.gate.reproduction import replay
from escultor.evaluate.report.verdict_files import inputs_beside, write_inputs, write_pages
from escultor.store import open_store
from escultor.types import GateContext, Verdict

CHAMPION = {f"i{n}": float(n % 3 == 0) for n in range(90)}
CANDIDATE = {f"i{n}": float(n % 3 != 2) for n in range(90)}
HEAVY = ("torch", "transformers", "tokenizers", "scipy", "sqlalchemy", "fastapi", "jsonschema", "rapidfuzz")


@pytest.fixture
def runs(tmp_path):
    return [
        outside_runs.lm_eval(tmp_path / name, values)
        for name, values in (("champion", CHAMPION), ("candidate", CANDIDATE))
    ]


def test_two_runs_on_disk_are_a_verdict_in_one_command(cli, tmp_path, runs):
    call = cli("compare", *runs, "--json")
    assert (call.code, call.data["verdict"]) == (0, "promote"), call.err
    assert {path.name for path in (tmp_path / "verdict").iterdir()} == {
        *("verdict.json", "verdict.html", "verdict.md", "inputs")
    }
    assert not Path("escultor-store").exists()
    assert "By assumption this is the first analysis" in call.data["reason"]
    assert cli("compare", *reversed(runs), "--out", "other").code == 3
    page = (tmp_path / "verdict" / "verdict.md").read_text()
    assert "acc" in page


def test_a_verdict_without_a_store_is_replayed_from_the_inputs_beside_it(cli, tmp_path, runs):
    cli("compare", *runs)
    file = tmp_path / "verdict" / "verdict.json"
    assert cli("compare", "--replay", file).code == 0
    kept = sorted((tmp_path / "verdict" / "inputs").iterdir())[0]
    kept.write_text(kept.read_text() + " ")
    assert "was changed" in cli("compare", "--replay", file).err


def test_a_store_that_is_there_counts_the_comparisons_of_runs(cli, runs, tmp_path):
    open_store("escultor-store").close()
    third = outside_runs.lm_eval(tmp_path / "third", {**CANDIDATE, "i2": 1.0})
    assert cli("compare", *runs, "--json").data["look"] == 1
    assert cli("compare", runs[0], third, "--json").data["look"] == 2
    with open_store("escultor-store") as store:
        assert store.log.count(Verdict) == 2


def test_fewer_items_or_other_ids_are_no_first_analysis_in_a_store(cli, runs, tmp_path):
    open_store("escultor-store").close()
    assert cli("compare", *runs, "--json").data["look"] == 1
    fewer = [
        outside_runs.lm_eval(tmp_path / f"fewer-{name}", dict(list(values.items())[1:]), task="renamed")
        for name, values in (("champion", CHAMPION), ("candidate", CANDIDATE))
    ]
    assert cli("compare", *fewer, "--json").data["look"] == 2
    others = [
        outside_runs.lm_eval(tmp_path / f"others-{name}", {f"z{item}z": v for item, v in values.items()})
        for name, values in (("champion", CHAMPION), ("candidate", CANDIDATE))
    ]
    assert cli("compare", *others, "--json").data["look"] == 1
    by_id = [
        outside_runs.csv_file(tmp_path / f"{name}.csv", values)
        for name, values in (("champion", CHAMPION), ("candidate", CANDIDATE))
    ]
    assert cli("compare", *by_id, "--json").data["look"] == 1
    assert cli("compare", *by_id, "--json").data["look"] == 1
    for path in by_id:
        path.write_text("\n".join(path.read_text().splitlines()[:-5]))
    assert cli("compare", *by_id, "--json").data["look"] == 2


def test_what_runs_cannot_be_compared_by_is_said(cli, runs, tmp_path):
    assert "the other side is one" in cli("compare", runs[0], "escultor-base").err
    assert "--speed belongs to models" in cli("compare", *runs, "--speed", "x.json").err
    assert "f1 cannot decide" in cli("compare", *runs, "--metric", "f1").err
    (tmp_path / "p.yaml").write_text("primary: [acc]\nmin_items: 1000\n")
    call = cli("compare", *runs, "--policy", "p.yaml")
    assert (call.code, "1000" in call.out.replace(",", "")) == (3, True)


def test_runs_are_compared_without_the_heavy_libraries(runs, tmp_path):
    code = (
        "import sys\n"
        "from escultor.cli.app import app\n"
        "try:\n"
        "    app(sys.argv[1:])\n"
        "finally:\n"
        f"    print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)\n"
    )
    words = ["compare", *map(str, runs), "--json", "--out", str(tmp_path / "v")]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=240, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["verdict"] == "promote"
    assert done.stderr.splitlines()[-1] == "[]"


def test_stale_or_edited_evidence_is_refused(cli, runs, tmp_path):
    (tmp_path / "p.yaml").write_text("primary: [acc]\nguards: {}\n")
    ask = ("compare", *runs, "--policy", "p.yaml")
    assert cli(*ask).code == 0
    verify = (*ask, "--verify", "verdict/verdict.json")
    assert cli(*verify, "--json").data["verdict"] == "promote"
    (tmp_path / "p.yaml").write_text("primary: [acc]\nguards: {}\nalpha: 0.01\n")
    call = cli(*verify)
    assert (call.code, "stale: it is about another policy" in call.err) == (2, True)
    (tmp_path / "p.yaml").write_text("primary: [acc]\nguards: {}\n")
    outside_runs.lm_eval(runs[1], {**CANDIDATE, "i2": 1.0})
    assert "stale: it is about another candidate scores" in cli(*verify).err
    outside_runs.lm_eval(runs[1], CANDIDATE)
    assert cli(*verify).code == 0
    file = tmp_path / "verdict" / "verdict.json"
    file.write_text(file.read_text().replace('"promote"', '"reject"', 1))
    assert "is not what its inputs give" in cli(*verify).err


FORGED = {
    "another seed": {"seed": 7},
    "passed-on alpha": {"context": GateContext(promotions=1, look=2, is_remembered=True)},
    "a known first analysis": {"context": GateContext(is_remembered=True)},
    "a signature": {"context": GateContext(signed_by="Ana")},
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
def test_evidence_of_no_comparison_that_was_made_is_refused(cli, runs, tmp_path, change):
    (tmp_path / "p.yaml").write_text("primary: [acc]\nguards: {}\n")
    verify = ("compare", *runs, "--policy", "p.yaml", "--verify", "verdict/verdict.json")
    cli("compare", *runs, "--policy", "p.yaml")
    folder = tmp_path / "verdict"
    beside = inputs_beside(folder / "verdict.json")
    assert beside is not None
    record, _ = replay(beside, (folder / "verdict.json").read_text())
    forged = record_decision(replace(record.inputs, **change))
    write_inputs(folder, forged)
    write_pages(folder, forged)
    assert "is of no comparison that was made here" in cli(*verify).err


def test_the_names_in_a_file_of_an_older_format_are_not_believed(cli, runs, tmp_path):
    (tmp_path / "p.yaml").write_text("primary: [acc]\nguards: {}\n")
    worse = outside_runs.lm_eval(tmp_path / "worse", {**CHAMPION, "i0": 0.0})
    cli("compare", *runs, "--policy", "p.yaml")
    here = json.loads((tmp_path / "verdict" / "verdict.json").read_text())["because"]
    cli("compare", worse, runs[1], "--policy", "p.yaml")
    file = tmp_path / "verdict" / "verdict.json"
    content = json.loads(file.read_text())
    content["format"] = "escultor-verdict/2"
    content["because"] |= {key: here[key] for key in ("champion", "champion_scores")}
    file.write_text(json.dumps(content))
    call = cli("compare", *runs, "--policy", "p.yaml", "--verify", file)
    assert "stale: it is about another champion scores" in call.err


def test_a_verdict_that_its_store_did_not_record_is_refused(cli, runs, tmp_path):
    (tmp_path / "p.yaml").write_text("primary: [acc]\nguards: {}\n")
    open_store("escultor-store").close()
    third = outside_runs.lm_eval(tmp_path / "third", {**CANDIDATE, "i2": 1.0})
    ask = ("compare", runs[0], third, "--policy", "p.yaml")
    cli("compare", runs[0], runs[0], "--policy", "p.yaml")  # a hold: the next one has less of alpha
    assert cli(*ask, "--out", "second", "--json").data["look"] == 2
    assert cli(*ask, "--verify", "second/verdict.json").code == 0
    with open_store("escultor-store") as store:
        made, _ = replay(store.blobs.get_bytes, (tmp_path / "second" / "verdict.json").read_text())
        forged = record_decision(replace(made.inputs, context=replace(made.inputs.context, look=1)))
        for part in forged.parts.values():
            store.blobs.put_bytes(part)
    write_pages(tmp_path / "second", forged)
    assert "the store knows no verdict" in cli(*ask, "--verify", "second/verdict.json").err


def test_the_workflow_names_options_that_exist(cli):
    text = (Path(__file__).parents[2] / "examples" / "gate.yml").read_text(encoding="utf-8")
    steps = yaml.safe_load(text)["jobs"]["gate"]["steps"]
    words = " ".join(str(step.get("run", "")) for step in steps).split()
    help_text = cli("compare", "--help").out
    assert {word for word in words if word.startswith("--") and word != "--body-file"} <= set(
        help_text.split()
    )
    assert {"--verify", "--policy", "--out"} <= set(words)

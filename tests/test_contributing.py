"""CONTRIBUTING.md can be followed: what it names exists, and one extension of each kind works."""

import ast
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import test_site
import tiny
import yaml
from test_layers import LADDER

from escultor.config import Config, Curation
from escultor.config import curation as curation_config
from escultor.cycle.api import evaluate_model
from escultor.data.formats import table
from escultor.datasets.build import build_dataset
from escultor.datasets.curation.steps import STEPS, RowStep, _each
from escultor.datasets.reading import read_training_rows
from escultor.datasets.rows import Dropped, target_text
from escultor.datasets.versions import read_rows
from escultor.model.folders import save
from escultor.skills.table import BINARY, METRICS, Metric
from escultor.store import open_store
from escultor.train.methods import METHODS
from escultor.train.methods.tokens import per_token
from escultor.train.objectives.loss import Loss
from escultor.train.run_record import TrainingTask
from escultor.train.runs import run

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
# By kind of extension: the cells of its row in the table.
TABLE = {
    cells[0]: cells[1:]
    for line in TEXT.split("## Where new things go")[1].split("\n## ")[0].splitlines()
    if line.startswith("| ") and len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 4
}
KINDS = ("objective", "format of rows", "curation step", "metric", "skill", "page of the documentation")


def tables_in(path: Path) -> set[str]:
    """Names that a module assigns at its top, or the keys of a YAML file."""
    if path.suffix == ".yml":
        return set(yaml.safe_load(path.read_text()))
    nodes = ast.parse(path.read_text()).body
    targets = [t for node in nodes if isinstance(node, ast.Assign) for t in node.targets]
    targets += [node.target for node in nodes if isinstance(node, ast.AnnAssign)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def test_every_kind_has_its_row():
    assert set(KINDS) < set(TABLE)


def test_every_path_of_the_document_exists():
    paths = re.findall(r"`([\w./-]+(?:\.(?:py|md|yml)|/))`", TEXT)
    assert len(paths) > 25
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_that_gets_the_row_is_in_the_file_it_names(kind):
    named = re.findall(r"`([^`]+)`", TABLE[kind][1])
    files = [ROOT / name for name in named if "/" in name or name.endswith(".yml")]
    tables = [name for name in named if not ("/" in name or name.endswith(".yml"))]
    assert files
    assert tables
    assert set(tables) <= set().union(*map(tables_in, files))


def test_its_ladder_is_the_one_that_is_checked():
    ladder = TEXT.split("## The ladder")[1].split("\n## ")[0]
    rooms = re.findall(r"`(\w+)`", "".join(line for line in ladder.splitlines() if line.startswith("| ")))
    assert rooms == [room for step in LADDER for room in step if room not in ("web", "__main__")]


def test_a_new_objective_trains(tmp_path, monkeypatch):
    def squared(logp, weight):
        return Loss((weight * logp**2).sum(), float(weight.sum()))

    monkeypatch.setitem(METHODS, "squared", replace(METHODS["sft"], objective=per_token(squared)))
    reports = []
    task = TrainingTask("squared", tiny.llama(), tiny.examples(4), tiny.settings(epochs=10))
    record = run(task, tmp_path / "run", on_step=reports.append)
    assert record.method == "squared"
    assert record.loss < reports[0].loss


def test_a_new_format_makes_rows_and_is_recognised(tmp_path, monkeypatch):
    def question_reply(row):
        return {"prompt": row["question"], "completion": row["reply"]}

    mine = table.RowFormat("question-reply", (frozenset(("question", "reply")),), "example", question_reply)
    monkeypatch.setattr(table, "FORMATS", (*table.FORMATS, mine))
    monkeypatch.setitem(table.BY_NAME, "question-reply", mine)
    source = tmp_path / "theirs.jsonl"
    source.write_text(json.dumps({"question": "2 + 2?", "reply": "4"}) + "\n")
    kind, contents = read_training_rows(source)
    (item,) = contents.items
    assert (kind, item.prompt[0].content, item.response) == ("example", "2 + 2?", "4")


def test_a_new_curation_step_drops_rows_and_its_reason_is_counted(tmp_path, monkeypatch):
    def shouting(row, settings, context):
        return Dropped("capitals alone") if target_text(row.item).isupper() else row

    monkeypatch.setitem(STEPS, "shouting", RowStep(_each(shouting)))
    monkeypatch.setattr(curation_config, "OPTIONAL", (*curation_config.OPTIONAL, "shouting"))
    source = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"Colour {i}?", "completion": "RED" if i % 2 else "a light red"} for i in range(6)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = Curation(steps=("shouting",), workers=1)
    with open_store(str(tmp_path / "store")) as store:
        version, _ = build_dataset(store, "colours", [source], settings)
        assert version.counts["shouting: capitals alone"] == 3
        assert {target_text(row.item) for row in read_rows(store, version)} == {"a light red"}


SUITE = """
name: greetings
metrics: [is_short]
decoding: {max_new_tokens: 4, temperature: 0}
items: [{id: a, prompt: red cat, reference: "The red cat sleeps."}]
"""
SKILL = """
name: greeting
metrics: [{name: is_short, python: "theirs.py:is_short", scale: {kind: binary}}]
decoding: {max_new_tokens: 4}
suite: [{input: red cat}]
"""


@pytest.mark.parametrize("kind", ["metric", "skill"])
def test_a_new_metric_or_skill_is_measured_in_a_suite(kind, tmp_path, monkeypatch):
    def is_short(output, item):
        return float(len(output.answer) < 1000)

    row = Metric("the answer has fewer than 1,000 characters", frozenset({"answer"}), BINARY, is_short)
    if kind == "metric":
        monkeypatch.setitem(METRICS, "is_short", row)
        (tmp_path / "suite.yaml").write_text(SUITE)
        suite, config = tmp_path / "suite.yaml", None
    else:
        (tmp_path / "greeting.yaml").write_text(SKILL)
        (tmp_path / "theirs.py").write_text("def is_short(answer):\n    return len(answer) < 1000\n")
        suite, config = "greeting", Config(skills=(str(tmp_path / "greeting.yaml"),))
    save(tiny.llama(), tmp_path / "model")
    assert evaluate_model(tmp_path / "model", suite, config).metrics["is_short"] == (1.0,)


def test_a_new_page_is_found_once_it_is_in_the_navigation(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "docs" / "extra.md").write_text("# Extra\n")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    monkeypatch.setattr(test_site, "ROOT", tmp_path)
    with pytest.raises(AssertionError):
        test_site.test_every_page_is_in_the_navigation_once()
    path = tmp_path / "mkdocs.yml"
    path.write_text(path.read_text().replace("gate.md\n", "gate.md\n      - Extra: extra.md\n"))
    test_site.test_every_page_is_in_the_navigation_once()

"""A run is keyed by the code of its own method: editing another method's code leaves its key as it is."""

import importlib.util
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import tiny

from escultor import code_closure
from escultor.code_closure import closure
from escultor.cycle.checkpoints import describe_model
from escultor.train.methods import METHODS
from escultor.train.methods.tokens import per_token
from escultor.train.run_record import (
    TrainingTask,
    dataset_hash,
    finished,
    method_code,
    read_record,
    run_key,
)
from escultor.train.runs import run

ALL = set(METHODS)


@pytest.fixture
def edit(monkeypatch):
    """`edit(file, old, new)` lets the closure read a file of the package as if it had been edited. What was
    read of the other files stays in its caches."""
    originals, texts = Path.read_text, {}

    def read_text(path, *args, **kwargs):
        return texts.get(path.resolve()) or originals(path, *args, **kwargs)

    def unless_edited(cached):
        return lambda path: cached.__wrapped__(path) if path in texts else cached(path)

    def edit_file(name, old, new):
        path = (code_closure.ROOT / name).resolve()
        text = originals(path, encoding="utf-8")
        assert old in text
        texts[path] = text.replace(old, new, 1)
        for each in ("_version", "_imports"):  # of other files too they may be different now
            monkeypatch.setattr(code_closure, each, cache(getattr(code_closure, each).__wrapped__))

    monkeypatch.setattr(Path, "read_text", read_text)
    for each in ("_tree", "_digest"):
        monkeypatch.setattr(code_closure, each, unless_edited(getattr(code_closure, each)))
    return edit_file


def changed_methods(edit, *change):
    before = {name: method_code(name) for name in METHODS}
    edit(*change)
    return {name for name in METHODS if method_code(name) != before[name]}


@pytest.mark.parametrize(
    ("file", "old", "new", "methods"),
    [
        ("train/objectives/dpo.py", "h - 1 / (2 * beta)", "h - 1 / beta", {"dpo"}),
        ("train/objectives/kto.py", "max(0.0, divergence)", "divergence", {"kto"}),
        ("train/objectives/kd.py", "temperature**2", "temperature", {"distill"}),
        ("train/objectives/nll.py", "-(logp * weight)", "(logp * weight)", {"pretrain", "sft"}),
        ("train/objectives/sequence_logps.py", "index_add", "index_sub", {"dpo", "kto"}),
        ("train/methods/preference.py", "dropout=False", "dropout=True", {"dpo"}),
        ("train/methods/unpaired.py", "dropout=False", "dropout=True", {"kto"}),
        ("train/methods/distillation.py", "alpha=settings.alpha", "alpha=0.5", {"distill"}),
        ("batching/teacher.py", "model.eval()", "model.train()", {"distill"}),
        ("batching/reference.py", "self.model.eval()", "self.model.train()", {"dpo", "kto"}),
        ("train/loop.py", "norm = whole(", "norm = 2 * whole(", ALL),
        ("batching/batches.py", "def first_fit(", "def second_fit(", ALL),
        ("train/objectives/dpo.py", "Unbounded below", "Not bounded below", set()),  # a docstring
        ("train/objectives/dpo.py", "# (P,)", "# one number per pair", set()),  # a comment
        ("train/methods/__init__.py", '"dpo": DPO,', '"dpo": DPO, "also": DPO,', set()),  # the table
        ("cli/train.py", "def dpo(", "def dpo2(", set()),
        ("cycle/steps.py", "def train_model(", "def train_model2(", set()),
    ],
)
def test_an_edit_changes_the_code_of_the_methods_that_run_through_it(edit, file, old, new, methods):
    assert changed_methods(edit, file, old, new) == methods


def test_the_key_of_a_run_follows_the_code_of_its_method(edit):
    items = tiny.examples(2)
    task = TrainingTask("sft", tiny.llama(), items, tiny.settings())
    before = run_key(task, dataset_hash(items))
    edit("train/objectives/dpo.py", "h - 1 / (2 * beta)", "h - 1 / beta")
    assert run_key(task, dataset_hash(items)) == before
    edit("train/objectives/nll.py", "-(logp * weight)", "(logp * weight)")
    assert run_key(task, dataset_hash(items)) != before


def test_no_method_runs_through_the_code_of_another():
    own = {
        name: set(closure(*METHODS[name].functions(), without=("escultor.train.methods",))) for name in ALL
    }
    for name, file in {
        "dpo": "train/objectives/dpo.py",
        "kto": "train/objectives/kto.py",
        "distill": "train/objectives/kd.py",
    }.items():
        assert {other for other in ALL if file in own[other]} == {name}


FOCAL = """
from escultor.train.objectives.loss import Loss


def focal(logp, weight):
    return Loss(-(weight * (1 - logp.exp()) ** {gamma} * logp).sum(), float(weight.sum()))
"""


def test_a_method_from_outside_the_package_is_keyed_by_its_own_file(edit, tmp_path, monkeypatch):
    codes = []
    for gamma in (2, 3):
        path = tmp_path / str(gamma) / "my_objective.py"
        path.parent.mkdir()
        path.write_text(FOCAL.format(gamma=gamma))
        spec = importlib.util.spec_from_file_location("my_objective", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setitem(METHODS, "focal", replace(METHODS["sft"], objective=per_token(module.focal)))
        codes.append(method_code("focal"))
    assert len({*codes, method_code("sft")}) == 3


def test_a_run_folder_of_an_older_version_can_still_be_read(tmp_path):
    """Its run.json names the method `phase`."""
    record = run(TrainingTask("sft", tiny.llama(), tiny.examples(4), tiny.settings(max_steps=1)), tmp_path)
    path = tmp_path / "run.json"
    values = json.loads(path.read_text())
    assert values["method"] == "sft"
    values["phase"] = values.pop("method")
    path.write_text(json.dumps(values))
    assert read_record(tmp_path)["method"] == "sft"
    assert finished(tmp_path, record.key) == record
    assert describe_model("tree", tmp_path / "model").method == "sft"

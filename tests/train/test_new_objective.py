"""A new objective is one pure function and one row in the table; training, records and promotion follow."""

from dataclasses import replace

import pytest
import tiny
import torch
from torch import Tensor

from escultor.config import Dpo
from escultor.cycle.api import promote
from escultor.model.load import load
from escultor.store import open_store, registry
from escultor.train.methods import METHODS
from escultor.train.methods.preference import per_pair
from escultor.train.methods.tokens import per_token
from escultor.train.objectives.loss import Loss
from escultor.train.run_record import TrainingTask
from escultor.train.runs import preview, run
from escultor.types import Checkpoint, Deployment, Message, Pair, Role


def focal(logp: Tensor, weight: Tensor) -> Loss:
    """-sum_k w_k (1 - p_k)^2 log p_k: Lin et al. 2017, arXiv:1708.02002, eq. 4, with gamma 2."""
    return Loss(-(weight * (1 - logp.exp()) ** 2 * logp).sum(), float(weight.sum()))


def exponential(h: Tensor, beta: float, flip_rate: Tensor) -> Tensor:
    """exp(-beta h): Tang et al. 2024, arXiv:2402.05749, table 1."""
    return torch.exp(-beta * h)


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setitem(METHODS, "focal", replace(METHODS["sft"], objective=per_token(focal)))
    monkeypatch.setitem(METHODS, "exponential", replace(METHODS["dpo"], objective=per_pair(exponential)))


def test_one_on_single_texts_trains_as_the_others_do(table, tmp_path):
    items, own = tiny.examples(8), tiny.settings(epochs=40, batch_size=8, micro_batch_size=3)
    assert preview(TrainingTask("focal", tiny.llama(), items, own)).rows == 8
    reports = []
    record = run(TrainingTask("focal", tiny.llama(), items, own), tmp_path, on_step=reports.append)
    assert (record.method, record.counts["examples"], record.steps) == ("focal", 8, 40)
    p = torch.tensor(1 / tiny.VOCABULARY)  # of a fresh model
    assert reports[0].loss == pytest.approx(float(-((1 - p) ** 2) * p.log()), abs=0.1)
    assert record.loss < 0.1 * reports[0].loss
    assert not tiny.same_weights(load(str(tmp_path / "model")).model, tiny.llama().model)
    assert run(TrainingTask("focal", tiny.llama(), items, own), tmp_path) == record


def test_one_on_pairs_has_the_reference_and_the_margins_of_the_family(table, tmp_path):
    items = [
        Pair(f"p{i}", (Message(Role.USER, tiny.WORDS[i]),), "cat sings", f"dog {tiny.WORDS[i]}", tiny.ORIGIN)
        for i in range(8)
    ]
    own = Dpo(epochs=20, batch_size=8, learning_rate=1e-2, warmup_steps=0, dtype="float32", beta=0.5)
    reports = []
    record = run(TrainingTask("exponential", tiny.llama(), items, own), tmp_path, on_step=reports.append)
    assert record.counts["reference rows computed"] == 8
    assert reports[0].loss == pytest.approx(1.0, abs=1e-5)  # at the reference every margin is 0
    assert record.loss < 0.5
    assert reports[-1].more["accuracy"] == 1.0


def test_its_model_can_be_kept_and_promoted(table, tmp_path):
    out = tmp_path / "run"
    record = run(TrainingTask("focal", tiny.llama(), tiny.examples(4), tiny.settings(max_steps=1)), out)
    with open_store(str(tmp_path / "store")) as store:
        checkpoint, deployment = promote(store, out / "model", "a new objective")
        assert (checkpoint.method, checkpoint.dataset_hash) == ("focal", record.dataset_hash)
        assert [kept for _, kept in store.log.read(Checkpoint)] == [checkpoint]
        assert [kept for _, kept in store.log.read(Deployment)] == [deployment]
        assert registry.champion(registry.read_deployments(store.log)) == checkpoint.id

"""An id covers all that its record says, so that no record is refused for other content under its id."""

from dataclasses import fields, replace
from typing import Any

import pytest
from tiny import examples, llama, settings

from escultor.config import Config, Gate, Monitor
from escultor.cycle.steps import CycleRun, train_model
from escultor.cycle.workflow import Workflow
from escultor.evaluate.gate.decision import decide
from escultor.evaluate.scores import seal_scores
from escultor.monitor.rules import Reading
from escultor.monitor.states import RuleHistory, alert_of
from escultor.monitor.triggers import diagnose, plan
from escultor.skills.suites import make_suite, seal_suite
from escultor.store import open_store
from escultor.store.kinds import KINDS
from escultor.types import (
    Checkpoint,
    DatasetVersion,
    Estimate,
    Message,
    Role,
    Sampling,
    Scale,
    Scores,
    Suite,
    SuiteItem,
    ToolDefinitions,
)

# Kinds whose ids are drawn at random, so that no two records ever share one; and those that are named by what
# they are about, which the same function finds again before it would record them twice.
DRAWN = {"interaction", "pending", "feedback", "dataset_name", "review", "deployment", "erasure", "key"}
DRAWN |= {"quarantine_override", "alert_delivery", "alert_acknowledged", "call_tally", "cycle_schedule"}
FOUND_AGAIN = {"checkpoint", "dataset", "step", "held_out", "retired_dataset", "cycle_event"}
HASHED = {"scores", "suite", "verdict", "alert", "plan", "health", "tools", "media"}


def test_every_kind_of_record_has_one_of_the_three_ways_of_being_named():
    assert {kind.name for kind in KINDS} == DRAWN | FOUND_AGAIN | HASHED


def scores(**changes: Any) -> Scores:
    names = tuple(f"i{k}" for k in range(60))
    made = Scores(
        "", "base", "suite", names, names, {"quality": tuple(k / 100 for k in range(60))},
        {"parameters": 1.0}, {"quality": Scale()}, {"half": ("a", "b") * 30}, "answers",
    )  # fmt: skip
    return seal_scores(replace(made, **changes))


OTHER: dict[str, Any] = {
    "checkpoint": "other",
    "suite": "other",
    "items": tuple(f"j{k}" for k in range(60)),
    "clusters": ("one", "two") * 30,
    "metrics": {"quality": (0.5,) * 60},
    "summary": {},
    "scales": {"quality": Scale("lower")},
    "slices": {},
    "answers": None,
}


@pytest.mark.parametrize("field", [f.name for f in fields(Scores) if f.name != "id"])
def test_the_id_of_scores_covers_every_field(field):
    assert scores(**{field: OTHER[field]}).id != scores().id


def test_the_id_of_a_suite_covers_every_field():
    items = [SuiteItem(f"i{n}", (Message(Role.USER, f"{n}?"),), f"c{n}", ("it",)) for n in range(6)]
    made = make_suite("one", "chat", items, ["exact_match"], Sampling())
    record, same = made.record, {"decoding": made.record.decoding, "scales": made.record.metrics}

    def sealed(name="one", skill="chat", content=made.items, seeds=(0,), schema=None, **changed):
        kept = {**same, **changed}
        return seal_suite(
            name, skill, content, kept["scales"], kept["decoding"], seeds=seeds, schema=schema
        ).record

    others: list[Suite] = [
        sealed("two"), sealed(skill="trinity"), sealed(content=made.items[:5]), sealed(seeds=(1,)),
        sealed(schema={}), sealed(decoding=Sampling(0.5)), sealed(scales={"exact_match": Scale("lower")}),
    ]  # fmt: skip
    assert sealed() == record
    assert len({record.id, *(other.id for other in others)}) == 8


def test_the_ids_of_verdicts_alerts_and_plans_cover_what_they_say():
    sides, policy = (scores(), scores(checkpoint="new", metrics={"quality": (0.9,) * 60})), Gate(guards={})
    made = [decide(*sides, policy, seed) for seed in (0, 1)]
    made += [decide(*sides[::-1], policy, 0), decide(*sides, Gate(guards={}, alpha=0.01), 0)]
    assert len({verdict.because.id for verdict in made}) == 4
    estimate = Estimate("share", 0.2, 0.1, 0.3, 50)
    reading = Reading("thumbs_down", "v", estimate, 0.1, True, True, False, "high")
    others = replace(reading, limit=0.15), replace(reading, estimate=replace(estimate, n=60))
    readings = [reading, *others]
    raised = [alert_of(each, RuleHistory(), 10.0) for each in readings]
    assert len({alert.id for alert in raised}) == 3
    planned = [
        plan(diagnose([a], n), None, Monitor(), now) for a in raised for n in (1, 2) for now in (1.0, 2.0)
    ]
    assert len({made.id for made in planned if made}) == 12


def test_other_tools_have_another_id_and_equal_ones_the_same(tmp_path):
    with open_store(str(tmp_path / "store")) as store:
        store.log.append(ToolDefinitions("one", "[1]"), ToolDefinitions("two", "[2]"))
        assert store.log.append(ToolDefinitions("one", "[1]")) == [1]


def test_a_cycle_goes_on_after_a_change_of_a_hyper_parameter(tmp_path):
    with open_store(str(tmp_path / "store")) as store:
        cycle, rows = CycleRun(Workflow(store), Config(), None), examples(6)  # type: ignore[arg-type]
        made = [
            train_model(cycle, "new", "sft", settings(**changes), rows, (), llama)
            for changes in ({"epochs": 1}, {"epochs": 2}, {"learning_rate": 0.02})
        ]
        assert len({str(result["checkpoint"]) for result in made}) == 3
        (dataset,) = [version for _, version in store.log.read(DatasetVersion)]
        assert sum(dataset.counts.values()) == dataset.rows == 6
        assert {c.dataset_hash for _, c in store.log.read(Checkpoint)} == {dataset.hash}
        assert all("counts" in result for result in made)

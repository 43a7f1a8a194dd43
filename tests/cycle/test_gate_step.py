"""The gate as a step of a cycle run: decided once, under one id, and reused."""

import json

from escultor.config import Config, Gate
from escultor.cycle.steps import CycleRun, gate
from escultor.cycle.workflow import Workflow
from escultor.evaluate.gate import decision, effects
from escultor.skills.suites import make_suite, register
from escultor.store import open_store, registry
from escultor.types import Deployment, Message, Promote, Role, Sampling, Scores, SuiteItem, Verdict


def test_a_gate_step_measures_once_and_its_id_is_that_of_log_file_and_deployment(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(decision, "measure", lambda *a: calls.append(a) or effects.measure(*a))
    items = [SuiteItem(f"i{n}", (Message(Role.USER, f"{n}?"),), f"c{n}", ("it",)) for n in range(60)]
    suite = make_suite("questions", "chat", items, ["exact_match"], Sampling(max_new_tokens=2))
    ids = tuple(item.id for item in items)
    champion, candidate = (
        Scores(name, name, suite.id, ids, suite.clusters, {"exact_match": (value,) * 60})
        for name, value in (("old", 0.0), ("new", 1.0))
    )
    config = Config(gate=Gate(primary=("exact_match",), guards={}))
    with open_store(str(tmp_path / "store")) as store:
        register(store, suite)
        verdicts = [
            gate(CycleRun(Workflow(store), config, suite), "candidate", champion, candidate) for _ in range(2)
        ]
        assert isinstance(verdicts[0], Promote)
        assert verdicts[0] == verdicts[1]
        assert len(calls) == 1
        id = verdicts[0].because.id
        file = store.root / "verdicts" / id / "verdict.json"
        assert json.loads(file.read_text())["because"]["id"] == id
        assert [v.because.id for _, v in store.log.read(Verdict)] == [id]
        deployment = registry.current([d for _, d in store.log.read(Deployment)])
        assert deployment is not None
        assert deployment.because == id

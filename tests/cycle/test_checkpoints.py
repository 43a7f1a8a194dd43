"""Model folders in the store: by their content, whatever they are called."""

import pytest
from tiny import llama

from escultor.config import Config, Gate
from escultor.cycle.checkpoints import require_champion
from escultor.cycle.evaluation_service import champion_suite, default_suite, find_suite
from escultor.cycle.steps import CycleRun, import_model
from escultor.cycle.workflow import Workflow
from escultor.errors import InputError
from escultor.model.folders import save
from escultor.skills.probes import probe_suite
from escultor.skills.suites import register
from escultor.store.blobs import tree_hash
from escultor.types import Scores


def test_a_model_retrained_in_place_is_imported_anew(store, tmp_path):
    suite, folder = probe_suite("safety"), tmp_path / "model"
    save(llama(), folder)
    first = import_model(CycleRun(Workflow(store), Config(), suite), str(folder), "base")
    cycle = CycleRun(Workflow(store), Config(), suite)
    assert import_model(cycle, str(folder), "base") == first == tree_hash(folder)
    assert [reused for _, reused in cycle.workflow.steps] == [True]
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    save(llama(seed=1), folder)
    assert {path.name: path.stat().st_size for path in folder.iterdir()} == sizes
    assert import_model(cycle, str(folder), "base") == tree_hash(folder) != first


def test_the_suite_of_a_cycle_is_the_one_that_the_champion_was_last_measured_on(store):
    suites = [probe_suite("safety"), probe_suite("sycophancy")]
    for suite in suites:
        register(store, suite)
        metrics = dict.fromkeys(suite.record.metrics, (1.0,) * suite.record.items)
        ids, clusters = tuple(item.id for item in suite.items), suite.clusters
        store.log.append(Scores(f"s-{suite.record.name}", "champion", suite.id, ids, clusters, metrics))
    for suite in suites:
        config = Config(gate=Gate(primary=(next(iter(suite.record.metrics)),)))
        assert champion_suite(store, "champion", config) == suite
        assert champion_suite(store, "champion", config, skill="support") is None
    assert champion_suite(store, "champion", Config()) is None  # probes guard: no model is for them
    assert champion_suite(store, "another", Config()) is None


def test_what_is_lacking_is_said_with_what_to_do(store):
    with pytest.raises(InputError, match="escultor promote"):
        require_champion(store)
    with pytest.raises(InputError, match="escultor skills new support"):
        find_suite("support", store)
    with pytest.raises(InputError, match=r"not clear which suite.*--suite"):
        default_suite(store, Config())

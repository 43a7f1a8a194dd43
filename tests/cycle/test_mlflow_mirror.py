"""Models in MLflow: with a client in memory, and with the real one where it is installed."""

import contextlib
import importlib.util
import sys
from collections import defaultdict
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest

from escultor.cycle.mlflow_mirror import NAME, TAG, mirror
from escultor.errors import FaultError, InputError
from escultor.store import open_store, registry
from escultor.types import Checkpoint, Scores

IS_INSTALLED = importlib.util.find_spec("mlflow") is not None


class MlflowException(Exception):
    pass


class Page(list):
    token = None


class Client:
    """What the mirror uses of MlflowClient, in memory, by URI."""

    servers: ClassVar = defaultdict(
        lambda: SimpleNamespace(experiments={}, runs=[], versions=None, aliases={}, calls=0)
    )

    def __init__(self, tracking_uri, registry_uri):
        assert tracking_uri == registry_uri
        self.at = self.servers[tracking_uri]

    def _change(self):
        self.at.calls += 1
        if self.at.calls == getattr(self.at, "fails_at", 0):
            raise MlflowException("the server is away")

    def get_experiment_by_name(self, name):
        found = self.at.experiments.get(name)
        return found and SimpleNamespace(experiment_id=found)

    def create_experiment(self, name):
        self._change()
        return self.at.experiments.setdefault(name, "1")

    def search_registered_models(self, asked):
        return [] if self.at.versions is None else [asked]

    def create_registered_model(self, name):
        self._change()
        self.at.versions = []

    def search_model_versions(self, asked, most, page_token=None):
        return Page(self.at.versions)

    def create_model_version(self, name, source, run_id, tags):
        self._change()
        self.at.versions.append(SimpleNamespace(version=len(self.at.versions) + 1, tags=tags, run_id=run_id))
        return self.at.versions[-1]

    def search_runs(self, experiments, asked, max_results):
        return [run for run in self.at.runs if run.data.tags[TAG] in asked]

    def create_run(self, experiment, tags, run_name):
        self._change()
        info = SimpleNamespace(run_id=f"r{len(self.at.runs)}", status="RUNNING")
        self.at.runs.append(
            SimpleNamespace(info=info, data=SimpleNamespace(tags={**tags}, params={}, metrics={}))
        )
        return self.at.runs[-1]

    def _data(self, id):
        self._change()
        return next(run for run in self.at.runs if run.info.run_id == id).data

    def log_param(self, id, name, value):
        self._data(id).params[name] = value

    def log_metric(self, id, name, value):
        self._data(id).metrics[name] = value

    def set_tag(self, id, name, value):
        self._data(id).tags[name] = value

    def set_terminated(self, id, status):
        self._change()
        next(run for run in self.at.runs if run.info.run_id == id).info.status = status

    def get_registered_model(self, name):
        return SimpleNamespace(aliases=self.at.aliases)

    def set_registered_model_alias(self, name, alias, version):
        self._change()
        self.at.aliases[alias] = version

    def delete_registered_model_alias(self, name, alias):
        self._change()
        del self.at.aliases[alias]


@pytest.fixture(params=["in memory", *(["real"] if IS_INSTALLED else [])])
def client(request, tmp_path, monkeypatch):
    """The client that the mirror will find, at a place of the test's own."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    if request.param == "real":
        from mlflow import MlflowClient

        return MlflowClient(uri, uri), uri
    exceptions = ModuleType("mlflow.exceptions")
    exceptions.MlflowException = MlflowException
    module = ModuleType("mlflow")
    module.MlflowClient, module.exceptions = Client, exceptions
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", exceptions)
    return Client(uri, uri), uri


def checkpoint(id, *parents):
    return Checkpoint(id, f"name {id}", "sft", parents, "c", "d", "v", 7, 100)


@pytest.fixture
def store(tmp_path):
    with open_store(str(tmp_path / "store")) as opened:
        scores = Scores("s1", "m1", "suite" * 9, ("a", "b"), ("a", "b"), {"exact match!": (1.0, 0.0)})
        first = registry.deployment_for("first", "m1", None, now=1.0)
        opened.log.append(checkpoint("m1"), checkpoint("m2", "m1"), scores, first)
        yield opened


def seen(client):
    versions = {v.tags[TAG]: str(v.version) for v in client.search_model_versions(f"name='{NAME}'", 100)}
    aliases = {k: str(v) for k, v in client.get_registered_model(NAME).aliases.items()}
    return versions, aliases


@pytest.mark.filterwarnings("ignore")  # of MLflow's own libraries
def test_runs_versions_and_aliases_follow_the_store(store, client):
    mlflow, uri = client
    assert mirror(store, uri) == (2, 2, {"champion": "1"}, ())
    assert seen(mlflow) == ({"m1": "1", "m2": "2"}, {"champion": "1"})
    experiment = mlflow.get_experiment_by_name(NAME).experiment_id
    (run,) = mlflow.search_runs([experiment], f"tags.`{TAG}` = 'm1'", max_results=9)
    assert run.data.params["seed"] == "7"
    assert run.data.metrics == {"suitesuitesu/exact match_": 0.5}
    assert run.info.status == "FINISHED"
    champion = registry.current(registry.read_deployments(store.log))
    store.log.append(registry.deployment_for("second", "m2", champion, now=2.0))
    assert mirror(store, uri) == (2, 0, {"champion": "2", "previous": "1"}, ())
    assert seen(mlflow) == ({"m1": "1", "m2": "2"}, {"champion": "2", "previous": "1"})
    second = registry.current(registry.read_deployments(store.log))
    store.log.append(registry.deployment_for("upstream", "http://x gpt", second, now=3.0))
    assert mirror(store, uri) == (2, 0, {"previous": "2"}, ("http://x gpt",))
    assert seen(mlflow)[1] == {"previous": "2"}


@pytest.mark.parametrize("fails_at", range(1, 27, 3))
def test_a_mirror_that_was_cut_short_is_completed(store, tmp_path, monkeypatch, fails_at):
    exceptions = SimpleNamespace(MlflowException=MlflowException)
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Client, exceptions=exceptions))
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", exceptions)
    uri = str(tmp_path)
    Client.servers[uri].fails_at = fails_at
    with contextlib.suppress(FaultError):
        mirror(store, uri)
    mirror(store, uri)
    at = Client.servers[uri]
    assert [v.tags[TAG] for v in at.versions] == ["m1", "m2"]
    assert [(r.data.tags[TAG], r.info.status, len(r.data.params)) for r in at.runs] == [
        ("m1", "FINISHED", 6),
        ("m2", "FINISHED", 7),
    ]
    assert at.aliases == {"champion": "1"}
    calls = at.calls
    mirror(store, uri)
    assert at.calls == calls  # a third time changes nothing


def test_without_its_library_the_remedy_is_told(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r"escultor\[mlflow\]"):
        mirror(store, "sqlite:///x.db")

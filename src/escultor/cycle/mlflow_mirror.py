"""The store's models in MLflow: each checkpoint a run and a version of one registered model, with aliases.

One direction, from the store to MLflow (a tracking server, or its own SQLite file). What is there already is
left, found again by the tag `escultor.checkpoint`, so that a mirror that was cut short is completed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from escultor.errors import FaultError, InputError
from escultor.store import Store, registry
from escultor.store.files import locked
from escultor.types import Checkpoint, Scores, Verdict

NAME = "escultor"  # of the experiment and of the registered model
TAG = "escultor.checkpoint"
PAGE = 1000  # versions that are asked for at a time
MAX_TEXT = 5000  # characters of a tag
_NOT_IN_NAMES = re.compile(r"[^\w\-. /]")


class MirrorReport(NamedTuple):
    """What a mirror found: checkpoints, those that were new, the aliases set, and the versions that an alias
    names and that are no checkpoints (upstreams), which MLflow does not get."""

    checkpoints: int
    new: int
    aliases: dict[str, str]
    left_out: tuple[str, ...]


def mirror(store: Store, uri: str) -> MirrorReport:
    """Bring MLflow up to date. Raises InputError where its library is missing, FaultError where it fails."""
    try:
        from mlflow import MlflowClient  # type: ignore[import-not-found]
        from mlflow.exceptions import MlflowException  # type: ignore[import-not-found]
    except ImportError as error:
        remedy = "pip install 'escultor[mlflow]'"
        raise InputError("a mirror in MLflow needs its library", uri, None, remedy) from error
    with locked(store.root / "mlflow.lock"):
        try:
            return _Mirror(store, MlflowClient(tracking_uri=uri, registry_uri=uri)).update()
        except MlflowException as error:
            raise FaultError("MLflow failed", str(error)[:MAX_TEXT]) from error


@dataclass(slots=True)
class _Mirror:
    store: Store
    client: Any

    def update(self) -> MirrorReport:
        experiment, versions = self._experiment(), self._versions()
        before, count = len(versions), 0
        for _, checkpoint in self.store.log.read(Checkpoint):
            run, count = self._run(experiment, checkpoint), count + 1
            self._describe(run, checkpoint)
            if checkpoint.id not in versions:
                tags, source = {TAG: checkpoint.id}, f"{NAME}:{checkpoint.id}"
                made = self.client.create_model_version(NAME, source, run.info.run_id, tags=tags)
                versions[checkpoint.id] = str(made.version)
        aliases, left_out = self._set_aliases(versions)
        return MirrorReport(count, len(versions) - before, aliases, left_out)

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(NAME)
        return found.experiment_id if found else self.client.create_experiment(NAME)

    def _versions(self) -> dict[str, str]:
        """The numbers of the versions that MLflow has, by checkpoint."""
        if not self.client.search_registered_models(f"name='{NAME}'"):
            self.client.create_registered_model(NAME)
        found, token = {}, None
        while True:
            page = self.client.search_model_versions(f"name='{NAME}'", PAGE, page_token=token)
            found |= {each.tags[TAG]: str(each.version) for each in page if TAG in each.tags}
            if not (token := page.token):
                return found

    def _run(self, experiment: str, checkpoint: Checkpoint) -> Any:
        asked = f"tags.`{TAG}` = '{checkpoint.id}'"
        found = self.client.search_runs([experiment], asked, max_results=1)
        tags = {TAG: checkpoint.id}
        return found[0] if found else self.client.create_run(experiment, tags=tags, run_name=checkpoint.name)

    def _describe(self, run: Any, checkpoint: Checkpoint) -> None:
        """Parameters, mean scores and the last verdict, as far as they are new."""
        id = run.info.run_id
        names = ("method", "seed", "parameters", "config_hash", "dataset_hash", "code_version")
        values = {name: str(getattr(checkpoint, name)) for name in names}
        for name, value in (values | {"parents": " ".join(checkpoint.parents)}).items():
            if value and name not in run.data.params:
                self.client.log_param(id, name, value[:MAX_TEXT])
        for name, value in self._means(checkpoint.id):
            if run.data.metrics.get(name) != value:
                self.client.log_metric(id, name, value)
        for _, verdict in self.store.log.read(Verdict, target=checkpoint.id):
            said = f"{type(verdict).__name__.lower()}: {verdict.because.reason}"[:MAX_TEXT]
            if run.data.tags.get("escultor.verdict") != said:
                self.client.set_tag(id, "escultor.verdict", said)
        if run.info.status != "FINISHED":
            self.client.set_terminated(id, "FINISHED")

    def _means(self, checkpoint: str) -> Iterator[tuple[str, float]]:
        means = {}
        for _, scores in self.store.log.read(Scores, target=checkpoint):
            for metric, values in scores.metrics.items():
                name = f"{scores.suite[:12]}/{_NOT_IN_NAMES.sub('_', metric)}"
                means |= {name: sum(values) / len(values)} if values else {}
        yield from means.items()

    def _set_aliases(self, versions: dict[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
        wanted = registry.aliases(registry.read_deployments(self.store.log))
        now = {k: str(v) for k, v in self.client.get_registered_model(NAME).aliases.items()}
        named = {alias: versions[id] for alias, id in wanted.items() if id in versions}
        for alias in registry.ALIASES:
            if alias in named and now.get(alias) != named[alias]:
                self.client.set_registered_model_alias(NAME, alias, named[alias])
            elif alias in now and alias not in named:
                self.client.delete_registered_model_alias(NAME, alias)
        return named, tuple(sorted(set(wanted.values()) - versions.keys()))

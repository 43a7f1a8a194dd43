"""The arrows of a turn, each from the store to the store: train, evaluate, gate, deploy."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from escultor.batching.preflight import Preflight
from escultor.config import Config, Training
from escultor.cycle import gate_service
from escultor.cycle.workflow import Result, Workflow
from escultor.datasets.held_out import load_guard
from escultor.errors import ConfigError, FaultError
from escultor.evaluate.gate.decision_record import verdict_of
from escultor.evaluate.predictions import Predictions
from escultor.evaluate.scoring import evaluate
from escultor.ids import code_hash, plain
from escultor.model.folders import resolve
from escultor.model.load import load
from escultor.model.loaded import Loaded, count_parameters
from escultor.skills.suites import EvaluationSuite, register
from escultor.store import registry
from escultor.train.filenames import METRICS, MODEL
from escultor.train.methods import METHODS
from escultor.train.run_record import RunRecord, dataset_hash
from escultor.train.runs import run
from escultor.types import Checkpoint, DatasetVersion, Deployment, Promote, Scores, Verdict


@dataclass(frozen=True, slots=True)
class CycleRun:
    """What the arrows of one turn share."""

    flow: Workflow
    config: Config
    exam: EvaluationSuite

    @property
    def blobs(self) -> Any:
        return self.flow.store.blobs

    @property
    def log(self) -> Any:
        return self.flow.store.log

    def load(self, checkpoint: str) -> Loaded:
        """The model of a checkpoint id."""
        return load(str(self.blobs.tree(checkpoint)))

    def deployments(self) -> list[Deployment]:
        return [deployment for _, deployment in self.log.read(Deployment)]


def import_model(turn: CycleRun, name: str, as_name: str) -> str:
    """Bring a model folder into the store and return its checkpoint id."""
    folder = resolve(name)

    def work(key: str) -> tuple[Result, list[Any]]:
        tree = turn.blobs.put_tree(folder)
        parameters = count_parameters(load(str(folder)).model)
        return {"checkpoint": tree}, [
            Checkpoint(tree, as_name, "import", (), "", "", code_hash(), 0, parameters)
        ]

    inputs = {"files": [[p.name, p.stat().st_size] for p in sorted(folder.iterdir())]}
    return turn.flow.step(f"import {as_name}", inputs, work)["checkpoint"]


def train_model(
    turn: CycleRun,
    name: str,
    phase: Any,
    settings: Training,
    items: Sequence[Any],
    parents: tuple[str, ...],
    start: Callable[[], Loaded],
    frozen: Callable[[], Loaded] | None = None,
) -> Result:
    """Train and keep a checkpoint. Result: checkpoint, metrics (blob), counts, steps, tokens, loss."""
    if settings.lora and not settings.lora.merge:
        raise ConfigError(
            "a turn keeps whole models, since adapters need their base",
            f"lora.merge false of {phase}",
            "lora.merge true",
        )
    left_out: Counter[str] = Counter()
    items = load_guard(turn.flow.store).allowed(items, left_out)
    note = turn.flow.progress.note
    for why, n in left_out.items():
        note(f"{name}: {why}: {n:,}")

    def warn(found: Preflight) -> None:
        for text in found.warnings:
            note(f"{name}: {text}")

    def work(key: str) -> tuple[Result, list[Any]]:
        root = turn.flow.store.root
        out, other = root / "runs" / key, frozen() if frozen else None
        watch: dict[str, Any] = {"on_step": turn.flow.progress.training, "on_preflight": warn}
        record = run(phase, start(), items, settings, out, other, parents, cache=root / "cache", **watch)
        return _kept_run(turn, name, record, items, left_out, out)

    inputs = {"settings": settings.model_dump(), "items": dataset_hash(items), "parents": list(parents)}
    return turn.flow.step(name, inputs, work)


def _kept_run(
    turn: CycleRun, name: str, record: RunRecord, items: Sequence[Any], left_out: Counter[str], out: Path
) -> tuple[Result, list[Any]]:
    """What a run made, moved into the store, as the result and nouns of its step."""
    tree = turn.blobs.put_tree(out / MODEL)
    metrics = turn.blobs.put_bytes((out / METRICS).read_bytes())
    data = _dataset(turn, record.phase, record.dataset_hash, items, record.counts | left_out)
    shutil.rmtree(out)
    kept = {k: v for k, v in asdict(record).items() if k in ("counts", "steps", "tokens", "loss")}
    result = {"checkpoint": tree, "metrics": metrics, "rows": len(items), **kept}
    return result, [data, checkpoint_of(record, tree, name)]


def checkpoint_of(record: RunRecord, tree: str, name: str) -> Checkpoint:
    """What a run made, as a noun."""
    return Checkpoint(
        tree,
        name,
        record.phase,
        record.parents,
        record.config_hash,
        record.dataset_hash,
        record.code_version,
        record.seed,
        record.parameters,
    )


def _dataset(
    turn: CycleRun, phase: str, dataset: str, items: Sequence[Any], counts: dict[str, int]
) -> DatasetVersion:
    """The items as a version of a dataset, their rows kept as JSONL."""
    kind = METHODS[phase].kind
    text = "".join(json.dumps(plain(item), ensure_ascii=False) + "\n" for item in items)
    by_rule = Counter(f"rule {item.origin.rule}" for item in items)
    return DatasetVersion(
        dataset,
        f"{kind}-{dataset[:8]}",
        kind,
        len(items),
        dict(by_rule) | counts,
        turn.blobs.put_bytes(text.encode()),
    )


def evaluate_model(turn: CycleRun, checkpoint: str, name: str) -> Scores:
    """Scores of a checkpoint on the turn's suite; its answers are kept as a blob beside them."""

    def work(key: str) -> tuple[Result, list[Any]]:
        register(turn.flow.store, turn.exam)
        done = evaluate(
            turn.load(checkpoint),
            checkpoint,
            turn.exam,
            turn.config.evaluation,
            turn.config.serve.hourly_price_usd,
            turn.flow.store.root / "cache",
            turn.flow.progress.note,
        )
        answers = turn.blobs.put_bytes(done.kept.to_bytes())
        # The step that writes the scores names them, so that measuring again never rewrites them.
        scores = replace(done.scores, id=key)
        return {"scores": scores.id, "answers": answers}, [scores]

    inputs = {
        "checkpoint": checkpoint,
        "suite": turn.exam.hash,
        "settings": turn.config.evaluation.model_dump(),
        "price": turn.config.serve.hourly_price_usd,
    }
    result = turn.flow.step(f"evaluate {name}", inputs, work, kind="evaluate")
    return _kept(turn.log.get(Scores, result["scores"]))


def answers_of(turn: CycleRun, name: str) -> list[str]:
    """The answers that an evaluation in this flow kept."""
    step = next(step for step, _ in reversed(turn.flow.steps) if step.name == f"evaluate {name}")
    kept = Predictions.from_bytes(turn.blobs.get_bytes(str(step.result["answers"])))
    return [said[0] for said in kept.answers]


def gate(
    turn: CycleRun, name: str, champion: Scores, candidate: Scores, with_promotion: Sequence[Any] = ()
) -> Verdict:
    """Decide, write the verdict and its page (`verdicts/` in the store), and deploy what is promoted;
    `with_promotion` is recorded with it."""

    def work(key: str) -> tuple[Result, list[Any]]:
        policy, store = turn.config.gate, turn.flow.store
        around = gate_service.circumstances(store, champion, candidate, policy)
        names = ("champion", name)
        dossier = gate_service.dossier_of(store, champion, candidate, policy, around, names, turn.exam)
        gate_service.file(store, dossier, store.root / "verdicts" / key)
        verdict = verdict_of(dossier)
        comparison = replace(verdict.because, id=key)
        verdict = replace(verdict, because=comparison)
        nouns: list[Any] = [verdict]
        if isinstance(verdict, Promote):
            nouns += [_deployment(turn, key, candidate.checkpoint), *with_promotion]
        return {"verdict": type(verdict).__name__, "reason": comparison.reason}, nouns

    inputs = {"champion": champion.id, "candidate": candidate.id, "policy": turn.config.gate.model_dump()}
    with gate_service.alone(turn.flow.store):
        turn.flow.step(f"gate {name}", inputs, work)
    key = turn.flow.key(f"gate {name}", inputs)
    return _kept(turn.log.get(Verdict, key))


def deploy_first(turn: CycleRun, checkpoint: str) -> None:
    """Deploy a first model: nothing stands yet that it could be compared with."""

    def work(key: str) -> tuple[Result, list[Any]]:
        return {}, [_deployment(turn, "the first model: nothing to compare it with", checkpoint)]

    turn.flow.step("deploy base", {"checkpoint": checkpoint}, work)


def _deployment(turn: CycleRun, because: str, checkpoint: str) -> Deployment:
    return registry.deployment_for(because, checkpoint, registry.current(turn.deployments()))


def _kept(found: Any) -> Any:
    if found is None:
        raise FaultError("the log lacks what a step of it names", remedy="restore the store from a backup")
    return found

"""The steps of a cycle run, each from the store to the store: import, train, evaluate, gate, deploy."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from escultor.batching.preflight import Preflight
from escultor.code_closure import code_version
from escultor.config import Config, Gate, Training
from escultor.cycle import gate_service
from escultor.cycle.checkpoints import describe_model
from escultor.cycle.evaluation_service import policy_of, suite_of_skill, timed_for
from escultor.cycle.preferences import require_judges, with_preferences
from escultor.cycle.workflow import Result, Workflow
from escultor.datasets.held_out import load_guard
from escultor.datasets.reading import versions_read
from escultor.datasets.rows import CurationRow, write_line
from escultor.errors import ConfigError, FaultError
from escultor.evaluate.gate.other_skills import OtherSkill
from escultor.evaluate.predictions import Predictions
from escultor.evaluate.scoring import evaluate
from escultor.model.folders import resolve
from escultor.model.load import load
from escultor.model.loaded import Loaded
from escultor.skills.catalog import load_skills
from escultor.skills.suites import EvaluationSuite, register
from escultor.store import Store, registry
from escultor.train.filenames import METRICS, MODEL
from escultor.train.methods import METHODS
from escultor.train.replay import with_replay
from escultor.train.run_record import RunRecord, TrainingTask, dataset_hash, method_code
from escultor.train.runs import run
from escultor.types import Checkpoint, DatasetVersion, Deployment, Promote, Scores, Verdict

# How a verdict is shown does not decide it.
PAGES = tuple(f"escultor.evaluate.report.{name}" for name in ("decision_markdown", "decision_page", "page"))
NOT_DECIDING = (*PAGES, "escultor.config.aliases")


@dataclass(frozen=True, slots=True)
class CycleRun:
    """What the steps of one cycle run share."""

    workflow: Workflow
    config: Config
    suite: EvaluationSuite
    skill: str | None = None  # the skill whose feedback is learnt from; None: all feedback

    @property
    def store(self) -> Store:
        return self.workflow.store

    def load(self, checkpoint: str) -> Loaded:
        """The model of a checkpoint id."""
        return load(str(self.store.blobs.tree(checkpoint)))

    @property
    def policy(self) -> Gate:
        """The gate's policy of its suite and skill."""
        return policy_of(self.suite.record, self.config)

    def champion(self) -> str | None:
        return registry.champion(registry.read_deployments(self.store.log))

    def known(self, record: Any) -> Any:
        """The record of this id that is in the log, else `record` itself: the same content may have been made
        before by another version of the code, and a record is never rewritten."""
        id = record.hash if isinstance(record, DatasetVersion) else record.id
        return self.store.log.get(type(record), id) or record


def import_model(cycle: CycleRun, name: str, as_name: str) -> str:
    """Copy a model folder into the store and return its checkpoint id."""
    folder = resolve(name)
    tree = cycle.store.blobs.put_tree(folder)

    def work(key: str) -> tuple[Result, list[Any]]:
        return {"checkpoint": tree}, [cycle.known(describe_model(tree, folder, name=as_name))]

    code = code_version("escultor.store.blobs")
    return cycle.workflow.step(f"import {as_name}", {"files": tree}, work, code=code)["checkpoint"]


def train_model(
    cycle: CycleRun,
    name: str,
    method: Any,
    settings: Training,
    items: Sequence[Any],
    parents: tuple[str, ...],
    start: Callable[[], Loaded],
    frozen: Callable[[], Loaded] | None = None,
) -> Result:
    """Train and keep a checkpoint. Result: checkpoint, metrics (blob), counts, steps, tokens, loss."""
    if settings.lora and not settings.lora.merge:
        raise ConfigError(
            "a cycle run keeps whole models, since adapters need their base",
            f"lora.merge false of {method}",
            "lora.merge true",
        )
    left_out: Counter[str] = Counter()
    items = load_guard(cycle.store).allowed(items, left_out)
    kind, seed = METHODS[method].kind, settings.seed
    items = with_replay(items, settings.replay, kind, cycle.store, seed=seed, counts=left_out)
    replayed = versions_read(settings.replay and settings.replay.data, cycle.store)
    note = cycle.workflow.progress.note
    for reason, n in left_out.items():
        note(f"{name}: {reason}: {n:,}")

    def show_warnings(preflight: Preflight) -> None:
        for text in preflight.warnings:
            note(f"{name}: {text}")

    def work(key: str) -> tuple[Result, list[Any]]:
        out = cycle.store.root / "runs" / key
        task = TrainingTask(
            method, start(), items, settings, frozen() if frozen else None, parents=parents, datasets=replayed
        )
        record = run(
            task,
            out,
            cache=cycle.store.root / "cache",
            on_step=cycle.workflow.progress.training,
            on_preflight=show_warnings,
        )
        return _keep_run(cycle, name, record, items, left_out, out=out)

    inputs = {"settings": settings.model_dump(), "items": dataset_hash(items), "parents": list(parents)}
    return cycle.workflow.step(name, inputs, work, code=method_code(method))


def _keep_run(
    cycle: CycleRun, name: str, record: RunRecord, items: Sequence[Any], left_out: Counter[str], out: Path
) -> tuple[Result, list[Any]]:
    """Move what a run wrote into the store: the result of its step, and its records."""
    tree = cycle.store.blobs.put_tree(out / MODEL)
    metrics = cycle.store.blobs.put_bytes((out / METRICS).read_bytes())
    dataset = _dataset(cycle, record, items)
    shutil.rmtree(out)
    figures = {k: v for k, v in asdict(record).items() if k in ("steps", "tokens", "loss")}
    result = {"checkpoint": tree, "metrics": metrics, "rows": len(items), **figures}
    result["counts"] = record.counts | left_out
    return result, [cycle.known(dataset), cycle.known(checkpoint_of(record, tree, name))]


def checkpoint_of(record: RunRecord, tree: str, name: str) -> Checkpoint:
    """The checkpoint that a run wrote, from the run's record."""
    return Checkpoint(
        tree,
        name,
        record.method,
        parents=record.parents,
        config_hash=record.config_hash,
        dataset_hash=record.dataset_hash,
        code_version=record.code_version,
        seed=record.seed,
        parameters=record.parameters,
        datasets=record.datasets,
    )


def _dataset(cycle: CycleRun, record: RunRecord, items: Sequence[Any]) -> DatasetVersion:
    """The items of a run as a dataset version, their rows kept as JSONL. What the run made of them is in the
    result of its step: other settings make other figures of the same items."""
    kind, hash = METHODS[record.method].kind, record.dataset_hash
    rows = b"".join(write_line(CurationRow(item, item.origin.rule)) for item in items)
    by_rule = Counter(f"rule {item.origin.rule}" for item in items)
    blob = cycle.store.blobs.put_bytes(rows)
    return DatasetVersion(hash, f"{kind}-{hash[:8]}", kind, len(items), counts=dict(by_rule), blob=blob)


def evaluate_model(cycle: CycleRun, checkpoint: str, name: str) -> Scores:
    """Scores of a checkpoint on the suite of the cycle run; its predictions are kept as a blob."""

    settings = timed_for(cycle.policy, cycle.config).evaluation

    def work(key: str) -> tuple[Result, list[Any]]:
        register(cycle.store, cycle.suite)
        evaluation = evaluate(
            cycle.load(checkpoint),
            checkpoint,
            cycle.suite,
            settings,
            cycle.config.serve.hourly_price_usd,
            cache=cycle.store.root / "cache",
            progress=cycle.workflow.progress.note,
        )
        answers = cycle.store.blobs.put_bytes(evaluation.predictions.to_bytes())
        return {"scores": evaluation.scores.id, "answers": answers}, [evaluation.scores]

    inputs = {
        "checkpoint": checkpoint,
        "suite": cycle.suite.id,
        "settings": settings.model_dump(),
        "price": cycle.config.serve.hourly_price_usd,
    }
    code = code_version("escultor.evaluate.scoring", *cycle.suite.code_modules)
    result = cycle.workflow.step(f"evaluate {name}", inputs, work, code=code, kind="evaluate")
    return _in_log(cycle.store.log.get(Scores, result["scores"]))


def require_promotable(cycle: CycleRun) -> None:
    """Raises DataError where nothing could be promoted, whatever is measured: the suite of the cycle run, or
    that of another skill that guards, is too small for the policy."""
    gate_service.require_enough_items(cycle.policy, cycle.suite.record)
    require_judges(cycle.store, cycle.suite, cycle.config, cycle.workflow.progress.note)
    for other, margins in _other_skills(cycle):
        guards = cycle.config.gate.model_copy(
            update={"primary": (), "guards": margins, "vetoes": {}, "min_items": 1}
        )
        gate_service.require_enough_items(guards, other.suite.record)


def measure_other_skills(cycle: CycleRun, champion: str, candidate: str, name: str) -> tuple[OtherSkill, ...]:
    """Both checkpoints on the suites of the other configured skills; a skill without a suite is told."""
    found = []
    for other, margins in _other_skills(cycle, cycle.workflow.progress.note):
        scores = [
            evaluate_model(other, checkpoint, f"{side} on {other.skill}")
            for checkpoint, side in ((champion, "champion"), (candidate, name))
        ]
        shown = ", ".join(f"{metric} within {margin:g}" for metric, margin in margins.items())
        cycle.workflow.progress.note(f"the skill `{other.skill}` guards: {shown}")
        found.append(OtherSkill(str(other.skill), scores[0], scores[1], margins))
    return tuple(found)


def _other_skills(
    cycle: CycleRun, note: Callable[[str], None] = lambda text: None
) -> Iterator[tuple[CycleRun, dict[str, float]]]:
    """The cycle run as one of each other configured skill with a suite, and the margins of its guards."""
    skills = {} if cycle.skill is None else load_skills(cycle.config.skills)
    for skill in skills.values():
        if skill.name == cycle.skill:
            continue
        suite = suite_of_skill(skill, cycle.store, cycle.config)
        if suite is None:
            note(f"nothing guards the skill `{skill.name}`: it has no suite")
            continue
        other = replace(cycle, suite=suite, skill=skill.name)
        margins = dict.fromkeys(other.policy.primary, cycle.config.gate.other_skills) | other.policy.guards
        # What two answers are needed for would have to be rated anew for every candidate of another skill.
        margins = {name: m for name, m in margins.items() if name not in suite.of_two_answers()}
        if not margins:
            note(f"nothing guards the skill `{skill.name}`: its metrics are preferences between two answers")
            continue
        yield other, margins


def answers_of(cycle: CycleRun, name: str) -> list[str]:
    """The answers that an evaluation in this cycle run kept, one for each item."""
    step = next(step for step, _ in reversed(cycle.workflow.steps) if step.name == f"evaluate {name}")
    predictions = Predictions.from_bytes(cycle.store.blobs.get_bytes(str(step.result["answers"])))
    return [by_seed[0] for by_seed in predictions.answers]


def gate(
    cycle: CycleRun,
    name: str,
    champion: Scores,
    candidate: Scores,
    others: tuple[OtherSkill, ...] = (),
    *,
    deploy: bool = True,
) -> Verdict:
    """Decide, write the verdict and its page (`verdicts/` in the store), and deploy a promoted candidate
    unless `deploy` is off. `others` are the other skills that the model serves."""
    policy, store = cycle.policy, cycle.store
    note = cycle.workflow.progress.note
    champion, candidate = with_preferences(
        store, cycle.suite, champion, candidate, config=cycle.config, note=note
    )

    def work(key: str) -> tuple[Result, list[Any]]:
        context = gate_service.context_of(store, champion, candidate, policy)
        record = gate_service.decide_from_store(
            store,
            champion,
            candidate,
            policy,
            context=context,
            names=("champion", name),
            suite=cycle.suite,
            others=others,
        )
        gate_service.write_record(store, record)
        records: list[Any] = [record.verdict]
        if deploy and isinstance(record.verdict, Promote):
            records.append(_deployment(cycle, record.id, candidate.checkpoint))
        reason = record.verdict.because.reason
        return {"verdict": type(record.verdict).__name__, "reason": reason, "id": record.id}, records

    inputs: dict[str, Any] = {"champion": champion.id, "candidate": candidate.id}
    inputs |= {"policy": policy.model_dump()}
    if others:
        inputs["others"] = [[each.champion.id, each.candidate.id, each.margins] for each in others]
    inputs |= {} if deploy else {"deploy": False}
    code = code_version("escultor.cycle.gate_service", without=NOT_DECIDING)
    with gate_service.exclusive(store):
        result = cycle.workflow.step(f"gate {name}", inputs, work, code=code)
    return _in_log(store.log.get(Verdict, result["id"]))


def deploy_first(cycle: CycleRun, checkpoint: str) -> None:
    """Deploy a first model, without a comparison."""

    def work(key: str) -> tuple[Result, list[Any]]:
        return {}, [_deployment(cycle, "the first model: nothing to compare it with", checkpoint)]

    code = code_version("escultor.store.registry")
    cycle.workflow.step("deploy base", {"checkpoint": checkpoint}, work, code=code)


def _deployment(cycle: CycleRun, because: str, checkpoint: str) -> Deployment:
    current = registry.current(registry.read_deployments(cycle.store.log))
    return registry.deployment_for(because, checkpoint, current)


def _in_log(record: Any) -> Any:
    if record is None:
        raise FaultError("the log lacks what a step of it names", remedy="restore the store from a backup")
    return record

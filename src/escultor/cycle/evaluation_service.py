"""From the name of a suite to the scores of a model on it, in the store where there is one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from escultor.code_closure import code_version
from escultor.config import Config, Gate
from escultor.config.evaluation import Limit
from escultor.errors import DataError, InputError
from escultor.evaluate.gate.requirements import ALL_RATED, default_policy, scales_of
from escultor.ids import hash_file
from escultor.skills.catalog import known_skills, load_skills, skill_named
from escultor.skills.probes import PROBES, probe_suite
from escultor.skills.reward import primary_problem
from escultor.skills.skill import Skill
from escultor.skills.suite_files import read_suite, skill_suite
from escultor.skills.suites import EvaluationSuite, register, registered_suite, seal_suite
from escultor.skills.table import PEOPLE
from escultor.store import Store
from escultor.store.blobs import tree_hash
from escultor.types import Scores, Suite

if TYPE_CHECKING:
    from escultor.evaluate.cache import EvaluationCache
    from escultor.evaluate.lm_eval.models import HarnessBackend
    from escultor.evaluate.predictions import NoteProgress
    from escultor.evaluate.scoring import EvaluationResult
    from escultor.evaluate.served_model import ServedModel
    from escultor.evaluate.speed import LatencyBenchmark

BENCHMARK_REQUESTS = 40  # of each model, where the configuration asks for no number
LIMITED_REQUESTS = 100  # timed where a policy limits speed or cost, and the configuration asks for no number


def find_suite(name: str, store: Store | None = None, config: Config | None = None) -> EvaluationSuite:
    """A suite by its name: a built-in set of probes, a file, that of a skill, or the name or id of one in the
    store. The rows that a configured skill declares go before what the store has of its name.

    Raises InputError where there is none of that name, DataError for a file that is no suite.
    """
    config = config or Config()
    skills = load_skills(config.skills)
    if name in PROBES:
        return probe_suite(name)
    if Path(name).is_file():
        return read_suite(Path(name), skills)
    skill = skill_named(name, skills) or Skill(name)
    suite = suite_of_skill(skill, store, config)
    if suite is None:
        stored = {suite.name for _, suite in store.log.read(Suite)} if store is not None else set()
        with_suite = {name for name, skill in known_skills(config.skills).items() if skill.suite is not None}
        known = ", ".join(sorted({*PROBES, *with_suite, *stored}))
        raise InputError(
            f"there is no suite `{name}`",
            "no file, and no registered suite or skill with a suite of this name",
            f"a YAML or JSONL file, {known}",
            f"`escultor skills new {name}` declares a skill with its suite",
        )
    return suite


def suite_of_skill(skill: Skill, store: Store | None, config: Config) -> EvaluationSuite | None:
    """The suite of a skill: the rows that it declares, else the suite of its name in the store, else the one
    that its function makes; None where there is none."""
    declares_rows = not isinstance(skill.suite, str | None)
    if store is not None and not declares_rows:
        suite = registered_suite(store, skill.name, load_skills(config.skills))
        if suite is not None:
            return suite
    return skill_suite(skill, config.evaluation, _cache_folder(store))


def skill_of_run(config: Config, name: str | None) -> str | None:
    """The skill that a cycle run is for: of this name, else the only configured one; None where none is
    configured: all feedback. Raises InputError where it is not clear, or not configured."""
    names = list(load_skills(config.skills))
    if name is None and len(names) < 2:
        return names[0] if names else None
    if name not in names:
        got = "no --skill, and several skills in the configuration" if name is None else f"`{name}`"
        remedy = "name it under `skills:`" if name else "give --skill NAME, a run for each"
        raise InputError("which skill is the run for?", got, ", ".join(names) or "none configured", remedy)
    return name


def default_suite(store: Store | None, config: Config) -> EvaluationSuite:
    """The suite where nobody names one: that of the only configured skill, else that of the only skill of
    which the store has a suite, as it was registered last. Raises InputError where it is not clear."""
    if len(config.skills) == 1:
        (name,) = load_skills(config.skills)
        return find_suite(name, store, config)
    recorded = [suite for _, suite in store.log.read(Suite)] if store and not config.skills else []
    own = {suite.skill: suite.name for suite in recorded if suite.name not in PROBES}
    if len(own) == 1:
        return find_suite(own.popitem()[1], store, config)
    names = ", ".join(sorted({*config.skills, *own.values()})) or "no suite or skill is known"
    remedy = "give --suite NAME, or --suite FILE"
    raise InputError("it is not clear which suite is meant", names, "one skill under `skills:`", remedy)


def skill_of(suite: Suite, config: Config) -> Skill:
    """The skill that a suite is for; one that nothing declares has a name alone."""
    return skill_named(suite.skill, load_skills(config.skills)) or Skill(suite.skill)


def policy_of(suite: Suite, config: Config, policy: Gate | None = None) -> Gate:
    """The gate's policy on a suite: what the configuration (or `policy`) sets, what its skill declares, and
    at last the first metric that the suite measures as the primary."""
    found = default_policy(skill_of(suite, config).policy(policy or config.gate), suite.metrics)
    if why := primary_problem(found.primary, json.loads(suite.definitions or "{}")):
        raise DataError("the policy's primary metrics cannot be used", why)
    if PEOPLE in (*found.primary, *found.guards):
        # An item that nobody rated counts as a tie: nothing is promoted on ties.
        found = found.model_copy(update={"vetoes": {ALL_RATED: Limit(at_least=1.0), **found.vetoes}})
    return found


def timed_for(policy: Gate, config: Config) -> Config:
    """The configuration, with timed requests where the policy limits speed or cost, or says what a smaller
    model should gain in them, and no number is asked for."""
    from escultor.evaluate.speed import is_speed

    limits = any(is_speed(name) and name != "parameters" for name in policy.vetoes)
    wanted = limits or "acceptance_targets" in policy.model_fields_set
    if not wanted or config.evaluation.speed_requests is not None:
        return config
    evaluation = config.evaluation.model_copy(update={"speed_requests": LIMITED_REQUESTS})
    return config.model_copy(update={"evaluation": evaluation})


def policy_on_scores(
    store: Store,
    scores: Scores,
    config: Config,
    policy: Gate | None = None,
    suite: EvaluationSuite | None = None,
) -> Gate:
    """`policy_of` the suite that scores were measured on, given or in the store; else the policy with the
    first metric as the primary."""
    record = suite.record if suite is not None else store.log.get(Suite, scores.suite)
    if record is not None:
        return policy_of(record, config, policy)
    return default_policy(policy or config.gate, scales_of(scores))


def champion_suite(
    store: Store, champion: str, config: Config, skill: str | None = None
) -> EvaluationSuite | None:
    """The suite that the champion was last measured on, of those that measure a primary metric of their
    policy (with `skill`: of those of this skill); None where the store has no such scores, or no suite."""
    skills = load_skills(config.skills)
    for scores in reversed([scores for _, scores in store.log.read(Scores, target=champion)]):
        suite = registered_suite(store, scores.suite, skills)
        if suite is None or skill not in (None, suite.record.skill):
            continue
        if suite.record.name in PROBES and not config.gate.primary:
            continue  # probes guard; they are not what the model is for
        if {*scores.metrics, *suite.of_two_answers()}.intersection(policy_of(suite.record, config).primary):
            return suite
    return None


def suite_of_run(store: Store, champion: str, config: Config, skill: str | None) -> EvaluationSuite:
    """The suite of a cycle run: that of its skill, else the one that the champion was last measured on.
    Raises InputError where there is none."""
    declared = None if skill is None else suite_of_skill(load_skills(config.skills)[skill], store, config)
    suite = declared or champion_suite(store, champion, config, skill)
    if suite is None:
        raise InputError(
            "there is no suite to compare the new model with the champion on",
            "no scores of the champion on a registered suite" if skill is None else f"none of `{skill}`",
            remedy="give the skill a suite, or run `escultor evaluate champion --suite SUITE` first",
        )
    return suite


# --- a model folder ---------------------------------------------------------------------------


def evaluate_folder(
    folder: Path, suite: EvaluationSuite, config: Config, cache: Path | None, progress: NoteProgress
) -> EvaluationResult:
    """Scores of a model folder on a suite, and the predictions they are computed from."""
    from escultor.evaluate.scoring import evaluate
    from escultor.model.load import load

    return evaluate(
        load(str(folder)),
        tree_hash(folder),
        suite,
        config.evaluation,
        config.serve.hourly_price_usd,
        cache=cache,
        progress=progress,
    )


def find_or_measure(
    store: Store,
    folder: Path,
    suite: EvaluationSuite,
    config: Config,
    progress: NoteProgress,
    again: bool = False,
) -> Scores:
    """The scores of these weights on this suite that were recorded last, or new ones: where there are none,
    with `again`, or where the speed that is asked for was not measured, or with another price, batch size or
    fewer requests.

    They, the suite and the predictions are in the store when this returns. Measuring again measures speed:
    what the model answered once is read from the cache.
    """
    scores = None if again else last_scores(store, suite.subject(tree_hash(folder)), suite.id)
    if scores is not None and _has_wanted_speed(scores.summary, config):
        return scores
    register(store, suite)
    return _record(store, evaluate_folder(folder, suite, config, store.root / "cache", progress))


def last_scores(store: Store, checkpoint: str, suite: str) -> Scores | None:
    """The scores of a checkpoint on a suite that were recorded last."""
    scores = [s for _, s in store.log.read(Scores, target=checkpoint) if s.suite == suite]
    return scores[-1] if scores else None


def _has_wanted_speed(figures: Mapping[str, float], config: Config) -> bool:
    """Whether speed and price are those that the configuration asks for; without a number of requests it asks
    for none."""
    asked, price = config.evaluation.speed_requests, config.serve.hourly_price_usd
    is_timed = (
        figures.get("speed_requests", 0) >= (asked or 0)
        and figures.get("speed_batch_size") == config.evaluation.batch_size
    )
    return figures.get("hourly_price_usd", price) == price and (asked is None or is_timed)


# --- models behind a server, and tasks of lm-evaluation-harness -------------------------------


def evaluate_lm_eval_task(
    folder: Path, task: Path, config: Config, store: Store | None, trust_task: bool = False
) -> tuple[EvaluationSuite, Scores]:
    """Scores of a model folder on the task of lm-evaluation-harness that a file holds. Raises DataError for
    a task that names code to run, unless `trust_task`."""
    from escultor.evaluate.cache import open_cache
    from escultor.evaluate.lm_eval.models import LocalBackend
    from escultor.model.load import load

    backend = LocalBackend(load(str(folder)), tree_hash(folder), config.evaluation.batch_size)
    code = code_version("escultor.evaluate.lm_eval.models")
    cache = open_cache(_cache_folder(store), code, "lm-eval", backend.name, backend.batch_size)
    return _evaluate_task(backend, task, cache, store, trust_task)


def evaluate_endpoint(
    served: ServedModel,
    suite: EvaluationSuite | Path,
    store: Store | None,
    progress: NoteProgress,
    again: bool = False,
    trust_task: bool = False,
) -> tuple[EvaluationSuite, Scores]:
    """Scores of a model behind a server on a suite, or on the task of lm-evaluation-harness that a file
    holds.

    Answers come from the cache unless `again`: the server's name may mean another model by now. New answers
    take the place of those in the cache. Raises DataError for a task that names code to run, unless
    `trust_task`.
    """
    from escultor.evaluate.cache import open_cache
    from escultor.evaluate.lm_eval.models import ServedBackend
    from escultor.evaluate.scoring import evaluate_served

    folder = _cache_folder(store)
    if isinstance(suite, Path):
        cache = open_cache(folder, "lm-eval", served.name, fresh=again)
        return _evaluate_task(ServedBackend(served), suite, cache, store, trust_task)
    if store is not None:
        register(store, suite)
    cache = open_cache(folder, suite.id, suite.subject(served.name), fresh=again)
    return suite, _record(store, evaluate_served(served, suite, cache, progress))


def evaluate_gguf(
    file: Path, suite: EvaluationSuite, store: Store | None, progress: NoteProgress
) -> tuple[EvaluationSuite, Scores]:
    """Scores of a GGUF file on a suite, answered by llama.cpp's server, which is started for it. Answers
    are cached under the file's content.

    Raises DataError for a suite that needs more than answers (see `of_answers`), ConfigError where no
    llama.cpp wheel is installed, ModelError where llama.cpp cannot load the file.
    """
    from escultor.evaluate.served_model import Endpoint, ServedModel
    from escultor.model.gguf.llama_server import llama_server

    with llama_server(file) as server:
        served = ServedModel(Endpoint(f"{server.url}/v1", timeout_s=600.0), "model", "model", hash_file(file))
        return evaluate_endpoint(served, suite, store, progress)


def of_answers(suite: EvaluationSuite) -> EvaluationSuite:
    """The suite with its metrics of answers alone, which a server can be measured by. Raises DataError
    where none is left."""
    from escultor.evaluate.predictions import NEEDS_WEIGHTS, metric_needs

    record = suite.record
    kept = {k: scale for k, scale in record.metrics.items() if not metric_needs(suite, k) & NEEDS_WEIGHTS}
    if len(kept) == len(record.metrics):
        return suite
    if not kept:
        what = f"no metric of the suite {record.name} can be measured by answers alone"
        raise DataError(what, ", ".join(record.metrics), remedy="compare the models themselves")
    schema = None if record.schema is None else json.loads(record.schema)
    skill: str | Skill = record.skill
    if record.definitions:
        skill = Skill(record.skill, own_metrics=suite.own_metrics, definitions=json.loads(record.definitions))
    left = seal_suite(
        f"{record.name} (answers)",
        skill,
        suite.items,
        kept,
        record.decoding,
        seeds=record.seeds,
        schema=schema,
        parts=suite.parts,
    )
    return replace(left, instruction=suite.instruction)


def _evaluate_task(
    backend: HarnessBackend, task: Path, cache: EvaluationCache, store: Store | None, trust_task: bool
) -> tuple[EvaluationSuite, Scores]:
    """Scores on a task; they, its documents as a suite and the answers are recorded where there is a
    store."""
    from escultor.evaluate.lm_eval.tasks import evaluate_task

    suite, result = evaluate_task(backend, task, cache, trust_task)
    if store is not None:
        register(store, suite)
    return suite, _record(store, result)


def _record(store: Store | None, result: EvaluationResult) -> Scores:
    if store is not None:
        store.blobs.put_bytes(result.predictions.to_bytes())
        if store.log.get(Scores, result.scores.id) is None:
            store.log.append(result.scores)
    return result.scores


def _cache_folder(store: Store | None) -> Path | None:
    return store and store.root / "cache"


# --- speed ------------------------------------------------------------------------------------


def benchmark_latency(
    folders: Sequence[Path], suite: EvaluationSuite, config: Config, progress: NoteProgress
) -> LatencyBenchmark:
    """How fast models answer the prompts of a suite, measured alternately on this machine, with 40 requests
    unless the configuration asks for another number."""
    from escultor.evaluate.scoring import measure_speeds_on
    from escultor.evaluate.speed import LatencyBenchmark
    from escultor.model.load import load

    models = [load(str(folder)) for folder in folders]
    requests = config.evaluation.speed_requests or BENCHMARK_REQUESTS
    speeds = measure_speeds_on(models, suite, requests, config.evaluation.batch_size, progress)
    by_checkpoint = dict(zip(map(tree_hash, folders), speeds, strict=True))
    return LatencyBenchmark(suite.id, suite.record.items, config.serve.hourly_price_usd, by_checkpoint)


def with_benchmarked_speed(store: Store, scores: Scores, benchmark: LatencyBenchmark) -> Scores:
    """Scores with the speed of a latency benchmark in place of their own; its requests are kept in the
    store.

    Raises DataError where the benchmark did not time this checkpoint, or timed it on another suite.
    """
    from escultor.evaluate.predictions import Predictions, load_predictions
    from escultor.evaluate.scoring import with_speed

    speed = benchmark.speeds.get(scores.checkpoint)
    if speed is None or benchmark.suite != scores.suite:
        raise DataError(
            "the speed was measured for other models, or on other prompts",
            f"checkpoints {', '.join(benchmark.speeds)} on suite {benchmark.suite}",
            f"checkpoint {scores.checkpoint} on suite {scores.suite}",
            "escultor speed, with the models and the suite of this comparison",
        )
    predictions = load_predictions(store.blobs, scores) or Predictions(())
    result = with_speed(scores, predictions, speed, benchmark.hourly_price_usd)
    store.blobs.put_bytes(result.predictions.to_bytes())
    return result.scores

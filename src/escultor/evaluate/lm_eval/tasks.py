"""Tasks of EleutherAI's evaluation harness, run offline, with one number per document.

The harness (`pip install 'escultor[harness]'`) reads the task and computes its metrics; generation and
likelihoods are ours, in batches, or a server's (see `escultor.evaluate.lm_eval.models`). Prompts are those of
the task, without a chat template, after a BOS where the tokenizer puts one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from escultor.errors import ConfigError, DataError
from escultor.evaluate.cache import EvaluationCache
from escultor.evaluate.lm_eval.item_metrics import ItemMetric, item_metrics
from escultor.evaluate.lm_eval.models import MAX_GEN_TOKENS, HarnessBackend, harness_model
from escultor.evaluate.lm_eval.task_code import refuse_code
from escultor.evaluate.predictions import Predictions
from escultor.evaluate.scoring import EvaluationResult, make_result
from escultor.skills.suites import EvaluationSuite, seal_suite
from escultor.text.near_duplicates import shared_clusters
from escultor.types import Message, Role, Sampling, SuiteItem

SKILL = "lm-eval"


def evaluate_task(
    backend: HarnessBackend, path: Path, cache: EvaluationCache, trust_task: bool = False
) -> tuple[EvaluationSuite, EvaluationResult]:
    """Run the task in a YAML file: its documents as a suite, its metrics as scores.

    trust_task: run the code that the task names (see `task_code.refuse_code`).

    Raises ConfigError where the harness is not installed, DataError for a file that is no task, that names
    code and is not trusted, whose metrics are not per document, or that asks for decoding that is not done
    here; UpstreamFault.
    """
    if not trust_task:
        refuse_code(path)
    run, load_task, model_class = _harness()
    model = harness_model(model_class, backend, cache)
    try:
        task = load_task(path)
        results = run(model=model, tasks=[task], bootstrap_iters=0, log_samples=True)
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(f"{path} is no task of the harness", " ".join(str(error).split())[:300]) from error
    (name,) = results["samples"]
    figures = {**backend.figures, "contexts_cut": float(model.contexts_cut)}
    figures["null_answers"] = float(model.null_answers)
    metrics = item_metrics(results["samples"][name], task.aggregation(), task.higher_is_better())
    return _result(name, results["samples"][name], metrics, backend.name, figures)


def _harness() -> tuple[Any, Any, Any]:
    try:
        from jinja2.sandbox import SandboxedEnvironment
        from lm_eval import simple_evaluate, utils
        from lm_eval.api.model import LM
        from lm_eval.tasks import TaskManager
        from lm_eval.tasks._yaml_loader import load_yaml
    except ImportError as error:
        remedy = "pip install 'escultor[harness]'"
        raise ConfigError("the evaluation harness is not installed", str(error), "lm-eval", remedy) from error
    # Templates of tasks reach the values of documents, and nothing behind them.
    plain = utils.env
    utils.env = SandboxedEnvironment(undefined=plain.undefined, keep_trailing_newline=True)
    utils.env.filters.update(plain.filters)
    # Without its own fourteen thousand tasks, which it would read first.
    manager = TaskManager(include_defaults=False)

    def load_task(path: Path) -> Any:
        (task,) = manager.load([load_yaml(path)])["tasks"].values()
        return task

    return partial(simple_evaluate, task_manager=manager), load_task, LM


def _result(
    name: str,
    samples: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, ItemMetric],
    checkpoint: str,
    figures: dict[str, float],
) -> tuple[EvaluationSuite, EvaluationResult]:
    documents = _documents(samples)
    ids, targets = [str(s["doc_id"]) for s in documents], [str(s["target"]) for s in documents]
    clusters = shared_clusters([_asked(s) for s in documents], targets, ids)
    items = [
        SuiteItem(f"{id}-{s['doc_hash'][:12]}", _prompt(s), cluster, (target,))
        for s, id, cluster, target in zip(documents, ids, clusters, targets, strict=True)
    ]
    scales = {each: metric.scale for each, metric in metrics.items()}
    suite = seal_suite(name, SKILL, items, scales, Sampling(max_new_tokens=MAX_GEN_TOKENS))
    predictions = Predictions(tuple((_answer(s),) for s in documents))
    values = {each: metric.values for each, metric in metrics.items()}
    return suite, make_result(suite, checkpoint, values, figures, predictions)


def _documents(samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The samples of the first filter, in the order of the documents: each document once."""
    first = samples[0].get("filter")
    return sorted((s for s in samples if s.get("filter") == first), key=lambda s: s["doc_id"])


def _prompt(sample: Mapping[str, Any]) -> tuple[Message, ...]:
    arguments = sample["arguments"]
    first = arguments["gen_args_0"]["arg_0"] if isinstance(arguments, dict) else arguments[0][0]
    return (Message(Role.USER, str(first) or " "),)


def _asked(sample: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The texts of all requests of a document: continuations first, then contexts, each once."""
    arguments = sample["arguments"]
    calls = [list(a.values()) for a in arguments.values()] if isinstance(arguments, dict) else arguments
    texts = {str(part): None for call in calls for part in reversed(call) if isinstance(part, str)}
    return [("text", text) for text in texts]


def _answer(sample: Mapping[str, Any]) -> str:
    return str(sample["filtered_resps"][0]) if sample["filtered_resps"] else ""

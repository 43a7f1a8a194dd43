"""Tasks of EleutherAI's evaluation harness, run offline, with one number per document.

The harness (`pip install 'escultor[harness]'`) reads the task and computes its metrics; generation and
likelihoods are ours, in batches, or a server's (see `escultor.evaluate.lm_eval.models`). Prompts are those of
the task, after a BOS and without a chat template.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from escultor.errors import ConfigError, DataError
from escultor.evaluate.cache import EvaluationCache
from escultor.evaluate.lm_eval.models import MAX_GEN_TOKENS, HarnessBackend, harness_model
from escultor.evaluate.predictions import Predictions
from escultor.evaluate.scoring import EvaluationResult, make_result
from escultor.skills.suites import EvaluationSuite, seal_suite
from escultor.types import Message, Role, Sampling, Scale, SuiteItem

SKILL = "lm-eval"


def evaluate_task(
    backend: HarnessBackend, path: Path, cache: EvaluationCache
) -> tuple[EvaluationSuite, EvaluationResult]:
    """Run the task in a YAML file: its documents as a suite, its metrics as scores.

    Raises ConfigError where the harness is not installed, DataError for a file that is no task, whose metrics
    are not per document, or that asks for decoding that is not done here; UpstreamFault.
    """
    run, read_task, model_class = _harness()
    model = harness_model(model_class, backend, cache)
    try:
        results = run(model=model, tasks=[read_task(path)], bootstrap_iters=0, log_samples=True)
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(f"{path} is no task of the harness", " ".join(str(error).split())[:300]) from error
    (name,) = results["samples"]
    figures = {**backend.figures, "contexts_cut": float(model.contexts_cut)}
    return _result(name, results, backend.name, figures)


def _harness() -> tuple[Any, Any, Any]:
    try:
        from lm_eval import simple_evaluate
        from lm_eval.api.model import LM
        from lm_eval.tasks import TaskManager
        from lm_eval.tasks._yaml_loader import load_yaml
    except ImportError as error:
        remedy = "pip install 'escultor[harness]'"
        raise ConfigError("the evaluation harness is not installed", str(error), "lm-eval", remedy) from error
    # Without its own fourteen thousand tasks, which it would read first.
    return partial(simple_evaluate, task_manager=TaskManager(include_defaults=False)), load_yaml, LM


def _result(
    name: str, results: dict[str, Any], checkpoint: str, figures: dict[str, float]
) -> tuple[EvaluationSuite, EvaluationResult]:
    samples = sorted(results["samples"][name], key=lambda s: s["doc_id"])
    higher_is_better = results["higher_is_better"][name]
    items = [
        SuiteItem(f"{s['doc_id']}-{s['doc_hash'][:12]}", _prompt(s), str(s["doc_id"]), (str(s["target"]),))
        for s in samples
    ]
    metrics: dict[str, tuple[float, ...]] = {}
    for metric in sorted({m for s in samples for m in s["metrics"]}):
        values = [s.get(metric) for s in samples]
        if not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
            raise DataError(
                f"the task's metric {metric} is no number per document",
                f"{type(values[0]).__name__} such as {values[0]!r}",
                "metrics that are a number for every document",
                "remove it from the task's metric_list",
            )
        metrics[metric] = tuple(map(float, values))
    scales = {m: _scale(values, higher_is_better.get(m, True)) for m, values in metrics.items()}
    suite = seal_suite(name, SKILL, items, scales, Sampling(max_new_tokens=MAX_GEN_TOKENS))
    predictions = Predictions(tuple((_answer(s),) for s in samples))
    return suite, make_result(suite, checkpoint, metrics, figures, predictions)


def _scale(values: Sequence[float], higher: bool) -> Scale:
    """The harness states which way is better, but no bounds: 0 and 1 where all values lie between."""
    least, most = (0.0, 1.0) if all(0 <= v <= 1 for v in values) else (None, None)
    return Scale("higher" if higher else "lower", "continuous", least, most)


def _prompt(sample: dict[str, Any]) -> tuple[Message, ...]:
    arguments = sample["arguments"]
    first = arguments["gen_args_0"]["arg_0"] if isinstance(arguments, dict) else arguments[0][0]
    return (Message(Role.USER, str(first) or " "),)


def _answer(sample: dict[str, Any]) -> str:
    return str(sample["filtered_resps"][0]) if sample["filtered_resps"] else ""

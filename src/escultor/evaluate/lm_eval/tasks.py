"""Tasks of EleutherAI's evaluation harness: offline, one number per document.

The harness (`pip install 'escultor[harness]'`) reads the task and computes its metrics; what it asks a
model goes through our own generation and likelihoods, in batches, or to a server (see
`escultor.evaluate.lm_eval.models`). Prompts are its own, behind a BOS and without a chat template, as its
tasks are written.
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
from escultor.evaluate.scoring import EvaluationResult, scores_of
from escultor.ids import hash_bytes
from escultor.skills.suites import EvaluationSuite, seal_suite
from escultor.types import Message, Role, Sampling, Scale, SuiteItem

SKILL = "lm-eval"


def evaluate_task(
    asked: HarnessBackend, path: Path, memo: EvaluationCache
) -> tuple[EvaluationSuite, EvaluationResult]:
    """Run the task that a YAML file describes; its documents become a suite, its metrics scores. What is
    in the memo is not asked for again.

    Raises ConfigError where the harness is not installed, DataError for a file that is no task, whose
    metrics are not per document, or that asks for decoding that is not done here; UpstreamFault.
    """
    run, read_task, model_class = _harness()
    own = harness_model(model_class, asked, memo)
    try:
        found = run(model=own, tasks=[read_task(path)], bootstrap_iters=0, log_samples=True)
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(f"{path} is no task of the harness", " ".join(str(error).split())[:300]) from error
    (name,) = found["samples"]
    return _scored(name, found, asked.name, {**asked.figures, "contexts_cut": float(own.contexts_cut)})


def _harness() -> tuple[Any, Any, Any]:
    try:
        from lm_eval import simple_evaluate
        from lm_eval.api.model import LM
        from lm_eval.tasks import TaskManager
        from lm_eval.tasks._yaml_loader import load_yaml
    except ImportError as error:
        remedy = "pip install 'escultor[harness]'"
        raise ConfigError("the evaluation harness is not installed", str(error), "lm-eval", remedy) from error
    # Its own fourteen thousand tasks, which it would read through, are not asked for.
    return partial(simple_evaluate, task_manager=TaskManager(include_defaults=False)), load_yaml, LM


def _scored(
    name: str, found: dict[str, Any], checkpoint: str, summary: dict[str, float]
) -> tuple[EvaluationSuite, EvaluationResult]:
    samples = sorted(found["samples"][name], key=lambda s: s["doc_id"])
    better = found["higher_is_better"][name]
    items = [
        SuiteItem(f"{s['doc_id']}-{s['doc_hash'][:12]}", _asked(s), str(s["doc_id"]), (str(s["target"]),))
        for s in samples
    ]
    metrics: dict[str, tuple[float, ...]] = {}
    for each in sorted({m for s in samples for m in s["metrics"]}):
        values = [s.get(each) for s in samples]
        if not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
            raise DataError(
                f"the task's metric {each} is no number per document",
                f"{type(values[0]).__name__} such as {values[0]!r}",
                "metrics that are a number for every document",
                "remove it from the task's metric_list",
            )
        metrics[each] = tuple(float(v) for v in values)  # type: ignore[arg-type]
    scales = {m: _scale(values, better.get(m, True)) for m, values in metrics.items()}
    suite = seal_suite(name, SKILL, items, scales, Sampling(max_new_tokens=MAX_GEN_TOKENS))
    kept = Predictions(tuple((_said(s),) for s in samples))
    scores = scores_of(suite, checkpoint, metrics, summary, hash_bytes(kept.to_bytes()))
    return suite, EvaluationResult(scores, kept)


def _scale(values: Sequence[float], higher: bool) -> Scale:
    """The harness tells which way is better, and nothing of bounds: 0 and 1 where all lie between."""
    shares = all(0 <= v <= 1 for v in values)
    return Scale(
        "higher" if higher else "lower", "continuous", 0.0 if shares else None, 1.0 if shares else None
    )


def _asked(sample: dict[str, Any]) -> tuple[Message, ...]:
    arguments = sample["arguments"]
    first = arguments["gen_args_0"]["arg_0"] if isinstance(arguments, dict) else arguments[0][0]
    return (Message(Role.USER, str(first) or " "),)


def _said(sample: dict[str, Any]) -> str:
    first = sample["filtered_resps"][0] if sample["filtered_resps"] else ""
    return first if isinstance(first, str) else str(first)

"""Tasks of EleutherAI's evaluation harness on our models: in process, offline, one number per document.

The harness (`pip install 'escultor[harness]'`) reads the task and computes its metrics; what it asks a
model goes through our own generation and likelihoods, in batches. Prompts are its own, behind a BOS and
without a chat template, as its tasks are written.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from escultor.data.batches import chunks, nll_batch, on
from escultor.data.rows import NllRow, ids_of
from escultor.errors import ConfigError, DataError
from escultor.evaluate.answers import Kept, context_of
from escultor.evaluate.suites import Evaluated, scores_of
from escultor.ids import hash_bytes
from escultor.model.forward import logits_at_labels
from escultor.model.generate import generate
from escultor.model.load import Loaded, count_parameters
from escultor.skills.suites import Exam, sealed
from escultor.types import Message, Role, Sampling, Scale, SuiteItem

MAX_GEN_TOKENS = 256  # the harness's own default for its models
SKILL = "lm-eval"


def evaluate_task(loaded: Loaded, checkpoint: str, path: Path, batch_size: int) -> tuple[Exam, Evaluated]:
    """Run the task that a YAML file describes; its documents become a suite, its metrics scores.

    Raises ConfigError where the harness is not installed, DataError for a file that is no task, or
    whose metrics are not per document.
    """
    evaluator, read_task, model_class = _harness()
    try:
        config = read_task(path)
        own = _model(model_class, loaded, batch_size)
        found = evaluator.simple_evaluate(model=own, tasks=[config], bootstrap_iters=0, log_samples=True)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(f"{path} is no task of the harness", " ".join(str(error).split())[:300]) from error
    (name,) = found["samples"]
    return _scored(name, found, checkpoint, loaded, own)


def _harness() -> tuple[Any, Any, Any]:
    try:
        from lm_eval import evaluator
        from lm_eval.api.model import LM
        from lm_eval.tasks._yaml_loader import load_yaml
    except ImportError as error:
        remedy = "pip install 'escultor[harness]'"
        raise ConfigError("the evaluation harness is not installed", str(error), "lm-eval", remedy) from error
    return evaluator, load_yaml, LM


def _scored(
    name: str, found: dict[str, Any], checkpoint: str, loaded: Loaded, own: Any
) -> tuple[Exam, Evaluated]:
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
    exam = sealed(name, SKILL, items, scales, Sampling(max_new_tokens=MAX_GEN_TOKENS))
    kept = Kept(tuple((_said(s),) for s in samples))
    summary = {
        "parameters": float(count_parameters(loaded.model)),
        "contexts_cut": float(own.contexts_cut),
    }
    scores = scores_of(exam, checkpoint, metrics, summary, hash_bytes(kept.to_bytes()))
    return exam, Evaluated(scores, kept)


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


def _model(base: Any, loaded: Loaded, batch_size: int) -> Any:
    """Our model as the harness knows models; the class is made here, since its base comes from there."""

    class Own(base):
        contexts_cut = 0  # requests whose beginning did not fit the context

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            rows = [self._row(*request.args) for request in requests]
            return _likelihoods(loaded, rows)

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

            found = []
            for request in requests:
                ids, prefix = loaded.chat.text(request.args[0]), _prefix(loaded)
                windows = map(
                    make_disjoint_window, get_rolling_token_windows(ids, prefix, context_of(loaded) - 1, 1)
                )
                rows = [NllRow("", ids_of([*before, *said]), len(before)) for before, said in windows]
                found.append(sum(logp for logp, _ in _likelihoods(loaded, rows)))
            return found

        def generate_until(self, requests: list[Any]) -> list[str]:
            groups: defaultdict[Sampling, list[int]] = defaultdict(list)
            for at, request in enumerate(requests):
                groups[_sampling(request.args[1])].append(at)
            said = [""] * len(requests)
            for sampling, members in groups.items():
                prompts = [self._prompt(requests[at].args[0], sampling) for at in members]
                for at, answer in zip(members, generate(loaded, prompts, sampling, batch_size), strict=True):
                    said[at] = _until(answer.text, requests[at].args[1].get("until"))
            return said

        def _row(self, context: str, continuation: str) -> NllRow:
            """The continuation's tokens are those that the whole text has beyond the context's."""
            before, whole = _text(loaded, context), _text(loaded, context + continuation)
            start = min(len(before), len(whole) - 1)
            cut = max(0, len(whole) - context_of(loaded))
            if cut >= start:
                raise DataError("a continuation is longer than the model's context", continuation[:80])
            self.contexts_cut += cut > 0
            return NllRow("", ids_of(whole[cut:]), start - cut)

        def _prompt(self, context: str, sampling: Sampling) -> list[int]:
            room = context_of(loaded) - sampling.max_new_tokens
            ids = _text(loaded, context)
            self.contexts_cut += len(ids) > room
            return ids[-max(1, room) :]

    return Own()


def _prefix(loaded: Loaded) -> int:
    """What stands before a text: the tokenizer's BOS, or where there is none its end-of-text token."""
    begin = loaded.tokenizer.bos_token_id
    return begin if isinstance(begin, int) else loaded.chat.eos


def _text(loaded: Loaded, text: str) -> list[int]:
    return [_prefix(loaded), *loaded.chat.text(text)]


def _sampling(wanted: dict[str, Any]) -> Sampling:
    sampled = bool(wanted.get("do_sample", False))
    temperature = float(wanted.get("temperature", 1.0)) if sampled else 0.0
    return Sampling(
        temperature, float(wanted.get("top_p", 1.0)), int(wanted.get("max_gen_toks", MAX_GEN_TOKENS))
    )


def _until(text: str, stops: str | Sequence[str] | None) -> str:
    for stop in [stops] if isinstance(stops, str) else stops or ():
        text = text.split(stop, 1)[0] if stop else text
    return text


@torch.inference_mode()
def _likelihoods(loaded: Loaded, rows: Sequence[NllRow]) -> list[tuple[float, bool]]:
    """Summed log-probability of each row's labelled tokens, and whether each was the likeliest."""
    loaded.model.eval()
    found: dict[int, tuple[float, bool]] = {}
    for group in chunks([row.length for row in rows]):
        chosen = [rows[i] for i in group]
        logits = logits_at_labels(loaded.model, on(loaded.model.device, nll_batch(chosen).packed))  # (K, V)
        logp = logits.float().log_softmax(-1).cpu()
        parts = logp.split([row.length - row.start for row in chosen])
        for i, row, part in zip(group, chosen, parts, strict=True):
            targets = torch.from_numpy(row.ids[row.start :].astype("int64"))
            own = part.gather(1, targets[:, None]).sum()
            found[i] = (float(own), bool((part.argmax(-1) == targets).all()))
    return [found[i] for i in range(len(rows))]

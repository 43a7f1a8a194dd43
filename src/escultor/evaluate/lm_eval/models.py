"""Backends for EleutherAI's evaluation harness: a local model or one behind a server, with cached results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from escultor.batching.batches import group_by_length, nll_batch, to_device
from escultor.batching.rows import NllRow, to_ids
from escultor.errors import DataError
from escultor.evaluate.cache import EvaluationCache
from escultor.evaluate.served_model import ServedModel
from escultor.ids import hash_value
from escultor.model.forward import logits_at_labels
from escultor.model.generate import generate
from escultor.model.loaded import Loaded, count_parameters, max_context_tokens
from escultor.skills.answer_parts import before_stop
from escultor.types import Sampling

MAX_GEN_TOKENS = 256  # the harness's own default for its models
REQUESTS_PER_GROUP = 256  # cached at a time, which is what a killed evaluation loses at most
# Parameters of decoding that a task may set, and those that it may set only to a value that changes nothing.
_SUPPORTED = frozenset({"until", "do_sample", "temperature", "top_p", "max_gen_toks", "max_tokens"})
_NEUTRAL = {
    "num_beams": (1,),
    "top_k": (0, None),
    "repetition_penalty": (1, None),
    "num_return_sequences": (1,),
}


# --- the harness's interface ------------------------------------------------------------------


def harness_model(base: Any, backend: HarnessBackend, cache: EvaluationCache) -> Any:
    """A backend as a subclass of `base`, the harness's class of models (imported only where it is used)."""

    class Model(base):
        contexts_cut = 0  # requests whose beginning did not fit the context
        null_answers = 0  # that a server did not send

        def _results(self, kind: str, requests: Sequence[Any], compute: Any) -> list[Any]:
            results = cache.get_many(
                requests, lambda each: hash_value([kind, each]), compute, REQUESTS_PER_GROUP
            )
            self.contexts_cut += sum(result[-1] for result in results)
            return results

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            pairs = [_blanks_moved(*request.args) for request in requests]
            results = self._results("likelihood", pairs, backend.likelihoods)
            return [(float(logp), bool(is_greedy)) for logp, is_greedy, _ in results]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            results = self._results("whole", [r.args[0] for r in requests], backend.whole)
            return [float(logp) for logp, _ in results]

        def generate_until(self, requests: list[Any]) -> list[str]:
            repeats: Counter[str] = Counter()
            drawn = []
            for context, options in (request.args for request in requests):
                key = hash_value([context, options])
                drawn.append((context, _sampling(options, repeats[key]), _stops(options.get("until"))))
                repeats[key] += 1  # a repeated request is to be drawn again

            results = self._results("text", drawn, lambda group: backend.texts(*zip(*group, strict=True)))
            self.null_answers += sum(text is None for text, _ in results)
            pairs = zip(results, drawn, strict=True)
            return [before_stop(text or "", stops) for (text, _), (_, _, stops) in pairs]

    return Model()


def _blanks_moved(context: str, continuation: str) -> tuple[str, str]:
    """A context without the white space at its end, which belongs to the continuation, as its tokens do."""
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation


def _sampling(options: Mapping[str, Any], seed: int) -> Sampling:
    """The decoding that a task asks for. Raises DataError where it is not supported."""
    odd = [k for k, v in options.items() if k not in _SUPPORTED and v not in _NEUTRAL.get(k, ())]
    if odd:
        got = ", ".join(f"{key}: {options[key]!r}" for key in odd)
        raise DataError(
            "the task asks for decoding that is not done here", got, ", ".join(sorted(_SUPPORTED))
        )
    temperature = float(options.get("temperature", 1.0)) if options.get("do_sample", False) else 0.0
    max_tokens = int(options.get("max_gen_toks", options.get("max_tokens", MAX_GEN_TOKENS)))
    return Sampling(temperature, float(options.get("top_p", 1.0)), max_tokens, seed if temperature else 0)


def _stops(until: str | Sequence[str] | None) -> list[str]:
    return [stop for stop in ([until] if isinstance(until, str) else until or ()) if stop]


# --- backends ---------------------------------------------------------------------------------
# Each method gives one result for each request, in order; its last value says whether the beginning of the
# request was cut to fit the model's context. `figures` are known of the model.


@dataclass(frozen=True)
class ServedBackend:
    """A served model; the server itself refuses what does not fit its context."""

    served: ServedModel

    @property
    def name(self) -> str:
        return self.served.name

    @property
    def figures(self) -> Mapping[str, float]:
        return {}

    def likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool, bool]]:
        return [(logp, greedy, False) for logp, greedy in self.served.likelihoods(pairs)]

    def whole(self, texts: Sequence[str]) -> list[tuple[float, bool]]:
        return [(logp, False) for logp, _ in self.served.likelihoods([("", text) for text in texts])]

    def texts(
        self, contexts: Sequence[str], samplings: Sequence[Sampling], stops: Sequence[Sequence[str]]
    ) -> list[tuple[str | None, bool]]:
        return [(text, False) for text in self.served.texts(contexts, samplings, stops)]


@dataclass(frozen=True)
class LocalBackend:
    """A model in this process."""

    loaded: Loaded
    name: str
    batch_size: int

    @property
    def figures(self) -> Mapping[str, float]:
        return {"parameters": float(count_parameters(self.loaded.model))}

    @property
    def context(self) -> int:
        return max_context_tokens(self.loaded.model)

    def likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool, bool]]:
        rows = [self._row(*pair) for pair in pairs]
        scores = _likelihoods(self.loaded, [row for row, _ in rows])
        return [(*score, cut) for score, (_, cut) in zip(scores, rows, strict=True)]

    def whole(self, texts: Sequence[str]) -> list[tuple[float, bool]]:
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        results, prefix, size = [], self.loaded.chat.prefix, self.context - 1
        for text in texts:
            ids = self.loaded.chat.text(text)
            windows = map(make_disjoint_window, get_rolling_token_windows(ids, prefix, size, 1))
            rows = [NllRow("", to_ids([*before, *labelled]), len(before)) for before, labelled in windows]
            results.append((sum(logp for logp, _ in _likelihoods(self.loaded, rows)), False))
        return results

    def texts(
        self, contexts: Sequence[str], samplings: Sequence[Sampling], stops: Sequence[Sequence[str]]
    ) -> list[tuple[str, bool]]:
        prompts = [self._prompt(*each) for each in zip(contexts, samplings, strict=True)]
        answers = generate(self.loaded, [ids for ids, _ in prompts], samplings, self.batch_size)
        return [(answer.text, cut) for answer, (_, cut) in zip(answers, prompts, strict=True)]

    def _row(self, context: str, continuation: str) -> tuple[NllRow, bool]:
        """The row of a continuation, whose tokens are those that the whole text has beyond the context's; and
        whether the context was cut."""
        chat = self.loaded.chat
        if context:
            before, whole = chat.raw_prompt(context)[0], chat.raw_prompt(context + continuation)[0]
        else:
            before, whole = [chat.prefix], [chat.prefix, *chat.text(continuation)]
        start = min(len(before), len(whole) - 1)
        cut = max(0, len(whole) - self.context)
        if cut >= start:
            raise DataError("a continuation is longer than the model's context", continuation[:80])
        return NllRow("", to_ids(whole[cut:]), start - cut), cut > 0

    def _prompt(self, context: str, sampling: Sampling) -> tuple[list[int], bool]:
        room = self.context - sampling.max_new_tokens
        ids, _ = self.loaded.chat.raw_prompt(context)
        return ids[-max(1, room) :], len(ids) > room


HarnessBackend = ServedBackend | LocalBackend


@torch.inference_mode()
def _likelihoods(loaded: Loaded, rows: Sequence[NllRow]) -> list[tuple[float, bool]]:
    """Summed log-probability of each row's labelled tokens, and whether each was the most likely
    one."""
    loaded.model.eval()
    scores: dict[int, tuple[float, bool]] = {}
    for group in group_by_length([row.length for row in rows]):
        group_rows = [rows[i] for i in group]
        logits = logits_at_labels(
            loaded.model, to_device(nll_batch(group_rows).packed, loaded.model.device)
        )  # (K, V)
        logp = logits.float().log_softmax(-1).cpu()
        parts = logp.split([row.length - row.start for row in group_rows])
        for i, row, part in zip(group, group_rows, parts, strict=True):
            targets = torch.from_numpy(row.ids[row.start :].astype("int64"))
            own = part.gather(1, targets[:, None]).sum()
            scores[i] = (float(own), bool((part.argmax(-1) == targets).all()))
    return [scores[i] for i in range(len(rows))]

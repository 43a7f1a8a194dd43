"""Whoever the evaluation harness asks: a model of this machine or one behind a server, asked once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from escultor.batching.batches import group_by_length, nll_batch, to_device
from escultor.batching.rows import NllRow, to_ids
from escultor.errors import DataError
from escultor.evaluate.cache import EvaluationCache
from escultor.evaluate.served_model import ServedModel
from escultor.ids import hash_value
from escultor.model.forward import logits_at_labels
from escultor.model.generate import generate
from escultor.model.loaded import NO_LIMIT, Loaded, context_length, count_parameters
from escultor.types import Sampling

MAX_GEN_TOKENS = 256  # the harness's own default for its models
ASKED_AT_ONCE = 256  # requests: what a killed evaluation loses at most
# What a task may ask of decoding, and of what is not done here the values that change nothing.
_DONE = frozenset({"until", "do_sample", "temperature", "top_p", "max_gen_toks", "max_tokens"})
_NEUTRAL = {
    "num_beams": (1,),
    "top_k": (0, None),
    "repetition_penalty": (1, None),
    "num_return_sequences": (1,),
}

ContextContinuation = tuple[str, str]  # context and continuation


class HarnessBackend(Protocol):
    """Each method answers requests in their order; the last value says whether the beginning of a request
    did not fit the model's context. `figures` are those of the model that are known."""

    @property
    def name(self) -> str: ...
    @property
    def figures(self) -> Mapping[str, float]: ...
    def likelihoods(self, pairs: Sequence[ContextContinuation]) -> list[tuple[float, bool, bool]]: ...
    def whole(self, texts: Sequence[str]) -> list[tuple[float, bool]]: ...
    def texts(
        self, contexts: Sequence[str], samplings: Sequence[Sampling], stops: Sequence[Sequence[str]]
    ) -> list[tuple[str, bool]]: ...


# --- as the harness knows models ---------------------------------------------------------------


def harness_model(base: Any, asked: HarnessBackend, memo: EvaluationCache) -> Any:
    """The harness's kind of model; the class is made here, since its base comes from there."""

    class Own(base):
        contexts_cut = 0  # requests whose beginning did not fit the context

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            found = _known(memo, "likelihood", [request.args for request in requests], asked.likelihoods)
            self.contexts_cut += sum(cut for _, _, cut in found)
            return [(float(logp), bool(greedy)) for logp, greedy, _ in found]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            texts = [request.args[0] for request in requests]
            found = _known(memo, "whole", texts, asked.whole)
            self.contexts_cut += sum(cut for _, cut in found)
            return [float(logp) for logp, _ in found]

        def generate_until(self, requests: list[Any]) -> list[str]:
            times: Counter[str] = Counter()
            wanted = []
            for context, ways in (request.args for request in requests):
                key = hash_value([context, ways])
                wanted.append((context, _sampling(ways, times[key]), _stops(ways.get("until"))))
                times[key] += 1  # a request that is repeated is to be drawn again

            def ask(group: Sequence[tuple[str, Sampling, list[str]]]) -> list[tuple[str, bool]]:
                contexts, samplings, stops = zip(*group, strict=True)
                return asked.texts(contexts, samplings, stops)

            found = _known(memo, "text", wanted, ask)
            self.contexts_cut += sum(cut for _, cut in found)
            return [_until(str(text), stops) for (text, _), (_, _, stops) in zip(found, wanted, strict=True)]

    return Own()


def _known(
    memo: EvaluationCache, kind: str, wanted: Sequence[Any], ask: Callable[[Sequence[Any]], Sequence[Any]]
):
    """The answers to requests: those in the memo, and the others asked for in groups and kept."""
    keys = [hash_value([kind, each]) for each in wanted]
    fresh = {key: each for key, each in zip(keys, wanted, strict=True) if key not in memo}
    for start in range(0, len(fresh), ASKED_AT_ONCE):
        group = list(fresh)[start : start + ASKED_AT_ONCE]
        memo.keep(dict(zip(group, ask([fresh[key] for key in group]), strict=True)))
    return [memo.get(key, tuple) for key in keys]


def _sampling(ways: Mapping[str, Any], seed: int) -> Sampling:
    """What a task asks of decoding. Raises DataError for what is not done here."""
    odd = [k for k, v in ways.items() if k not in _DONE and v not in _NEUTRAL.get(k, ())]
    if odd:
        got = ", ".join(f"{key}: {ways[key]!r}" for key in odd)
        raise DataError("the task asks for decoding that is not done here", got, ", ".join(sorted(_DONE)))
    sampled = bool(ways.get("do_sample", False))
    temperature = float(ways.get("temperature", 1.0)) if sampled else 0.0
    most = int(ways.get("max_gen_toks", ways.get("max_tokens", MAX_GEN_TOKENS)))
    return Sampling(temperature, float(ways.get("top_p", 1.0)), most, seed if temperature else 0)


def _stops(until: str | Sequence[str] | None) -> list[str]:
    return [stop for stop in ([until] if isinstance(until, str) else until or ()) if stop]


def _until(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.split(stop, 1)[0]
    return text


# --- behind a server ----------------------------------------------------------------------------


@dataclass(frozen=True)
class ServedBackend:
    """A served model; what does not fit its context is the server's to refuse."""

    served: ServedModel

    @property
    def name(self) -> str:
        return self.served.name

    @property
    def figures(self) -> Mapping[str, float]:
        return {}

    def likelihoods(self, pairs: Sequence[ContextContinuation]) -> list[tuple[float, bool, bool]]:
        return [(logp, greedy, False) for logp, greedy in self.served.likelihoods(pairs)]

    def whole(self, texts: Sequence[str]) -> list[tuple[float, bool]]:
        return [(logp, False) for logp, _ in self.served.likelihoods([("", text) for text in texts])]

    def texts(
        self, contexts: Sequence[str], samplings: Sequence[Sampling], stops: Sequence[Sequence[str]]
    ) -> list[tuple[str, bool]]:
        return [(text, False) for text in self.served.texts(contexts, samplings, stops)]


# --- of this machine ------------------------------------------------------------------------------


@dataclass(frozen=True)
class LocalBackend:
    """A model in process."""

    loaded: Loaded
    name: str
    batch_size: int

    @property
    def figures(self) -> Mapping[str, float]:
        return {"parameters": float(count_parameters(self.loaded.model))}

    @property
    def context(self) -> int:
        return context_length(self.loaded.model) or NO_LIMIT

    def likelihoods(self, pairs: Sequence[ContextContinuation]) -> list[tuple[float, bool, bool]]:
        rows = [self._row(*pair) for pair in pairs]
        found = _likelihoods(self.loaded, [row for row, _ in rows])
        return [(*each, cut) for each, (_, cut) in zip(found, rows, strict=True)]

    def whole(self, texts: Sequence[str]) -> list[tuple[float, bool]]:
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        found, prefix, size = [], _prefix(self.loaded), self.context - 1
        for text in texts:
            ids = self.loaded.chat.text(text)
            windows = map(make_disjoint_window, get_rolling_token_windows(ids, prefix, size, 1))
            rows = [NllRow("", to_ids([*before, *said]), len(before)) for before, said in windows]
            found.append((sum(logp for logp, _ in _likelihoods(self.loaded, rows)), False))
        return found

    def texts(
        self, contexts: Sequence[str], samplings: Sequence[Sampling], stops: Sequence[Sequence[str]]
    ) -> list[tuple[str, bool]]:
        prompts = [self._prompt(*each) for each in zip(contexts, samplings, strict=True)]
        said = generate(self.loaded, [ids for ids, _ in prompts], samplings, self.batch_size)
        return [(answer.text, cut) for answer, (_, cut) in zip(said, prompts, strict=True)]

    def _row(self, context: str, continuation: str) -> tuple[NllRow, bool]:
        """The continuation's tokens are those that the whole text has beyond the context's."""
        before, whole = _text(self.loaded, context), _text(self.loaded, context + continuation)
        start = min(len(before), len(whole) - 1)
        cut = max(0, len(whole) - self.context)
        if cut >= start:
            raise DataError("a continuation is longer than the model's context", continuation[:80])
        return NllRow("", to_ids(whole[cut:]), start - cut), cut > 0

    def _prompt(self, context: str, sampling: Sampling) -> tuple[list[int], bool]:
        room = self.context - sampling.max_new_tokens
        ids = _text(self.loaded, context)
        return ids[-max(1, room) :], len(ids) > room


def _prefix(loaded: Loaded) -> int:
    """What stands before a text: the tokenizer's BOS, or where there is none its end-of-text token."""
    begin = loaded.tokenizer.bos_token_id
    return begin if isinstance(begin, int) else loaded.chat.eos


def _text(loaded: Loaded, text: str) -> list[int]:
    return [_prefix(loaded), *loaded.chat.text(text)]


@torch.inference_mode()
def _likelihoods(loaded: Loaded, rows: Sequence[NllRow]) -> list[tuple[float, bool]]:
    """Summed log-probability of each row's labelled tokens, and whether each was the likeliest."""
    loaded.model.eval()
    found: dict[int, tuple[float, bool]] = {}
    for group in group_by_length([row.length for row in rows]):
        chosen = [rows[i] for i in group]
        logits = logits_at_labels(
            loaded.model, to_device(nll_batch(chosen).packed, loaded.model.device)
        )  # (K, V)
        logp = logits.float().log_softmax(-1).cpu()
        parts = logp.split([row.length - row.start for row in chosen])
        for i, row, part in zip(group, chosen, parts, strict=True):
            targets = torch.from_numpy(row.ids[row.start :].astype("int64"))
            own = part.gather(1, targets[:, None]).sum()
            found[i] = (float(own), bool((part.argmax(-1) == targets).all()))
    return [found[i] for i in range(len(rows))]

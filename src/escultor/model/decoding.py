"""Continuous batching: rows join and leave the batch between decoding steps (Yu et al. 2022, Orca).

One of two backends computes logits. `CachedBackend` keeps keys and values, padded on the left, and suits any
model whose whole state they are. `RecomputingBackend` keeps token ids alone and computes every row from its
beginning at every step: slow, and right for any causal language model.

A row's tokens depend on its own prompt, sampling and seed, never on the other rows of the batch, up to the
rounding of products whose order depends on the batch's shape (about 1e-6 of a logit in float32).
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from escultor.errors import TooLong
from escultor.model.forward import unwrapped
from escultor.model.loaded import max_context_tokens
from escultor.model.rows_cache import ROUND, RowsCache, layers_to_cache
from escultor.model.sampling import Draw, draw
from escultor.rng import stream
from escultor.types import Sampling

PREFILL_TOKENS = 8192  # prompt tokens computed together, padding included
CHUNK = 1024  # columns of one forward pass, so that no mask grows with the square of a prompt's length


class Guide(Protocol):
    """Guided decoding: which tokens may come next, given those so far."""

    def allowed(self) -> Tensor:
        """A mask (V,), True for the tokens that may come next."""
        ...

    def advance(self, token: int) -> bool:
        """Move past `token`; True when no further token may follow."""
        ...


@dataclass(frozen=True, slots=True)
class DecodedToken:
    """A token with its log-probability under the model itself (temperature 1, no guide)."""

    id: int
    logprob: float | None = None  # None: not requested, or of the first token of a scored prompt
    top: tuple[tuple[int, float], ...] = ()  # the most likely (id, log-probability) here, best first


@dataclass(slots=True, eq=False)
class DecodingRow:
    """One answer being decoded: at most `max_tokens` tokens, ended by any of `stops`."""

    prompt: Sequence[int]
    sampling: Sampling
    stops: frozenset[int]
    max_tokens: int
    guide: Guide | None = None
    top_logprobs: int | None = None  # alternatives per token; None: no log-probabilities
    score_prompt: bool = False
    scores: list[DecodedToken] = field(default_factory=list)  # the prompt's tokens, with `score_prompt`
    count: int = 0  # tokens so far
    finish: Literal["stop", "length"] | None = None
    compute_s: float = 0.0  # this row's share of the time of its forward passes
    draw: Draw = field(init=False)

    def __post_init__(self) -> None:
        own = stream(self.sampling.seed, "decode", tuple(self.prompt))
        self.draw = Draw(self.sampling.temperature, self.sampling.top_p, own)


@dataclass(frozen=True, slots=True)
class JoinResult:
    """Rows that have joined the batch, and the first token of each that may have one."""

    rows: list[DecodingRow]
    drawn: list[tuple[DecodingRow, DecodedToken]]


TokenBudget = Callable[[], int]  # how many prompt tokens the next forward pass may compute


def answer_budget(model: Any, prompt: Sequence[int], wanted: int, name: str = "the prompt") -> int:
    """How many of `wanted` tokens an answer may have within the model's context. Raises TooLong for a prompt
    that leaves no room for a token."""
    context = max_context_tokens(model)
    if not 0 < len(prompt) < context:
        what = f"{name} does not fit the model's context"
        raise TooLong(what, f"{len(prompt)} tokens", f"1 to {context - 1} tokens", "shorten the prompt")
    return min(wanted, context - len(prompt))


class Decoding:
    """A batch of rows that one model decodes together."""

    def __init__(self, model: Any):
        self.backend = choose_backend(model)
        self.rows: list[DecodingRow] = []

    def join(self, rows: Sequence[DecodingRow]) -> list[tuple[DecodingRow, DecodedToken]]:
        """Compute the prompts of `rows`; returns the first token of each that may have one. Rows that this
        token finishes are not in the batch afterwards."""
        return [drawn for joined in self.prefill(rows) if joined for drawn in joined.drawn]

    @torch.inference_mode()
    def prefill(
        self, rows: Sequence[DecodingRow], budget: TokenBudget = lambda: PREFILL_TOKENS
    ) -> Iterator[JoinResult | None]:
        """Let `rows` join in chunks of `budget()` prompt tokens (at least one token of each prompt). Yields
        None after each chunk of a group of prompts, and the group's rows after its last one. Between two
        chunks the caller may take steps and drop rows; closing the iterator abandons what has not joined."""
        for group in _groups(rows):
            tokens = sum(len(row.prompt) for row in group)
            if group[0].score_prompt:
                chunks = self._scored(group[0], budget)
            else:
                chunks = self.backend.add([row.prompt for row in group], budget)
            logits: Tensor | None = None
            while logits is None:
                began = time.perf_counter()
                logits = next(chunks)  # (B, V) with the last chunk
                spent = time.perf_counter() - began
                for row in group:
                    row.compute_s += spent * len(row.prompt) / tokens
                if logits is None:
                    yield None
            self.rows += group
            yield JoinResult(group, self._draw(group, logits))

    @torch.inference_mode()
    def step(self) -> list[tuple[DecodingRow, DecodedToken]]:
        """Draw one more token of every row. Rows that it finishes leave the batch."""
        began = time.perf_counter()
        rows = list(self.rows)
        drawn = self._draw(rows, self.backend.advance())
        share = (time.perf_counter() - began) / len(rows)
        for row in rows:
            row.compute_s += share
        return drawn

    @torch.inference_mode()
    def drop(self, row: DecodingRow) -> None:
        """Remove a row; the last row takes its place in the batch."""
        at = self.rows.index(row)
        self.backend.drop(at)
        last = self.rows.pop()
        if last is not row:
            self.rows[at] = last

    def _draw(self, rows: Sequence[DecodingRow], logits: Tensor) -> list[tuple[DecodingRow, DecodedToken]]:
        """Draw a token from `logits` (B, V) for each of `rows`, the last B rows of the backend."""
        choice = logits
        if any(row.guide for row in rows):
            choice = logits.clone()
            for i, row in enumerate(rows):
                if row.guide:
                    choice[i].masked_fill_(~row.guide.allowed(), float("-inf"))
        ids = draw(choice, [row.draw for row in rows])
        self.backend.append(ids)
        drawn = list(zip(rows, _with_logprobs(logits, ids, [r.top_logprobs for r in rows]), strict=True))
        for row, token in drawn:
            row.count += row.max_tokens > 0
            if token.id in row.stops or (row.guide and row.guide.advance(token.id)):
                row.finish = "stop"
            elif row.count >= row.max_tokens:
                row.finish = "length"
            if row.finish:
                self.drop(row)
        return [(row, token) for row, token in drawn if row.count]

    def _scored(self, row: DecodingRow, budget: TokenBudget) -> Iterator[Tensor | None]:
        """Add a row and score its prompt's tokens; yields the logits (1, V) after the prompt in the end."""
        scores, computed = [DecodedToken(row.prompt[0])], 0
        for logits in self.backend.add_with_all_logits(row.prompt, budget):  # (T, V)
            following = row.prompt[len(scores) : len(scores) + len(logits)]
            scores += _with_logprobs(
                logits[: len(following)], following, [row.top_logprobs or 0] * len(following)
            )
            computed += len(logits)
            row.scores = scores
            yield logits[-1:] if computed == len(row.prompt) else None


def _groups(rows: Sequence[DecodingRow]) -> Iterator[list[DecodingRow]]:
    """Rows whose prompts are computed together: of similar length, PREFILL_TOKENS at most, scored alone."""
    group: list[DecodingRow] = []
    for row in sorted(rows, key=lambda row: (row.score_prompt, len(row.prompt))):
        if group and (row.score_prompt or (len(group) + 1) * len(row.prompt) > PREFILL_TOKENS):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _with_logprobs(logits: Tensor, ids: Sequence[int], wanted: Sequence[int | None]) -> list[DecodedToken]:
    """Tokens `ids` drawn from `logits` (B, V), with `wanted[i]` alternatives (None: no log-probabilities)."""
    rows = [i for i, top in enumerate(wanted) if top is not None]
    tokens = [DecodedToken(id) for id in ids]
    if rows:
        logp = logits[rows].float().log_softmax(-1)  # (N, V)
        drawn = torch.tensor([ids[i] for i in rows], device=logp.device)  # (N,)
        own = logp.gather(1, drawn[:, None])[:, 0].tolist()
        alternatives = max(wanted[i] or 0 for i in rows)
        values, indices = (part.tolist() for part in logp.topk(min(alternatives, logp.shape[-1])))
        for i, logprob, best, which in zip(rows, own, values, indices, strict=True):
            top = tuple(zip(which, best, strict=True))[: wanted[i]]
            tokens[i] = DecodedToken(ids[i], logprob, top)
    return tokens


# --- backends -------------------------------------------------------------------------------------


class _Forward:
    """A model's forward pass, called with the arguments that its signature has."""

    def __init__(self, model: Any):
        self.model = unwrapped(model)
        names = inspect.signature(self.model.forward).parameters
        self.cache_name = next((name for name in ("cache", "past_key_values") if name in names), None)
        self.takes_positions, self.takes_logits_to_keep = "position_ids" in names, "logits_to_keep" in names

    def __call__(self, ids: Tensor, keep: int, cache: RowsCache | None = None) -> Tensor:
        """Logits (B, keep, V) of the last `keep` of `ids` (B, T)."""
        device = self.model.device
        arguments: dict[str, Any] = {"use_cache": cache is not None}
        if cache is not None:
            arguments["attention_mask"] = cache.mask(ids.shape[1]).to(device)
            arguments[str(self.cache_name)] = cache
            if self.takes_positions:
                arguments["position_ids"] = cache.positions(ids.shape[1]).to(device)
        if self.takes_logits_to_keep:
            arguments["logits_to_keep"] = keep
        return self.model(input_ids=ids.to(device), **arguments).logits[:, -keep:].float()


class CachedBackend:
    """Keys and values of all rows, padded on the left. Row i of the backend is row i of the batch."""

    def __init__(self, forward: _Forward, layers: int):
        self.forward, self.layers = forward, layers
        self.cache = RowsCache(layers)
        self.last: list[int] = []  # each row's last token, whose keys and values are not computed yet

    def add(self, prompts: Sequence[Sequence[int]], budget: TokenBudget) -> Iterator[Tensor | None]:
        """Compute rows for `prompts`, equal prompts once; yields None, and with the last chunk, when the rows
        are added, the logits (B, V) after each prompt."""
        numbers: dict[tuple[int, ...], int] = {}
        which = [numbers.setdefault(tuple(prompt), len(numbers)) for prompt in prompts]
        for logits, is_last in self._compute(list(numbers), 1, which, budget):
            yield logits[which, -1] if is_last else None

    def add_with_all_logits(self, prompt: Sequence[int], budget: TokenBudget) -> Iterator[Tensor]:
        """Compute one row for `prompt`; yields the logits (T, V) after each of its tokens, chunk by chunk."""
        for logits, _ in self._compute([prompt], CHUNK, [0], budget):
            yield logits[0]

    def _compute(
        self, prompts: Sequence[Sequence[int]], keep: int, which: Sequence[int], budget: TokenBudget
    ) -> Iterator[tuple[Tensor, bool]]:
        """Logits (B, keep, V) of each chunk, and whether it is the last. New row i has prompt `which[i]`."""
        width = max(len(prompt) for prompt in prompts)
        ids = torch.zeros(len(prompts), width, dtype=torch.long)  # (B, T); what is masked may be any token
        for i, prompt in enumerate(prompts):
            ids[i, width - len(prompt) :] = torch.tensor(list(prompt))
        new = RowsCache(self.layers)
        new.begin([len(prompt) for prompt in prompts], width + ROUND)
        at = 0
        while at < width:
            part = ids[:, at : at + min(CHUNK, max(1, budget() // len(prompts)))]
            logits = self.forward(part, min(keep, part.shape[1]), new)
            new.advance(part.shape[1])
            at += part.shape[1]
            if at == width:  # before the last chunk is yielded, so that the rows are added by then
                new.repeat(which)
                if self.cache.rows:
                    self.cache.extend(new)
                else:
                    self.cache = new
            yield logits, at == width

    def append(self, ids: Sequence[int]) -> None:
        """Append a token to each of the last `len(ids)` rows: all rows, or those just added."""
        del self.last[self.cache.rows - len(ids) :]
        self.last += ids

    def advance(self) -> Tensor:
        """Compute every row's last token; returns the logits (B, V) after it."""
        self.cache.reserve(1)
        logits = self.forward(torch.tensor(self.last)[:, None], 1, self.cache)
        self.cache.advance(1)
        return logits[:, -1]

    def drop(self, at: int) -> None:
        """Remove row `at`; the last row takes its number."""
        self.cache.drop(at)
        last = self.last.pop()
        if at < len(self.last):
            self.last[at] = last


class RecomputingBackend:
    """The token ids of all rows. Rows of equal length are computed together, without padding. Methods as of
    `CachedBackend`; prompts are computed in one piece, since no state is kept to go on from."""

    def __init__(self, forward: _Forward):
        self.forward = forward
        self.ids: list[list[int]] = []

    def add(self, prompts: Sequence[Sequence[int]], budget: TokenBudget) -> Iterator[Tensor | None]:
        self.ids += [list(prompt) for prompt in prompts]
        yield self._logits(self.ids[-len(prompts) :])

    def add_with_all_logits(self, prompt: Sequence[int], budget: TokenBudget) -> Iterator[Tensor]:
        self.ids.append(list(prompt))
        yield self.forward(torch.tensor([list(prompt)]), len(prompt))[0]

    def append(self, ids: Sequence[int]) -> None:
        for row, id in zip(self.ids[-len(ids) :], ids, strict=True):
            row.append(id)

    def advance(self) -> Tensor:
        return self._logits(self.ids)

    def drop(self, at: int) -> None:
        last = self.ids.pop()
        if at < len(self.ids):
            self.ids[at] = last

    def _logits(self, rows: list[list[int]]) -> Tensor:
        logits_of_row: dict[int, Tensor] = {}
        for length in {len(row) for row in rows}:
            equal = [i for i, row in enumerate(rows) if len(row) == length]
            logits = self.forward(torch.tensor([rows[i] for i in equal]), 1)[:, -1]
            logits_of_row |= dict(zip(equal, logits, strict=True))
        return torch.stack([logits_of_row[i] for i in range(len(rows))])  # (B, V)


def choose_backend(model: Any) -> CachedBackend | RecomputingBackend:
    """The faster backend that is right for `model`."""
    forward = _Forward(model)
    layers = layers_to_cache(forward.model) if forward.cache_name else None
    return RecomputingBackend(forward) if layers is None else CachedBackend(forward, layers)

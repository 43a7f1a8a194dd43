"""Decoding rows that join and leave between steps (continuous batching: Yu et al. 2022, Orca).

What computes logits is one of two memories. `CachedMemory` keeps keys and values and pads on the left, so
any model fits whose memory they are; `Recomputed` keeps ids alone and computes every row from its
beginning at every step: slow, and right for any causal language model.

A row's token depends on its own prompt, sampling and seed, never on the rows beside it, up to the rounding of
products whose order depends on the batch's shape (about 1e-6 of a logit in float32).
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
from escultor.model.rows_cache import ROUND, RowsCache, layers_to_cache
from escultor.model.sampling import Draw, draw
from escultor.rng import stream
from escultor.types import Sampling

PREFILL_TOKENS = 8192  # of prompts computed at a time, padding included
CHUNK = 1024  # columns of them, so that no mask grows with the square of a prompt


class Guide(Protocol):
    """What may be said next."""

    def allowed(self) -> Tensor:
        """(V,) bool: the tokens that may follow."""
        ...

    def take(self, token: int) -> bool:
        """Note that `token` followed; whether nothing more may."""
        ...


@dataclass(frozen=True, slots=True)
class DecodedToken:
    """A token and its log-probability under the model itself (temperature 1, nothing forbidden), None where
    none was asked for; `top` holds the likeliest tokens there, best first."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(slots=True, eq=False)
class DecodingRow:
    """One answer in the making. `room` is the most tokens it may have, `stops` end it."""

    prompt: Sequence[int]
    sampling: Sampling
    stops: frozenset[int]
    room: int
    guide: Guide | None = None
    top_logprobs: int | None = None  # None: no log-probabilities at all
    score_prompt: bool = False
    scores: list[DecodedToken] = field(default_factory=list)  # the prompt's, where asked for
    count: int = 0
    finish: Literal["stop", "length"] | None = None
    compute_s: float = 0.0  # its share of the seconds spent
    draw: Draw = field(init=False)

    def __post_init__(self) -> None:
        own = stream(self.sampling.seed, "decode", tuple(self.prompt))
        self.draw = Draw(self.sampling.temperature, self.sampling.top_p, own)


@dataclass(frozen=True, slots=True)
class JoinResult:
    """Rows whose prompts are computed, and the tokens drawn for those that have room for one."""

    rows: list[DecodingRow]
    drawn: list[tuple[DecodingRow, DecodedToken]]


TokenBudget = Callable[[], int]  # how many prompt tokens may be computed next


def room_for(model: Any, prompt: Sequence[int], wanted: int, name: str = "the prompt") -> int:
    """How many tokens an answer may have. Raises TooLong for a prompt that leaves room for none."""
    context = int(getattr(model.config, "max_position_embeddings", None) or 1 << 30)
    if not 0 < len(prompt) < context:
        raise TooLong(
            f"{name} does not fit the model's context",
            f"{len(prompt)} tokens",
            f"1 to {context - 1} tokens",
            "shorten the prompt",
        )
    return min(wanted, context - len(prompt))


class Decoding:
    """Rows being answered together by one model."""

    def __init__(self, model: Any):
        self.memory = memory_for(model)
        self.rows: list[DecodingRow] = []

    def join(self, rows: Sequence[DecodingRow]) -> list[tuple[DecodingRow, DecodedToken]]:
        """Compute the prompts of `rows` and draw the first token of each. Rows that are finished with it
        have left again, those with no room for a token have drawn none."""
        return [one for joined in self.join_in_chunks(rows) if joined for one in joined.drawn]

    @torch.inference_mode()
    def join_in_chunks(
        self, rows: Sequence[DecodingRow], budget: TokenBudget = lambda: PREFILL_TOKENS
    ) -> Iterator[JoinResult | None]:
        """Chunked prefill: as `join`, `budget()` tokens (or one for each prompt) at a time. Yields None while
        prompts are being computed, then the rows that have joined.

        Steps may be taken and rows dropped in between; closing the iterator drops what has not joined.
        """
        for group in _groups(rows):
            tokens = sum(len(row.prompt) for row in group)
            if group[0].score_prompt:
                pieces = self._scored(group[0], budget)
            else:
                pieces = self.memory.add([row.prompt for row in group], budget)
            logits: Tensor | None = None
            while logits is None:
                began = time.perf_counter()
                logits = next(pieces)  # (B, V) with the last piece
                spent = time.perf_counter() - began
                for row in group:
                    row.compute_s += spent * len(row.prompt) / tokens
                if logits is None:
                    yield None
            self.rows += group
            yield JoinResult(group, self._draw(group, logits))

    @torch.inference_mode()
    def step(self) -> list[tuple[DecodingRow, DecodedToken]]:
        """One more token of every row. Rows that are finished with it have left."""
        began = time.perf_counter()
        rows = list(self.rows)
        drawn = self._draw(rows, self.memory.advance())
        share = (time.perf_counter() - began) / len(rows)
        for row in rows:
            row.compute_s += share
        return drawn

    @torch.inference_mode()
    def drop(self, row: DecodingRow) -> None:
        """Let go of a row; the last one takes its place."""
        at = self.rows.index(row)
        self.memory.drop(at)
        last = self.rows.pop()
        if last is not row:
            self.rows[at] = last

    def _draw(self, rows: Sequence[DecodingRow], logits: Tensor) -> list[tuple[DecodingRow, DecodedToken]]:
        """Draw a token for each of `rows`, which are the last in memory, and note it."""
        choice = logits
        if any(row.guide for row in rows):
            choice = logits.clone()
            for i, row in enumerate(rows):
                if row.guide:
                    choice[i].masked_fill_(~row.guide.allowed(), float("-inf"))
        ids = draw(choice, [row.draw for row in rows])
        self.memory.note(ids)
        drawn = list(zip(rows, _with_logprobs(logits, ids, [r.top_logprobs for r in rows]), strict=True))
        for row, token in drawn:
            row.count += row.room > 0
            if token.id in row.stops or (row.guide and row.guide.take(token.id)):
                row.finish = "stop"
            elif row.count >= row.room:
                row.finish = "length"
            if row.finish:
                self.drop(row)
        return [one for one in drawn if one[0].count]

    def _scored(self, row: DecodingRow, budget: TokenBudget) -> Iterator[Tensor | None]:
        """Note what the tokens of a prompt are worth, piece by piece; at last the logits (1, V) after it."""
        found, seen = [DecodedToken(row.prompt[0])], 0
        for logits in self.memory.add_slowly(row.prompt, budget):  # (T, V)
            following = row.prompt[len(found) : len(found) + len(logits)]
            found += _with_logprobs(
                logits[: len(following)], following, [row.top_logprobs or 0] * len(following)
            )
            seen += len(logits)
            row.scores = found
            yield logits[-1:] if seen == len(row.prompt) else None


def _groups(rows: Sequence[DecodingRow]) -> Iterator[list[DecodingRow]]:
    """Rows to be computed together: of like length, no more than PREFILL_TOKENS, a scored prompt alone."""
    group: list[DecodingRow] = []
    for row in sorted(rows, key=lambda row: (row.score_prompt, len(row.prompt))):
        if group and (row.score_prompt or (len(group) + 1) * len(row.prompt) > PREFILL_TOKENS):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _with_logprobs(logits: Tensor, ids: Sequence[int], wanted: Sequence[int | None]) -> list[DecodedToken]:
    """Tokens `ids` drawn from `logits` (B, V), with log-probabilities where they are wanted."""
    asked = [i for i, top in enumerate(wanted) if top is not None]
    tokens = [DecodedToken(id) for id in ids]
    if asked:
        logp = logits[asked].float().log_softmax(-1)  # (N, V)
        own = logp.gather(1, torch.tensor([ids[i] for i in asked], device=logp.device)[:, None])[
            :, 0
        ].tolist()
        most = max(wanted[i] or 0 for i in asked)
        values, at = (part.tolist() for part in logp.topk(min(most, logp.shape[-1])))
        for i, logprob, best, which in zip(asked, own, values, at, strict=True):
            top = tuple(zip(which, best, strict=True))[: wanted[i]]
            tokens[i] = DecodedToken(ids[i], logprob, top)
    return tokens


# --- memories -------------------------------------------------------------------------------------


class _Forward:
    """A model's forward pass, called with what its signature knows."""

    def __init__(self, model: Any):
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        names = inspect.signature(self.model.forward).parameters
        self.cache_name = next((name for name in ("cache", "past_key_values") if name in names), None)
        self.placed, self.cut = "position_ids" in names, "logits_to_keep" in names

    def __call__(self, ids: Tensor, keep: int, cache: RowsCache | None = None) -> Tensor:
        """Logits (B, keep, V) of the last `keep` of `ids` (B, T)."""
        device = self.model.device
        given: dict[str, Any] = {"use_cache": cache is not None}
        if cache is not None:
            given["attention_mask"] = cache.mask(ids.shape[1]).to(device)
            given[str(self.cache_name)] = cache
            if self.placed:
                given["position_ids"] = cache.positions(ids.shape[1]).to(device)
        if self.cut:
            given["logits_to_keep"] = keep
        return self.model(input_ids=ids.to(device), **given).logits[:, -keep:].float()


class CachedMemory:
    """Keys and values of all rows, padded on the left."""

    def __init__(self, forward: _Forward, layers: int):
        self.forward, self.layers = forward, layers
        self.cache = RowsCache(layers)
        self.last: list[int] = []  # each row's last token, not computed yet

    def add(self, prompts: Sequence[Sequence[int]], budget: TokenBudget) -> Iterator[Tensor | None]:
        """Compute further rows, equal prompts once; at last the logits (B, V) after them. They are in memory
        then, and not before."""
        places: dict[tuple[int, ...], int] = {}
        which = [places.setdefault(tuple(prompt), len(places)) for prompt in prompts]
        for logits, last in self._compute(list(places), 1, which, budget):
            yield logits[which, -1] if last else None

    def add_slowly(self, prompt: Sequence[int], budget: TokenBudget) -> Iterator[Tensor]:
        """Compute one further row; the logits (T, V) after each of its tokens, chunk by chunk."""
        for logits, _ in self._compute([prompt], CHUNK, [0], budget):
            yield logits[0]

    def _compute(
        self, prompts: Sequence[Sequence[int]], keep: int, which: Sequence[int], budget: TokenBudget
    ) -> Iterator[tuple[Tensor, bool]]:
        """Logits chunk by chunk, and whether it is the last; row i of memory is that of prompt `which[i]`."""
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
            if at == width:  # before the last is handed on, so that rows are in when it arrives
                new.repeat(which)
                self._take(new)
            yield logits, at == width

    def _take(self, new: RowsCache) -> None:
        if self.cache.rows:
            self.cache.take(new)
        else:
            self.cache = new

    def note(self, ids: Sequence[int]) -> None:
        """What was drawn for the last rows: of all, or of those just added."""
        del self.last[self.cache.rows - len(ids) :]
        self.last += ids

    def advance(self) -> Tensor:
        """The logits (B, V) after each row's last token."""
        self.cache.reserve(1)
        logits = self.forward(torch.tensor(self.last)[:, None], 1, self.cache)
        self.cache.advance(1)
        return logits[:, -1]

    def drop(self, at: int) -> None:
        self.cache.drop(at)
        last = self.last.pop()
        if at < len(self.last):
            self.last[at] = last


class Recomputed:
    """The ids of all rows. Rows of one length are computed together, without padding."""

    def __init__(self, forward: _Forward):
        self.forward = forward
        self.ids: list[list[int]] = []

    def add(self, prompts: Sequence[Sequence[int]], budget: TokenBudget) -> Iterator[Tensor | None]:
        self.ids += [list(prompt) for prompt in prompts]  # whole: what it would go on from is not kept
        yield self._logits(self.ids[-len(prompts) :])

    def add_slowly(self, prompt: Sequence[int], budget: TokenBudget) -> Iterator[Tensor]:
        self.ids.append(list(prompt))
        yield self.forward(torch.tensor([list(prompt)]), len(prompt))[0]

    def note(self, ids: Sequence[int]) -> None:
        for row, id in zip(self.ids[-len(ids) :], ids, strict=True):
            row.append(id)

    def advance(self) -> Tensor:
        return self._logits(self.ids)

    def drop(self, at: int) -> None:
        last = self.ids.pop()
        if at < len(self.ids):
            self.ids[at] = last

    def _logits(self, rows: list[list[int]]) -> Tensor:
        found: dict[int, Tensor] = {}
        for length in {len(row) for row in rows}:
            same = [i for i, row in enumerate(rows) if len(row) == length]
            logits = self.forward(torch.tensor([rows[i] for i in same]), 1)[:, -1]
            found |= dict(zip(same, logits, strict=True))
        return torch.stack([found[i] for i in range(len(rows))])  # (B, V)


def memory_for(model: Any) -> CachedMemory | Recomputed:
    """The faster memory that is right for `model`."""
    forward = _Forward(model)
    layers = layers_to_cache(forward.model) if forward.cache_name else None
    return Recomputed(forward) if layers is None else CachedMemory(forward, layers)

"""A text as a model sees it, token by token: attention, surprise, and the distribution of the next token."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from escultor.errors import DataError, InputError, ModelError
from escultor.model.loaded import Loaded, max_context_tokens
from escultor.text.streaming import TokenBytes

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

LONGEST = 1024  # tokens; the attention of all layers is in memory at once and grows with the square


@dataclass(frozen=True, slots=True)
class Expected:
    """A token that may come next, with the probability that the model gives it."""

    token: str
    id: int
    probability: float


@dataclass(frozen=True, slots=True)
class Position:
    """One token, and the distribution of the token after it: `soft`, most probable first, and `rest` sum to
    1. `hard` is the token that does come next; at the end, the most probable one (`hard_is_guess`)."""

    token: str
    id: int
    surprise_bits: float | None  # -log2 p(token | tokens before); None: nothing comes before
    entropy_bits: float  # of the distribution of the next token
    soft: tuple[Expected, ...]
    rest: float
    hard: Expected
    hard_is_guess: bool


@dataclass(frozen=True, slots=True)
class Inspection:
    """A text as its model sees it. Row i of `attention` is how much token i attends to each token."""

    positions: tuple[Position, ...]  # T
    attention: tuple[tuple[float, ...], ...]  # (T, T)
    layer: int  # the layer shown, from 0
    head: int | None  # the head shown, from 0; None: the mean over heads
    layers: int
    heads: int

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens in readable form."""
        return tuple(position.token for position in self.positions)


def inspect_text(
    loaded: Loaded, text: str, layer: int | None = None, top: int = 5, head: int | None = None
) -> Inspection:
    """Inspect `text`, read as a document in which control tokens are text.

    Shows the attention of `layer` (None: the last) and `head` (None: their mean), and `top` tokens of the
    soft label. The model is switched to eager attention meanwhile: not for two threads at once. Raises
    DataError for an empty or too long text, InputError for a layer, head or top that does not exist,
    ModelError when the model gives no attention weights.
    """
    import torch

    ids = _ids(loaded, text)
    if top < 1:
        raise InputError("the soft label needs tokens", f"top {top}", "1 or more")
    with _eager(loaded.model) as model:
        out = model(
            input_ids=torch.tensor([ids], device=model.device), output_attentions=True, use_cache=False
        )
    shown, layer, layers, heads = _reduced(out.attentions, layer, head)
    positions = _positions(loaded.tokenizer, ids, out.logits[0], top)
    attention = tuple(map(tuple, shown.tolist()))
    return Inspection(positions, attention, layer, head, layers=layers, heads=heads)


def _ids(loaded: Loaded, text: str) -> list[int]:
    """The token ids of the text as in pre-training: after the BOS token where the tokenizer has one."""
    ids = loaded.chat.documents([text])[0][:-1] if text else []
    if not ids:
        raise DataError("there is no text to look at", repr(text), "at least one token", "give some text")
    context = max_context_tokens(loaded.model)
    if len(ids) > (limit := min(context, LONGEST)):
        why = "the model's context" if context <= LONGEST else "what can be shown at once"
        what = f"the text is longer than {why}"
        remedy = "give a shorter text, or look at one part at a time"
        raise DataError(what, f"{len(ids)} tokens", f"at most {limit} tokens", remedy)
    return ids


@contextmanager
def _eager(model: Any) -> Iterator[Any]:
    """The model in evaluation mode with eager attention, which returns its weights; then as before."""
    import torch

    before, training = model.config._attn_implementation, model.training
    try:
        model.set_attn_implementation("eager")
        model.eval()
        with torch.no_grad():
            yield model
    finally:
        model.set_attn_implementation(before)
        model.train(training)


def _reduced(attentions: Any, layer: int | None, head: int | None) -> tuple[Tensor, int, int, int]:
    """Attention weights (T, T) of a layer's head or their mean; the layer; the number of layers and heads."""
    if not attentions or any(weights is None for weights in attentions):
        what = "the model gives no attention weights"
        remedy = "look at another model"
        raise ModelError(what, allowed="a transformer whose every layer attends", remedy=remedy)
    layers, heads = len(attentions), attentions[0].shape[1]
    layer = layers - 1 if layer is None else layer
    for name, value, count in (("layer", layer, layers), ("head", head, heads)):
        if value is not None and not 0 <= value < count:
            raise InputError(f"the model has no such {name}", value, f"0 to {count - 1}")
    weights = attentions[layer][0].double()  # (heads, T, T)
    return (weights.mean(0) if head is None else weights[head]), layer, layers, heads


def _positions(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], logits: Tensor, top: int
) -> tuple[Position, ...]:
    """From logits (T, V): the surprise of each token and the distribution after it."""
    logp = logits.double().log_softmax(-1)  # (T, V)
    p = logp.exp()  # (T, V)
    entropy = -(p * logp.clamp_min(-1e9)).sum(-1) / math.log(2)  # (T,)
    best, which = p.topk(min(top, p.shape[-1]), -1)  # (T, k)
    after = [*ids[1:], int(which[-1, 0])]  # T
    names = displayed_tokens(tokenizer, [*ids, *after, *which.flatten().tolist()])
    T, k = which.shape
    positions = []
    for t in range(T):
        at = 2 * T + t * k
        soft = zip(names[at : at + k], which[t].tolist(), best[t].tolist(), strict=True)
        positions.append(
            Position(
                token=names[t],
                id=ids[t],
                surprise_bits=-float(logp[t - 1, ids[t]]) / math.log(2) if t else None,
                entropy_bits=float(entropy[t]),
                soft=tuple(Expected(*each) for each in soft),
                rest=max(0.0, 1.0 - float(best[t].sum())),
                hard=Expected(names[T + t], after[t], float(p[t, after[t]])),
                hard_is_guess=t == T - 1,
            )
        )
    return tuple(positions)


# --- tokens for people ------------------------------------------------------------------------

_SHOWN = {" ": "␣", "\n": "↵", "\t": "⇥", "\x7f": "␡"} | {
    chr(code): chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"
}
_HALF = re.compile("[\udc80-\udcff]+")  # what surrogateescape makes of bytes that are no whole character


def displayed_tokens(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """Tokens in readable form: a blank as ␣, a line end as ↵, other control characters as Unicode pictures,
    bytes that are part of a character as ⟨E2 82⟩, ids that the tokenizer does not know as ⟨#4096⟩."""
    special, bytes_of = set(tokenizer.all_special_ids), TokenBytes(tokenizer).get
    pieces = tokenizer.convert_ids_to_tokens(ids)
    return [
        f"⟨#{id}⟩" if piece is None else piece if id in special else _readable(bytes_of(id))
        for id, piece in zip(ids, pieces, strict=True)
    ]


def _readable(raw: bytes) -> str:
    text = _HALF.sub(
        lambda half: f"⟨{half[0].encode('utf-8', 'surrogateescape').hex(' ').upper()}⟩",
        raw.decode("utf-8", "surrogateescape"),
    )
    return "".join(_SHOWN.get(sign, sign) for sign in text)

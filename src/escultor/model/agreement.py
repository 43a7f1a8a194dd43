"""How well a server's greedy answers fit a model: what each of its tokens costs in our log-probabilities.

Two correct implementations of one model round differently, so greedy answers part at a near tie sooner or
later, and texts alone cannot tell a rounding from a wrong template. The gap can: of every token of the
answer, how much less likely it is than the most likely one, by our model and with the answer so far as
context. Rounding costs hundredths, 8-bit weights tenths; a wrong template, tokenizer or layout costs many
nats at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from escultor.model.loaded import Loaded

PROMPTS = (
    "What is the capital of France?",
    "Write a sentence about the sea.",
    "What is 12 + 30?",
    "Name three animals.",
)
TOKENS = 24
MOST_GAP = {"f32": 0.25, "f16": 0.25, "bf16": 0.5, "q8_0": 0.75}  # in nats; of narrower types:
MOST_GAP_NARROW = 3.0


@dataclass(frozen=True)
class AnswerGap:
    """The largest gap of an answer in nats, where it is, and how many tokens agree before the first gap."""

    prompt: str
    tokens: int
    equal: int
    gap: float
    at: int
    theirs: str
    ours: str


def answer_gap(loaded: Loaded, prompt: str, ids: Sequence[int], answer: Sequence[int]) -> AnswerGap:
    """Compare an answer (token ids) to the prompt with these ids with what the model itself finds
    likely."""
    import torch

    if not answer:
        nothing = {"tokens": 0, "equal": 0, "gap": float("inf"), "at": 0, "theirs": "", "ours": "an answer"}
        return AnswerGap(prompt, **nothing)  # type: ignore[arg-type]
    row = torch.tensor([[*ids, *answer]], device=loaded.model.device)
    with torch.no_grad():
        logits = loaded.model(row).logits[0, len(ids) - 1 : -1].float()
    best, choice = logits.max(-1)
    gaps = best - logits.gather(-1, row[0, len(ids) :, None])[:, 0]
    at = int(gaps.argmax())
    parted = torch.nonzero(gaps > 0).flatten().tolist()
    decode = loaded.tokenizer.decode
    theirs, ours = decode([answer[at]]), decode([int(choice[at])])
    equal = parted[0] if parted else len(answer)
    said = {"theirs": str(theirs), "ours": str(ours)}
    return AnswerGap(prompt, len(answer), equal, gap=float(gaps[at]), at=at, **said)

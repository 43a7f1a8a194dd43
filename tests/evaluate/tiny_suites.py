"""Suites for a tiny model, which knows nothing: whatever it says is measured all the same."""

import torch
from tiny import llama

from escultor.skills.suites import EvaluationSuite, make_suite
from escultor.types import Message, Role, Sampling, SuiteItem

WORDS = ("cat", "dog", "bird", "tree", "house", "river", "stone", "cloud")


def user(text: str):
    return (Message(Role.USER, text),)


def talkative(seed: int = 0):
    """A tiny model whose greedy answers are not one token over and over: its head is not its embedding."""
    loaded = llama(seed)
    torch.manual_seed(seed)
    head = loaded.model.lm_head
    head.weight = torch.nn.Parameter(torch.randn_like(head.weight))
    return loaded


def items(count: int = 6) -> list[SuiteItem]:
    return [
        SuiteItem(
            f"i{n}",
            user(f"{WORDS[n % 8]} " * (1 + n % 3)),
            f"c{n // 2}",
            (WORDS[(n + 1) % 8],),
            ("dog", "a bird"),
            n % 2,
            user(f"I say dog. {WORDS[n % 8]}"),
            refuse=n % 2 == 0,
            document=f"{WORDS[n % 8]} and {WORDS[(n + 2) % 8]}",
            labels={"half": "first" if n < count // 2 else "second"},
        )
        for n in range(count)
    ]


EVERYTHING = (
    *("exact_match", "f1", "chrf", "schema_valid", "answer_tokens", "cut", "safe", "accuracy", "brier"),
    *("sycophancy_flip", "bits_per_byte", "perplexity", "document_bits_per_byte"),
)


def tiny_suite(
    count: int = 6, metrics=EVERYTHING, seeds=(0,), temperature: float = 0.0, tokens: int = 5
) -> EvaluationSuite:
    decoding = Sampling(temperature, 1.0, tokens)
    return make_suite("tiny", "chat", items(count), metrics, decoding, seeds, {"type": "object"})

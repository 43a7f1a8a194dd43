"""A model behind an OpenAI-compatible server, asked for answers and for how likely it holds texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from escultor.errors import DataError, UpstreamFault
from escultor.evaluate.endpoint import Endpoint
from escultor.types import Messages, Sampling

MOST_STOPS = 4  # that OpenAI's servers take
SLACK = 1e-9  # of log-probs that are equal


class ServedAnswer(NamedTuple):
    """An answer, its tokens as the server counts them, and whether it was cut."""

    text: str
    tokens: int
    cut: bool


@dataclass(frozen=True)
class ServedModel:
    """`model` is what requests name; `version` what the server says that name stands for."""

    endpoint: Endpoint
    model: str
    version: str

    @property
    def name(self) -> str:
        """Who answers, as scores name it: a served copy is not the checkpoint itself."""
        return f"{self.version} at {self.endpoint.url}"

    def answers(self, prompts: Sequence[Messages], samplings: Sequence[Sampling]) -> list[ServedAnswer]:
        """One answer to each conversation, which its server is not to learn from. Raises UpstreamFault."""
        bodies = [
            {
                "store": False,
                "messages": [{"role": str(m.role), "content": m.content} for m in prompt],
                **self._asked(own),
            }
            for prompt, own in zip(prompts, samplings, strict=True)
        ]
        return self.endpoint.ask("/chat/completions", bodies, _answer)

    def texts(
        self, contexts: Sequence[str], samplings: Sequence[Sampling], stops: Sequence[Sequence[str]]
    ) -> list[str]:
        """How each text goes on. Raises UpstreamFault."""
        bodies = [
            {"prompt": context, **self._asked(own), **({"stop": list(stop[:MOST_STOPS])} if stop else {})}
            for context, own, stop in zip(contexts, samplings, stops, strict=True)
        ]
        return self.endpoint.ask("/completions", bodies, _text)

    def likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """The log-probability of each continuation of a context, and whether each of its tokens was the
        likeliest. Raises UpstreamFault where the server does not score prompts."""
        whole = {"model": self.model, "temperature": 0, "max_tokens": 1, "logprobs": 1, "echo": True}
        bodies = [{**whole, "prompt": context + said} for context, said in pairs]
        found = self.endpoint.ask("/completions", bodies, _scored)
        return [_sum(tokens, *pair) for tokens, pair in zip(found, pairs, strict=True)]

    def _asked(self, own: Sampling) -> dict[str, Any]:
        drawn = {"temperature": own.temperature, "top_p": own.top_p, "seed": own.seed}
        return {"model": self.model, "max_tokens": own.max_new_tokens, **drawn}


def served(endpoint: Endpoint, model: str) -> ServedModel:
    """The model of this name there. Where the server tells which version the name stands for, and that
    version may be asked for, it is pinned: a canary must not answer a part of the items."""
    listed = endpoint.get("/models", _roots)
    if model not in listed:
        raise DataError(f"{endpoint.url} serves no such model", model, ", ".join(sorted(listed)) or "none")
    root = listed[model]
    return ServedModel(endpoint, root if root in listed else model, root)


class _Token(NamedTuple):
    start: int
    logprob: float | None
    likeliest: float


def _roots(reply: Any) -> dict[str, str]:
    return {str(each["id"]): str(each.get("root") or each["id"]) for each in reply["data"]}


def _answer(reply: Any) -> ServedAnswer:
    choice = reply["choices"][0]
    content, cut = choice["message"]["content"], choice["finish_reason"] == "length"
    if not isinstance(content, str):
        raise ValueError(f"content of type {type(content).__name__}")
    return ServedAnswer(content, int(reply["usage"]["completion_tokens"]), cut)


def _text(reply: Any) -> str:
    text = reply["choices"][0]["text"]
    if not isinstance(text, str):
        raise ValueError(f"text of type {type(text).__name__}")
    return text


def _scored(reply: Any) -> list[_Token]:
    found = reply["choices"][0]["logprobs"]
    if not isinstance(found, Mapping):
        raise ValueError("no log-probs: this server does not score prompts (echo and logprobs)")
    columns = found["text_offset"], found["token_logprobs"], found["top_logprobs"]
    return [
        _Token(int(at), logprob, max((tops or {}).values(), default=-float("inf")))
        for at, logprob, tops in zip(*columns, strict=True)
    ]


def _sum(tokens: Sequence[_Token], context: str, said: str) -> tuple[float, bool]:
    """The tokens that begin behind the context; one that reaches over its end is the continuation's where
    there is no other. What was generated behind both is left out."""
    inside = [t for t in tokens if t.start < len(context) + len(said)]
    own = [t for t in inside if t.start >= len(context)] or inside[-1:]
    if not own or any(t.logprob is None for t in own):
        what = "the server does not score the first token of a text"
        raise UpstreamFault(what, (context + said)[:80], remedy="evaluate the model itself")
    scores = [(t.logprob or 0.0, t.likeliest) for t in own]
    return sum(logprob for logprob, _ in scores), all(p >= best - SLACK for p, best in scores)

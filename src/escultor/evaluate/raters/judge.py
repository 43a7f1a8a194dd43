"""A language model as a judge of pairs: asked in both orders, believed where it agrees with itself.

Position is a judge's strongest bias (Zheng et al. 2023, arXiv:2306.05685), so every pair is judged twice,
with the sides exchanged: equal verdicts count, others are a tie and are counted. A reply that names no
verdict, or more than one, is no verdict, and is counted. What a judge said once is not asked again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from escultor.errors import DataError
from escultor.evaluate.cache import EvaluationCache
from escultor.evaluate.endpoint import Endpoint
from escultor.evaluate.raters.session import RatingSession
from escultor.ids import hash_value
from escultor.model.generate import generate
from escultor.model.loaded import Loaded
from escultor.types import Choice, Message, Messages, Role, Sampling, SourceKind

INSTRUCTION = (
    "You compare two answers to the same request. Judge by what they say: whether it is right, whether it "
    "answers what was asked, whether it leaves out nothing of weight. Their order, their length and their "
    "style are no merit. Think it over in a few sentences, then end with exactly one of [[A]], [[B]] or "
    "[[C]]: A is better, B is better, neither is."
)
PROMPT = "[Request]\n{request}\n\n[Answer A]\n{a}\n\n[Answer B]\n{b}"
_VERDICT = re.compile(r"\[\[([ABC])\]\]")
SAMPLING = Sampling(max_new_tokens=512)

Mark = Literal["A", "B", "C"]
Verdicts = tuple[Mark | None, Mark | None]
MARKS: tuple[Mark, ...] = get_args(Mark)
ASKED_AT_ONCE = 16  # what a killed judge loses at most


class Judge(Protocol):
    """Whoever replies to a prompt. `name` stands for all that decides a reply: it is part of the key
    under which replies are kept."""

    @property
    def name(self) -> str: ...
    def ask(self, prompts: Sequence[Messages]) -> list[str]:
        """One reply to each prompt, in their order."""
        ...


@dataclass(frozen=True)
class LocalJudge:
    """A model of this machine."""

    loaded: Loaded
    checkpoint: str
    batch_size: int = 8

    @property
    def name(self) -> str:
        return self.checkpoint

    def ask(self, prompts: Sequence[Messages]) -> list[str]:
        written = [self.loaded.chat.prompt(prompt) for prompt in prompts]
        return [answer.text for answer in generate(self.loaded, written, SAMPLING, self.batch_size)]


@dataclass(frozen=True)
class EndpointJudge:
    """A model behind any OpenAI-compatible server; `url` ends before /chat/completions."""

    url: str
    model: str
    key: str | None = None
    timeout_s: float = 60.0
    sleep: Callable[[float], None] = time.sleep

    @property
    def name(self) -> str:
        return f"{self.model} at {self.url}"

    def ask(self, prompts: Sequence[Messages]) -> list[str]:
        """Raises UpstreamFault when the server fails four times, or answers what is no answer."""
        bodies = [
            {
                "model": self.model,
                "store": False,  # a held-out prompt is not to be learnt from there
                "messages": [{"role": str(m.role), "content": m.content} for m in prompt],
                "temperature": 0,
                "max_tokens": SAMPLING.max_new_tokens,
            }
            for prompt in prompts
        ]
        return Endpoint(self.url, self.key, self.timeout_s, self.sleep).ask(
            "/chat/completions", bodies, _content
        )


def _content(reply: Any) -> str:
    content = reply["choices"][0]["message"]["content"]
    if not isinstance(content, str):
        raise ValueError(f"content of type {type(content).__name__}")
    return content


@dataclass(frozen=True, slots=True)
class JudgedItem:
    """What a judge made of one item: +1 for side b, -1 for side a, 0 for a tie or for verdicts that
    changed with the order; None where a reply named no verdict."""

    item: str
    cluster: str
    value: float | None
    verdicts: Verdicts  # with a first, and with b first

    @property
    def inconsistent(self) -> bool:
        a_first, b_first = self.verdicts
        return None not in self.verdicts and a_first != _EXCHANGED[b_first]


_EXCHANGED: dict[Mark | None, Mark | None] = {"A": "B", "B": "A", "C": "C", None: None}
_WORTH: dict[Mark | None, float] = {"A": -1.0, "B": 1.0, "C": 0.0}


def verdict_in(reply: str) -> Mark | None:
    """The verdict of a reply: the one mark that stands in it; None for none, or for different ones."""
    found = set(_VERDICT.findall(reply))
    return next((mark for mark in MARKS if found == {mark}), None)


def judge_session(
    session: RatingSession,
    judge: Judge,
    memo: EvaluationCache,
    progress: Callable[[str], None] = lambda text: None,
) -> list[JudgedItem]:
    """Both orders of every item on which the models differ. Equal answers are a tie unasked."""
    items, differ = session.suite.items, set(session.open_items)
    orders = {at: (session.answers[0][at], session.answers[1][at]) for at in session.open_items}
    prompts = [
        pair_prompt(items[at].prompt, *sides) for at, (a, b) in orders.items() for sides in ((a, b), (b, a))
    ]
    said: list[Mark | None] = [verdict_in(reply) for reply in ask(judge, prompts, memo, progress)]
    marks = iter(said)
    found = []
    for at, item in enumerate(items):
        verdicts: Verdicts = (next(marks), next(marks)) if at in differ else ("C", "C")
        found.append(JudgedItem(item.id, item.cluster, _value(*verdicts), verdicts))
    if all(judged.value is None for judged in found):
        raise DataError(
            f"the judge {judge.name} named no verdict",
            f"{len(found)} items",
            "replies that end with [[A]], [[B]] or [[C]]",
            "take a stronger judge",
        )
    return found


def pair_prompt(request: Messages, a: str, b: str) -> Messages:
    """What a judge is asked; the request is told as text, so that nothing in it is a turn of its own."""
    said = "\n".join(m.content if m.role is Role.USER else f"({m.role}) {m.content}" for m in request)
    text = f"{INSTRUCTION}\n\n{PROMPT.format(request=said, a=a, b=b)}"
    return (Message(Role.USER, text),)


def judge_choices(session: RatingSession, judge: Judge, found: Sequence[JudgedItem]) -> list[Choice]:
    """A judge's verdicts as choices for the log, one for each order; their ids are those of what was
    judged, by whom."""
    made, now, source = [], time.time(), SourceKind.LLM_JUDGE
    for judged in found:
        ids = (session.answer_id("a", judged.item), session.answer_id("b", judged.item))
        for order, mark in zip((ids, ids[::-1]), judged.verdicts, strict=True):
            if mark is not None:
                winner = {"A": order[0], "B": order[1], "C": None}[mark]
                id = f"choice-{hash_value([session.id, judge.name, order])}"
                made.append(Choice(id, now, judge.name, session.name, order, winner, source=source))
    return made


def ask(
    judge: Judge, prompts: Sequence[Messages], memo: EvaluationCache, progress: Callable[[str], None]
) -> list[str]:
    """A judge's reply to each prompt: those that are known, and the others asked for in groups."""
    keys = [hash_value([judge.name, prompt, SAMPLING]) for prompt in prompts]
    fresh = [at for at, key in enumerate(keys) if key not in memo]
    for start in range(0, len(fresh), ASKED_AT_ONCE):
        group = fresh[start : start + ASKED_AT_ONCE]
        replies = judge.ask([prompts[at] for at in group])
        memo.keep({keys[at]: reply for at, reply in zip(group, replies, strict=True)})
        progress(f"judged {start + len(group)} of {len(fresh)} pairs")
    return [str(memo.get(key, str)) for key in keys]


def _value(a_first: Mark | None, b_first: Mark | None) -> float | None:
    if a_first is None or b_first is None:
        return None
    return _WORTH[a_first] if a_first == _EXCHANGED[b_first] else 0.0

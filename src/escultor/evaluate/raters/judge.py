"""A language model as a judge of pairs of answers, asked in both orders.

Position is a judge's strongest bias (Zheng et al. 2023, arXiv:2306.05685), so every pair is judged twice,
with the sides exchanged: equal verdicts count, different ones are a tie. A reply that names no verdict, or
more than one, gives none. Replies are cached.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from escultor.errors import DataError
from escultor.evaluate.cache import EvaluationCache
from escultor.evaluate.raters.session import RatingSession
from escultor.evaluate.served_model import Endpoint, chat_body, chat_text
from escultor.ids import hash_value
from escultor.model.folders import resolve
from escultor.model.generate import generate
from escultor.model.load import load
from escultor.model.loaded import Loaded
from escultor.store.blobs import tree_hash
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
PAIRS_PER_GROUP = 16  # cached at a time, which is what a killed judge loses at most


class Judge(Protocol):
    """A model that replies to prompts, in their order. `name` covers all that decides a reply: it is part of
    the key in the cache."""

    @property
    def name(self) -> str: ...
    def ask(self, prompts: Sequence[Messages]) -> list[str]: ...


@dataclass(frozen=True)
class LocalJudge:
    """A model in this process."""

    loaded: Loaded
    name: str  # checkpoint id
    batch_size: int = 8

    def ask(self, prompts: Sequence[Messages]) -> list[str]:
        tokens = [self.loaded.chat.prompt(prompt) for prompt in prompts]
        return [answer.text for answer in generate(self.loaded, tokens, SAMPLING, self.batch_size)]


@dataclass(frozen=True)
class EndpointJudge:
    """A model behind any OpenAI-compatible server."""

    endpoint: Endpoint
    model: str

    @property
    def name(self) -> str:
        return f"{self.model} at {self.endpoint.url}"

    def ask(self, prompts: Sequence[Messages]) -> list[str]:
        """Raises UpstreamFault when the server fails four times, or sends no answer."""
        sampling = {"temperature": 0, "max_tokens": SAMPLING.max_new_tokens}
        bodies = [chat_body(self.model, prompt) | sampling for prompt in prompts]
        return self.endpoint.post("/chat/completions", bodies, chat_text)


def open_judge(model: str, url: str | None, key_env: str, batch_size: int) -> Judge:
    """The judge of this name: a model folder, or with `url` a model behind a server, whose key is in the
    environment variable `key_env`. Raises ModelError for a folder that is no model."""
    if url is not None:
        return EndpointJudge(Endpoint(url, os.environ.get(key_env)), model)
    folder = resolve(model)
    return LocalJudge(load(str(folder)), tree_hash(folder), batch_size)


@dataclass(frozen=True, slots=True)
class JudgedItem:
    """A preference on one item: +1 for side b, -1 for side a, 0 for a tie or verdicts that changed with the
    order; None where a reply named no verdict."""

    item: str
    cluster: str
    value: float | None
    verdicts: Verdicts  # with a first, and with b first

    @property
    def inconsistent(self) -> bool:
        a_first, b_first = self.verdicts
        return None not in self.verdicts and a_first != _EXCHANGED[b_first]


_EXCHANGED: dict[Mark | None, Mark | None] = {"A": "B", "B": "A", "C": "C", None: None}
_VALUES: dict[Mark | None, float] = {"A": -1.0, "B": 1.0, "C": 0.0}


def parse_verdict(reply: str) -> Mark | None:
    """The verdict of a reply: the only mark in it; None for none, or for different ones."""
    marks = set(_VERDICT.findall(reply))
    return next((mark for mark in MARKS if marks == {mark}), None)


def judge_session(
    session: RatingSession,
    judge: Judge,
    cache: EvaluationCache,
    progress: Callable[[str], None] = lambda text: None,
    rubric: str = "",
) -> list[JudgedItem]:
    """The judge's preference on every item, by the rubric of its skill where there is one. Equal
    answers are a tie that the judge is not asked about. Raises DataError where no reply names a verdict."""
    items, a, b = session.suite.items, *session.answers
    asked = [(items[i].prompt, a[i], b[i]) for i in session.open_items]
    verdicts = dict(
        zip(session.open_items, judge_pairs(judge, asked, cache, progress, rubric=rubric), strict=True)
    )
    judged = []
    for i, item in enumerate(items):
        own = verdicts.get(i, ("C", "C"))
        judged.append(JudgedItem(item.id, item.cluster, preference_of(*own), own))
    if all(each.value is None for each in judged):
        raise DataError(
            f"the judge {judge.name} named no verdict",
            f"{len(judged)} items",
            "replies that end with [[A]], [[B]] or [[C]]",
            "take a stronger judge",
        )
    return judged


def judge_pairs(
    judge: Judge,
    pairs: Sequence[tuple[Messages, str, str]],
    cache: EvaluationCache,
    progress: Callable[[str], None],
    *,
    rubric: str = "",
) -> list[Verdicts]:
    """The judge's verdicts on pairs of answers to a request: with the first first, then the second."""
    prompts = [pair_prompt(request, *sides, rubric) for request, a, b in pairs for sides in ((a, b), (b, a))]
    marks = map(parse_verdict, ask_judge(judge, prompts, cache, progress))
    return [(mark, next(marks)) for mark in marks]


def preference_of(a_first: Mark | None, b_first: Mark | None) -> float | None:
    """+1 where both verdicts are for b, -1 for a, 0 for a tie or verdicts that changed with the order; None
    where one is missing."""
    if a_first is None or b_first is None:
        return None
    return _VALUES[a_first] if a_first == _EXCHANGED[b_first] else 0.0


def pair_prompt(request: Messages, a: str, b: str, rubric: str = "") -> Messages:
    """The prompt for a judge, with the rubric of a skill; the request is quoted as text, not as messages."""
    text = "\n".join(m.content if m.role is Role.USER else f"({m.role}) {m.content}" for m in request)
    told = f"{INSTRUCTION}\n\n[What matters here]\n{rubric}" if rubric else INSTRUCTION
    return (Message(Role.USER, f"{told}\n\n{PROMPT.format(request=text, a=a, b=b)}"),)


def judge_choices(session: RatingSession, judge: Judge, judged: Sequence[JudgedItem]) -> list[Choice]:
    """A judge's verdicts as choices for the log, one for each order, with reproducible ids."""
    choices, now = [], time.time()
    for each in judged:
        ids = (session.answer_id("a", each.item), session.answer_id("b", each.item))
        for order, mark in zip((ids, ids[::-1]), each.verdicts, strict=True):
            if mark is not None:
                winner = {"A": order[0], "B": order[1], "C": None}[mark]
                choices.append(
                    Choice(
                        id=f"choice-{hash_value([session.id, judge.name, order])}",
                        time=now,
                        subject=judge.name,
                        name=session.name,
                        shown_order=order,
                        winner=winner,
                        source=SourceKind.LLM_JUDGE,
                    )
                )
    return choices


def ask_judge(
    judge: Judge, prompts: Sequence[Messages], cache: EvaluationCache, progress: Callable[[str], None]
) -> list[str]:
    """A judge's reply to each prompt, from the cache where it is known."""
    return cache.get_many(
        prompts,
        lambda prompt: hash_value([judge.name, prompt, SAMPLING]),
        judge.ask,
        PAIRS_PER_GROUP,
        lambda done, total: progress(f"judged {done} of {total} pairs"),
    )

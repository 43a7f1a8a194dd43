"""A verdict with everything it was made from, and its file: the same inputs give the same bytes. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from escultor.config import Gate, aliases
from escultor.errors import DataError
from escultor.evaluate.gate.decision import FIRST_ANALYSIS, decide, policy_json
from escultor.evaluate.gate.other_skills import OtherSkill
from escultor.evaluate.gate.requirements import default_policy, scale_of, scales_of
from escultor.evaluate.gate.trade_off import TradeOff, trade_off
from escultor.ids import hash_bytes, plain
from escultor.types import GateContext, Hold, Scores, Verdict

FORMAT = "escultor-verdict/4"
# 1: other keys of policies, other words; 2: clusters counted by their sizes, no bound of primaries; 3: guards
# say nothing of the mean over items.
OLDER_FORMATS = tuple(f"escultor-verdict/{version}" for version in (1, 2, 3))
SHOWN_REGRESSIONS = 5
EMPTY_ANSWER = "(an empty answer)"


@dataclass(frozen=True, slots=True)
class DecisionInputs:
    """What a verdict is made from, and what its page shows beside it.

    `prompts` and `answers` (champion's and candidate's) are in the order of the items; they and `latencies`
    (milliseconds) may be empty.
    """

    champion: Scores
    candidate: Scores
    policy: Gate
    seed: int
    context: GateContext = FIRST_ANALYSIS
    names: tuple[str, str] = ("champion", "candidate")
    prompts: tuple[str, ...] = ()
    answers: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    latencies: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    others: tuple[OtherSkill, ...] = ()


class Regression(NamedTuple):
    """An item on which the candidate is worse, in the first primary metric."""

    item: str
    metric: str
    champion: float
    candidate: float
    prompt: str
    answers: tuple[str, str]

    @property
    def shown(self) -> tuple[str, ...]:
        """Both answers for a reader, an empty one in words; none where none were kept."""
        return tuple(a if a.strip() else EMPTY_ANSWER for a in self.answers) if any(self.answers) else ()


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A verdict and all that its file and page show, computed once (see `record_decision`)."""

    inputs: DecisionInputs
    verdict: Verdict
    regressions: tuple[Regression, ...]  # the worst first
    trade_off: TradeOff | None  # None where the candidate is not smaller than the champion
    parts: Mapping[str, bytes]  # the inputs by name, to be kept under their hashes

    @property
    def id(self) -> str:
        return self.verdict.because.id


def record_decision(inputs: DecisionInputs) -> DecisionRecord:
    """Let the gate decide, once. Raises DataError as `decide` does, and where answers and items differ in
    number."""
    n = len(inputs.champion.items)
    if counts := [len(texts) for texts in (inputs.prompts, *inputs.answers) if len(texts) not in (0, n)]:
        raise DataError(
            "the answers do not match the items", f"{counts[0]} for {n} items", "one for each item"
        )
    inputs = replace(inputs, policy=default_policy(inputs.policy, scales_of(inputs.champion)))
    # The inputs as they will be read back: an integer given for a float must make no difference.
    d = inputs_of(parts_of(inputs))
    return DecisionRecord(
        inputs=d,
        verdict=decide(d.champion, d.candidate, d.policy, d.seed, d.context, others=d.others),
        regressions=_regressions(d),
        trade_off=_trade_off(d),
        parts=parts_of(d),
    )


def document(record: DecisionRecord) -> str:
    """The verdict's file: the verdict with all figures, and the hashes of its inputs."""
    d, verdict = record.inputs, record.verdict
    content: dict[str, Any] = {
        "format": FORMAT,
        "verdict": type(verdict).__name__.lower(),
        "reason": verdict.because.reason,
        "n_needed": verdict.n_needed if isinstance(verdict, Hold) else None,
        "names": list(d.names),
        "because": plain(verdict.because),
        "policy": policy_json(d.policy),
        "seed": d.seed,
        "summary": [d.champion.summary, d.candidate.summary],
        "worst_regressions": [plain(r._asdict()) for r in record.regressions],
        "trade_off": None if record.trade_off is None else plain(record.trade_off),
        "inputs": {name: hash_bytes(part) for name, part in record.parts.items()},
    }
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def parts_of(d: DecisionInputs) -> dict[str, bytes]:
    """The inputs of a verdict by name, as JSON."""
    parts = {
        "champion": plain(d.champion),
        "candidate": plain(d.candidate),
        "policy": policy_json(d.policy),
        "around": [d.seed, plain(d.context), d.names],
        "shown": [d.prompts, d.answers, d.latencies],
    }
    if d.others:
        parts["others"] = plain(d.others)
    return {name: json.dumps(part).encode() for name, part in parts.items()}


def inputs_of(parts: Mapping[str, bytes]) -> DecisionInputs:
    """The inputs of a verdict from their parts, the inverse of `parts_of`; a policy may have the keys of an
    older version. Raises DataError where they cannot be read."""
    from pydantic import TypeAdapter, ValidationError

    try:
        read = {name: json.loads(part) for name, part in parts.items()}
        scores = TypeAdapter(Scores)
        seed, context, names = read["around"]
        prompts, answers, latencies = read["shown"]
        policy = aliases.update_keys({"gate": read["policy"]}, "the policy of a verdict", [])["gate"]
        return DecisionInputs(
            champion=scores.validate_python(read["champion"]),
            candidate=scores.validate_python(read["candidate"]),
            policy=Gate.model_validate(policy),
            seed=int(seed),
            context=TypeAdapter(GateContext).validate_python(context),
            names=(names[0], names[1]),
            prompts=tuple(prompts),
            answers=(tuple(answers[0]), tuple(answers[1])),
            latencies=(tuple(latencies[0]), tuple(latencies[1])),
            others=TypeAdapter(tuple[OtherSkill, ...]).validate_python(read.get("others", ())),
        )
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise DataError("the inputs of a verdict cannot be read", str(error).splitlines()[0]) from error


def _regressions(d: DecisionInputs) -> tuple[Regression, ...]:
    """The items on which the candidate loses most in the first primary metric, the worst first."""
    metric = d.policy.primary[0]
    old, new = d.champion.metrics[metric], d.candidate.metrics[metric]
    sign = -1 if scale_of(d.champion.scales, metric).better == "lower" else 1
    order = sorted(range(len(old)), key=lambda i: (sign * (new[i] - old[i]), d.champion.items[i]))

    def text(texts: tuple[str, ...], index: int) -> str:
        return texts[index] if texts else ""

    return tuple(
        Regression(
            item=d.champion.items[i],
            metric=metric,
            champion=old[i],
            candidate=new[i],
            prompt=text(d.prompts, i),
            answers=(text(d.answers[0], i), text(d.answers[1], i)),
        )
        for i in order[:SHOWN_REGRESSIONS]
        if sign * (new[i] - old[i]) < 0
    )


def _trade_off(d: DecisionInputs) -> TradeOff | None:
    old, new = (scores.summary.get("parameters") for scores in (d.champion, d.candidate))
    if not old or not new or new >= old:
        return None
    return trade_off(d.champion, d.candidate, d.policy, d.seed)

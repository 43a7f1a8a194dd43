"""Everything a verdict was made from, and the verdict's file: the same inputs give the same bytes. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from escultor.config import Gate
from escultor.errors import DataError
from escultor.evaluate.gate.decision import NOTHING, decide
from escultor.evaluate.gate.effects import scale_of
from escultor.evaluate.gate.trade_off import TradeOff, trade_off
from escultor.ids import hash_bytes, plain
from escultor.types import GateContext, Hold, Scores, Verdict

FORMAT = "escultor-verdict/1"
WORST = 5  # regressions that are shown
EMPTY = "(an empty answer)"


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """The inputs of a verdict and what its page shows beside it. `prompts` and `answers` (champion's and
    candidate's) are in the order of the items; they and `latencies` (milliseconds) may be empty."""

    champion: Scores
    candidate: Scores
    policy: Gate
    seed: int
    around: GateContext = NOTHING
    names: tuple[str, str] = ("champion", "candidate")
    prompts: tuple[str, ...] = ()
    answers: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    latencies: tuple[tuple[float, ...], tuple[float, ...]] = field(default=((), ()))


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
        return tuple(text if text.strip() else EMPTY for text in self.answers) if any(self.answers) else ()


def verdict_of(dossier: DecisionRecord) -> Verdict:
    """What the gate says. Raises DataError, as `decide` does, and where answers and items do not fit."""
    d, n = dossier, len(dossier.champion.items)
    odd = [len(texts) for texts in (d.prompts, *d.answers) if len(texts) not in (0, n)]
    if odd:
        raise DataError("the answers do not fit the items", f"{odd[0]} for {n} items", "one for each item")
    return decide(d.champion, d.candidate, d.policy, d.seed, d.around)


def document(dossier: DecisionRecord) -> str:
    """The verdict's file: the verdict with all figures, and the hashes of its inputs (see `parts`)."""
    inputs = parts(dossier)
    dossier = of_parts(inputs)
    verdict, trade = verdict_of(dossier), trade_off_of(dossier)
    made: dict[str, Any] = {
        "format": FORMAT,
        "verdict": type(verdict).__name__.lower(),
        "reason": verdict.because.reason,
        "n_needed": verdict.n_needed if isinstance(verdict, Hold) else None,
        "names": list(dossier.names),
        "because": plain(verdict.because),
        "policy": dossier.policy.model_dump(mode="json"),
        "seed": dossier.seed,
        "summary": [dossier.champion.summary, dossier.candidate.summary],
        "worst_regressions": [plain(r._asdict()) for r in regressions(dossier)],
        "trade_off": None if trade is None else plain(trade),
        "inputs": {name: hash_bytes(part) for name, part in inputs.items()},
    }
    return json.dumps(made, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def parts(dossier: DecisionRecord) -> dict[str, bytes]:
    """The inputs by name, as bytes to be kept under their hash: those of the dossier as it would be read
    back, so that an integer given for a float makes no difference."""
    return _written(of_parts(_written(dossier)))


def _written(d: DecisionRecord) -> dict[str, bytes]:
    found = {
        "champion": plain(d.champion),
        "candidate": plain(d.candidate),
        "policy": d.policy.model_dump(mode="json"),
        "around": [d.seed, plain(d.around), d.names],
        "shown": [d.prompts, d.answers, d.latencies],
    }
    return {name: json.dumps(part).encode() for name, part in found.items()}


def of_parts(found: Mapping[str, bytes]) -> DecisionRecord:
    """The dossier whose parts these are. Raises DataError when they are none."""
    from pydantic import TypeAdapter, ValidationError

    try:
        read = {name: json.loads(part) for name, part in found.items()}
        scores = TypeAdapter(Scores)
        seed, around, names = read["around"]
        prompts, answers, latencies = read["shown"]
        return DecisionRecord(
            scores.validate_python(read["champion"]),
            scores.validate_python(read["candidate"]),
            Gate.model_validate(read["policy"]),
            int(seed),
            TypeAdapter(GateContext).validate_python(around),
            (names[0], names[1]),
            tuple(prompts),
            (tuple(answers[0]), tuple(answers[1])),
            (tuple(latencies[0]), tuple(latencies[1])),
        )
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise DataError("the inputs of a verdict cannot be read", str(error).splitlines()[0]) from error


def regressions(dossier: DecisionRecord) -> tuple[Regression, ...]:
    """The items on which the candidate loses most in the first primary metric, the worst first."""
    d, metric = dossier, dossier.policy.primary[0]
    old, new = d.champion.metrics[metric], d.candidate.metrics[metric]
    sign = -1 if scale_of(d.champion, metric).better == "lower" else 1
    order = sorted(range(len(old)), key=lambda i: (sign * (new[i] - old[i]), d.champion.items[i]))
    worse = [i for i in order[:WORST] if sign * (new[i] - old[i]) < 0]

    def text(texts: tuple[str, ...], i: int) -> str:
        return texts[i] if texts else ""

    return tuple(
        Regression(
            d.champion.items[i],
            metric,
            old[i],
            new[i],
            text(d.prompts, i),
            (text(d.answers[0], i), text(d.answers[1], i)),
        )
        for i in worse
    )


def trade_off_of(dossier: DecisionRecord) -> TradeOff | None:
    """What a smaller candidate keeps and gains; None where the candidate is not smaller."""
    old, new = (s.summary.get("parameters") for s in (dossier.champion, dossier.candidate))
    if not old or not new or new >= old:
        return None
    return trade_off(dossier.champion, dossier.candidate, dossier.policy, dossier.seed)

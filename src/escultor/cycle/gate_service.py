"""Verdicts and the store: the context of a comparison, its record, where it is kept, and its replay."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from escultor.config import Gate
from escultor.cycle.leaks import trained_on
from escultor.errors import DataError
from escultor.evaluate.gate.alpha_spending import analysis_of
from escultor.evaluate.gate.decision import policy_hash
from escultor.evaluate.gate.decision_record import DecisionInputs, DecisionRecord, record_decision
from escultor.evaluate.gate.other_skills import OtherSkill
from escultor.evaluate.gate.reproduction import verdict_seed
from escultor.evaluate.gate.requirements import described, requirements, shortfall, unknown_vetoes
from escultor.evaluate.report.verdict_files import write_pages
from escultor.skills.suites import EvaluationSuite, suites_sharing_items
from escultor.store import Store
from escultor.store.files import locked
from escultor.types import Checkpoint, GateContext, Scores, Suite, Verdict


def exclusive(store: Store) -> AbstractContextManager[None]:
    """Keep other processes of this machine from counting analyses and recording a verdict meanwhile: two
    comparisons at once would both be the first. Waits until the lock is free."""
    return locked(store.root / "gate.lock")


def check_policy(policy: Gate, suite: Suite) -> str | None:
    """Why nothing can be promoted under a policy on a suite, before anything is measured; None where
    something can. Raises DataError where a veto of the policy names nothing that is measured on it."""
    if unknown := unknown_vetoes(policy, suite.metrics):
        raise DataError(
            "; ".join(unknown),
            f"policy `{policy.name}`, suite `{suite.name}`",
            remedy="remove the veto, or use a suite that measures it (metrics of the built-in probes: "
            "escultor evaluate --suite sycophancy)",
        )
    needs = requirements(policy, suite.metrics)
    why = shortfall(needs, policy, items=suite.items, clusters=suite.clusters)
    return None if why is None else f"Nothing can be promoted on suite `{suite.name}`: {why}."


def require_enough_items(policy: Gate, suite: Suite) -> None:
    """Raises DataError where nothing could be promoted under the policy, whatever is measured."""
    if why := check_policy(policy, suite):
        raise DataError(
            why,
            f"policy `{policy.name}`, suite `{suite.name}` of {suite.items:,} items",
            remedy="add items, or state wider margins or a smaller min_items (escultor compare plan)",
        )


def needs_of(policy: Gate, suite: Suite) -> str:
    """How many independent items a policy needs, in words."""
    needs = requirements(policy, suite.metrics)
    return f"Independent items that the policy needs: {described(needs, policy)}; suite: {suite.clusters:,}."


def context_of(
    store: Store,
    champion: Scores,
    candidate: Scores,
    policy: Gate,
    *,
    card: Mapping[str, float] | None = None,
    signed_by: str | None = None,
    void: Mapping[str, str] | None = None,
    asked: Sequence[str] = (),
) -> GateContext:
    """The context of a comparison: its number among the analyses of the suite, counted over the verdicts of
    the store; the items that are void, as given and as the store knows what was trained on; card and
    signature as given. `asked` are the texts of the items where no suite is registered (default: their
    ids): they are kept, so that a later comparison on some of them is counted too."""
    verdicts = [verdict for _, verdict in store.log.read(Verdict)]
    kept = {v.because.suite: v.because.asked for v in verdicts if v.because.asked}
    questions = {suite: json.loads(store.blobs.get_bytes(blob)) for suite, blob in kept.items()}
    is_registered = store.log.get(Suite, champion.suite) is not None
    asked = () if is_registered else asked or [f"item {id}" for id in champion.items]
    blob = "" if is_registered else store.blobs.put_bytes(json.dumps(list(asked)).encode())
    same = suites_sharing_items(
        store,
        champion.suite,
        {verdict.because.suite for verdict in verdicts},
        questions | {champion.suite: asked},
    )
    analysis = analysis_of(verdicts, champion, candidate, policy_hash(policy), same=same)
    leaked = trained_on(store, champion.suite, champion.checkpoint, candidate.checkpoint)
    return GateContext(
        look=analysis.number,
        promotions=analysis.promotions,
        is_remembered=analysis.number > 1 or _was_made_here(store, candidate.checkpoint),
        card=card,
        signed_by=signed_by,
        void={**leaked, **(void or {})},
        asked=blob,
    )


def _was_made_here(store: Store, checkpoint: str) -> bool:
    """Whether a run of this store made the checkpoint: then no other store compared it before."""
    record = store.log.get(Checkpoint, checkpoint)
    return record is not None and record.method != "import"


def decide_from_store(
    store: Store,
    champion: Scores,
    candidate: Scores,
    policy: Gate,
    context: GateContext,
    names: tuple[str, str],
    suite: EvaluationSuite | None = None,
    others: tuple[OtherSkill, ...] = (),
) -> DecisionRecord:
    """The gate's decision, with the prompts of the suite and what the store kept of both evaluations;
    `others` are the other skills that the model serves.

    The draws of its statistics follow from the numbers that are compared: no other seed can be tried.
    """
    from escultor.evaluate.predictions import load_predictions

    kept = [load_predictions(store.blobs, scores) for scores in (champion, candidate)]
    answers = [() if k is None else tuple(texts[0] for texts in k.answers) for k in kept]
    latencies = [() if k is None else tuple(t.latency_ms for t in k.requests) for k in kept]
    prompts = () if suite is None else tuple(item.prompt[-1].content for item in suite.items)
    return record_decision(
        DecisionInputs(
            champion=champion,
            candidate=candidate,
            policy=policy,
            seed=verdict_seed(champion, candidate, policy),
            context=context,
            names=names,
            prompts=prompts if len(prompts) == len(champion.items) else (),
            answers=(answers[0], answers[1]),
            latencies=(latencies[0], latencies[1]),
            others=others,
        )
    )


def write_record(store: Store, record: DecisionRecord, folder: Path | None = None) -> Path:
    """Keep the inputs of a verdict as blobs, and write its file and page into the folder (default: that of
    the verdict's id below `verdicts/` in the store), which is returned."""
    for part in record.parts.values():
        store.blobs.put_bytes(part)
    folder = folder or store.root / "verdicts" / record.id
    write_pages(folder, record)
    return folder


def card_figures(card: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a dataset card, those of inner objects under dotted names, and two that are read off it:
    `largest_label`, the largest share of one value among its labels, and `largest_subject`, the largest share
    of the rows of one person."""
    figures: dict[str, float] = {}

    def collect(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                collect(f"{prefix}.{key}" if prefix else str(key), inner)
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            figures[prefix] = float(value)

    collect("", card)
    diversity = card.get("diversity")
    labels = diversity.get("after", ()) if isinstance(diversity, Mapping) else ()
    shares = {
        "largest_label": [label["largest_share"] for label in labels],
        "largest_subject": [
            value
            for name, value in figures.items()
            if name == "subjects.largest_share" or name.endswith(".largest_end_user_share")
        ],
    }
    return {name: max(values) for name, values in shares.items() if values} | figures

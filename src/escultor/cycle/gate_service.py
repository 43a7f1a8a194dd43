"""Verdicts and the store: what one depends on beside scores, where it is kept, and its replay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from difflib import unified_diff
from pathlib import Path

from escultor.config import Gate
from escultor.cycle.leaks import trained_on
from escultor.errors import DataError
from escultor.evaluate.gate.alpha_spending import look_number
from escultor.evaluate.gate.decision import policy_hash
from escultor.evaluate.gate.decision_record import (
    FORMAT,
    DecisionRecord,
    document,
    of_parts,
    parts,
    verdict_of,
)
from escultor.evaluate.predictions import kept_of
from escultor.evaluate.report.decision_markdown import markdown
from escultor.evaluate.report.decision_page import page_of
from escultor.evaluate.report.page import render_verdict
from escultor.rng import derive_seed
from escultor.skills.suites import EvaluationSuite, sharing_items
from escultor.store import Store, files
from escultor.store.locks import locked
from escultor.types import Checkpoint, GateContext, Scores, Verdict


def alone(store: Store) -> AbstractContextManager[None]:
    """Keep other processes of this machine from counting looks and recording a verdict meanwhile: two
    comparisons at once would both be the first. Waits until the lock is free."""
    return locked(store.root / "gate.lock")


def circumstances(
    store: Store,
    champion: Scores,
    candidate: Scores,
    policy: Gate,
    card: Mapping[str, float] | None = None,
    signed_by: str | None = None,
    void: Mapping[str, str] | None = None,
) -> GateContext:
    """The look that this comparison is, counted over the verdicts of the store; the items that are void, as
    given and as the store knows what was trained on; and what else was given."""
    verdicts = [verdict for _, verdict in store.log.read(Verdict)]
    same = sharing_items(store, champion.suite, {verdict.because.suite for verdict in verdicts})
    parents = {c.id: c.parents for _, c in store.log.read(Checkpoint)}
    look = look_number(verdicts, champion, candidate, policy_hash(policy), parents, same)
    leaked = trained_on(store, champion.suite, champion.checkpoint, candidate.checkpoint)
    return GateContext(look, card, signed_by, {**leaked, **(void or {})})


def dossier_of(
    store: Store,
    champion: Scores,
    candidate: Scores,
    policy: Gate,
    around: GateContext,
    names: tuple[str, str],
    exam: EvaluationSuite | None = None,
) -> DecisionRecord:
    """The inputs of a verdict, with the prompts of the suite and what the store kept of both evaluations.

    The draws of its statistics follow from what is compared: no other seed can be tried.
    """
    asked = sorted((champion.checkpoint, candidate.checkpoint))
    seed = derive_seed(0, "verdict", *asked, champion.suite, policy_hash(policy))
    kept = [kept_of(store.blobs, scores) for scores in (champion, candidate)]
    told = [() if k is None else tuple(said[0] for said in k.answers) for k in kept]
    timed = [() if k is None else tuple(t.latency_ms for t in k.requests) for k in kept]
    prompts = () if exam is None else tuple(item.prompt[-1].content for item in exam.items)
    n = len(champion.items)
    return DecisionRecord(
        champion,
        candidate,
        policy,
        seed,
        around,
        names,
        prompts if len(prompts) == n else (),
        (told[0], told[1]),
        (timed[0], timed[1]),
    )


def keep(store: Store, dossier: DecisionRecord, folder: Path | None = None) -> Path:
    """Record a verdict and file it (see `file`); the folder of its file and page."""
    verdict = verdict_of(dossier)
    store.log.append(verdict)
    return file(store, dossier, folder or store.root / "verdicts" / verdict.because.id)


def file(store: Store, dossier: DecisionRecord, folder: Path) -> Path:
    """Keep the inputs of a verdict as blobs, and write its file and page into the folder."""
    for part in parts(dossier).values():
        store.blobs.put_bytes(part)
    write_pages(folder, dossier, document(dossier))
    return folder


def replay(store: Store, text: str) -> tuple[DecisionRecord, list[str]]:
    """Decide again from the inputs that a verdict's file names by hash, and the lines that differ then.

    Raises DataError when the text is no verdict's file, StoreError when the store lacks an input.
    """
    try:
        found = json.loads(text)
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']!r}")
        inputs = dict(found["inputs"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError("this is no file of a verdict", str(error), FORMAT) from error
    dossier = of_parts({name: store.blobs.get_bytes(hash) for name, hash in inputs.items()})
    again = document(dossier)
    differ = unified_diff(text.splitlines(), again.splitlines(), "file", "replayed", lineterm="", n=0)
    return dossier, [] if text == again else list(differ) or ["line ends differ"]


def write_pages(folder: Path, dossier: DecisionRecord, text: str) -> None:
    """verdict.json, verdict.html and verdict.md."""
    page = page_of(dossier)
    for name, body in (
        ("verdict.json", text),
        ("verdict.html", render_verdict(page)),
        ("verdict.md", markdown(page)),
    ):
        with files.whole(folder / name) as draft:
            draft.write_text(body, encoding="utf-8", newline="")

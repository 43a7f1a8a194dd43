"""Answers about documents that a person corrected, as rows of the log."""

from __future__ import annotations

import time
from dataclasses import dataclass

from escultor.ids import hash_value
from escultor.serve.subjects import SubjectHasher
from escultor.store import Store
from escultor.store.redaction import redact_record
from escultor.types import Consent, Correction, Feedback, Interaction, Messages, Sampling, Usage

ARM = "imported"  # no deployment chose the version


@dataclass(frozen=True)
class CorrectedAnswer:
    """An answer that a version gave at `made` (seconds since the epoch), and what it should have been."""

    skill: str
    version: str
    made: float
    messages: Messages
    answer: str
    corrected: str
    sampling: Sampling


def record_correction(store: Store, given: CorrectedAnswer, person: str, keep_text: bool = True) -> bool:
    """Append the answer, where the log has it not, and its correction by a person; whether the correction is
    new. Recording it again adds nothing."""
    hasher = SubjectHasher.for_store(store.root)
    subject = hasher.subject(person)
    key = hash_value([given.skill, given.version, given.messages, given.answer])
    interaction = Interaction(
        id=f"doc-{key}",
        time=given.made,
        skill=given.skill,
        subject=subject,
        version=given.version,
        arm=ARM,
        propensity=1.0,
        messages=given.messages,
        answer=given.answer,
        finish_reason="stop",
        sampling=given.sampling,
        usage=Usage(0, 0, estimated=True),
        latency_ms=0.0,
        ttft_ms=None,
        cost_usd=0.0,
        prompt_hash=hash_value(given.messages),
        consent=Consent.TRAIN,
    )
    id = f"fix-{hash_value([interaction.id, given.corrected])}"
    correction = Correction(id, time.time(), interaction.id, subject, given.corrected)
    if store.log.get(Feedback, id) is not None:
        return False
    found = store.log.get(Interaction, interaction.id)
    if found is None and not keep_text:
        interaction = redact_record(interaction, hasher.subject)
    if not keep_text:
        correction = redact_record(correction, hasher.subject)
    store.log.append(*([] if found else [interaction]), correction)
    return True

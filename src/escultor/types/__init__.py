"""The record types of the package: frozen, slotted, without behaviour.

Each record type has one writer, named in its docstring. Times are seconds since the epoch (UTC); hashes and
ids are made by `escultor.ids`. Validation happens at the borders (files, HTTP, YAML), not here.
"""

from __future__ import annotations

from escultor.types.access import KeyCreated, KeyEvent, KeyRevoked, Scope
from escultor.types.erasure import Erasure
from escultor.types.evaluation import (
    Comparison,
    Effect,
    GateContext,
    Hold,
    Promote,
    Reject,
    Scale,
    Scores,
    Slice,
    Suite,
    SuiteItem,
    Verdict,
    Veto,
)
from escultor.types.feedback import (
    Choice,
    Correction,
    Feedback,
    Implicit,
    ImplicitEvent,
    QuarantineOverride,
    Rating,
    Remark,
    Revocation,
    SourceKind,
)
from escultor.types.interactions import (
    FAILED,
    Consent,
    FinishReason,
    Interaction,
    Lineage,
    PendingInteraction,
    Relation,
)
from escultor.types.messages import Message, Messages, Role, Sampling, Usage
from escultor.types.operations import Alert, Deployment, Estimate, Health, Plan, Step
from escultor.types.training import (
    Checkpoint,
    DatasetVersion,
    Document,
    Example,
    HeldOut,
    Origin,
    Pair,
    Review,
    RowKind,
    UnpairedExample,
)

__all__ = [
    "FAILED",
    "Alert",
    "Checkpoint",
    "Choice",
    "Comparison",
    "Consent",
    "Correction",
    "DatasetVersion",
    "Deployment",
    "Document",
    "Effect",
    "Erasure",
    "Estimate",
    "Example",
    "Feedback",
    "FinishReason",
    "GateContext",
    "Health",
    "HeldOut",
    "Hold",
    "Implicit",
    "ImplicitEvent",
    "Interaction",
    "KeyCreated",
    "KeyEvent",
    "KeyRevoked",
    "Lineage",
    "Message",
    "Messages",
    "Origin",
    "Pair",
    "PendingInteraction",
    "Plan",
    "Promote",
    "QuarantineOverride",
    "Rating",
    "Reject",
    "Relation",
    "Remark",
    "Review",
    "Revocation",
    "Role",
    "RowKind",
    "Sampling",
    "Scale",
    "Scope",
    "Scores",
    "Slice",
    "SourceKind",
    "Step",
    "Suite",
    "SuiteItem",
    "UnpairedExample",
    "Usage",
    "Verdict",
    "Veto",
]

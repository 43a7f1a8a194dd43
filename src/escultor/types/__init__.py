"""The nouns of the loop: frozen, slotted, without behaviour. Relations are types, never positions.

Each noun has one writer, named in its docstring. Times are seconds since the epoch (UTC); hashes and
ids are made by `escultor.ids`. Validation happens at the borders (files, HTTP, YAML), not here.
"""

from __future__ import annotations

from escultor.types.access import (
    KeyCreated,
    KeyEvent,
    KeyRevoked,
    Scope,
)
from escultor.types.feedback import (
    Choice,
    Correction,
    Feedback,
    Implicit,
    ImplicitEvent,
    Rating,
    Release,
    Remark,
    Revocation,
    SourceKind,
)
from escultor.types.interactions import (
    Consent,
    Interaction,
    Lineage,
    Opening,
    Relation,
)
from escultor.types.judging import (
    Circumstances,
    Comparison,
    Effect,
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
from escultor.types.rights import Erasure
from escultor.types.running import (
    Alert,
    Deployment,
    Estimate,
    Health,
    Plan,
    Step,
)
from escultor.types.talk import (
    Message,
    Messages,
    Role,
    Sampling,
    Usage,
)
from escultor.types.training import (
    Checkpoint,
    DatasetVersion,
    Document,
    Example,
    HeldOut,
    Judged,
    Origin,
    Pair,
    Review,
)

__all__ = [
    "Alert",
    "Checkpoint",
    "Choice",
    "Circumstances",
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
    "Health",
    "HeldOut",
    "Hold",
    "Implicit",
    "ImplicitEvent",
    "Interaction",
    "Judged",
    "KeyCreated",
    "KeyEvent",
    "KeyRevoked",
    "Lineage",
    "Message",
    "Messages",
    "Opening",
    "Origin",
    "Pair",
    "Plan",
    "Promote",
    "Rating",
    "Reject",
    "Relation",
    "Release",
    "Remark",
    "Review",
    "Revocation",
    "Role",
    "Sampling",
    "Scale",
    "Scope",
    "Scores",
    "Slice",
    "SourceKind",
    "Step",
    "Suite",
    "SuiteItem",
    "Usage",
    "Verdict",
    "Veto",
]

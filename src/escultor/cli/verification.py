"""`compare --verify`: whether a verdict is about what is here, and what its inputs give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from escultor.cli.output import NOT_PROMOTED, CommandResult, Shell
from escultor.errors import DataError
from escultor.evaluate.gate.decision_record import DecisionInputs
from escultor.evaluate.gate.reproduction import replay, verdict_seed
from escultor.types import GateContext, Promote, Verdict

if TYPE_CHECKING:
    from escultor.store import Store


def verify_verdict(
    shell: Shell,
    file: Path,
    read_input: Callable[[str], bytes],
    here: Mapping[str, str],
    store: Store | None = None,
) -> CommandResult:
    """Decide again, and compare what the verdict names (`because`) with what is here. The exit code is 0 for
    a promotion that is still one, and 3 for another verdict. `store`: the one that holds its inputs, of which
    it has to be a verdict; without one nobody counted analyses or checked a signature.

    Raises DataError for stale evidence (another side, suite or policy), and for a file that was edited or
    whose inputs no comparison had.
    """
    text = file.read_bytes().decode("utf-8", errors="replace")
    record, difference = replay(read_input, text)
    verdict, because = record.verdict, record.verdict.because
    stale = {key: found for key, found in here.items() if getattr(because, key) != found}
    if stale:
        words = ", ".join(key.replace("_", " ") for key in stale)
        got = ", ".join(f"{key} {found}" for key, found in stale.items())
        allowed = ", ".join(f"{key} {getattr(because, key)}" for key in stale)
        raise DataError(f"{file} is stale: it is about another {words}", got, allowed, "compare again")
    if difference:
        raise DataError(f"{file} is not what its inputs give", "; ".join(difference[2:8]), "the same bytes")
    if why := _forged(record.inputs, store, because.id):
        raise DataError(f"{file} is of no comparison that was made here", why, remedy="compare again")
    shell.print(f"{file} is about these sides, this suite and this policy: {because.reason}", "bold")
    data = {"file": file, "verdict": type(verdict).__name__.lower(), "checked": sorted(here)}
    return CommandResult(data, 0 if isinstance(verdict, Promote) else NOT_PROMOTED)


def _forged(d: DecisionInputs, store: Store | None, id: str) -> str | None:
    """What a comparison would have set otherwise: its draws, and the context that a store alone gives."""
    policies = (d.policy, d.policy.model_copy(update={"primary": ()}))
    if d.seed not in {verdict_seed(d.champion, d.candidate, policy) for policy in policies}:
        return f"the seed {d.seed} does not follow from what is compared"
    if store is not None:
        return None if store.log.get(Verdict, id) is not None else f"the store knows no verdict {id}"
    given = GateContext(card=d.context.card, void=d.context.void)
    return None if d.context == given else "a signature or a count of analyses, which only a store can give"

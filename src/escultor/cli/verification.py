"""`compare --verify`: whether a verdict is about what is here, and what its inputs give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from escultor.cli.output import NOT_PROMOTED, CommandResult, Shell
from escultor.errors import DataError
from escultor.evaluate.gate.reproduction import read_document, replay
from escultor.types import Promote


def verify_verdict(
    shell: Shell, file: Path, text: str, read_input: Callable[[str], bytes], here: Mapping[str, str]
) -> CommandResult:
    """Decide again, and compare what the verdict names (`because`) with what is here. The exit code is 0 for
    a promotion that is still one, and 3 for another verdict.

    Raises DataError for stale evidence (another side, suite or policy), and for a file that was edited.
    """
    because = read_document(text)["because"]
    stale = {key: found for key, found in here.items() if because.get(key) != found}
    if stale:
        words = ", ".join(key.replace("_", " ") for key in stale)
        got = ", ".join(f"{key} {found}" for key, found in stale.items())
        allowed = ", ".join(f"{key} {because.get(key)}" for key in stale)
        raise DataError(f"{file} is stale: it is about another {words}", got, allowed, "compare again")
    record, difference = replay(read_input, text)
    if difference:
        raise DataError(f"{file} is not what its inputs give", "; ".join(difference[2:8]), "the same bytes")
    verdict = record.verdict
    shell.print(f"{file} is about these sides, this suite and this policy: {verdict.because.reason}", "bold")
    data = {"file": file, "verdict": type(verdict).__name__.lower(), "checked": sorted(here)}
    return CommandResult(data, 0 if isinstance(verdict, Promote) else NOT_PROMOTED)

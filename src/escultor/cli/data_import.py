"""`data import`: files of other programs, into rows to train on or into the store."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from escultor.cli.lookup import need_file
from escultor.cli.output import CommandResult, Shell
from escultor.errors import InputError
from escultor.types import Consent


class ImportFormat(StrEnum):
    AUTO = "auto"
    OPEN_WEBUI = "open-webui"
    LANGFUSE = "langfuse"
    INTERACTIONS = "interactions"
    OPENAI_CHAT = "openai-chat"
    OPENAI_PREFERENCE = "openai-preference"
    TRL = "trl"
    SHAREGPT = "sharegpt"


def bring(
    shell: Shell,
    file: Annotated[Path, typer.Argument(help="JSON Lines, or one JSON array.")],
    format: Annotated[
        ImportFormat, typer.Option("--format", help="What the file is; by default told from its first value.")
    ] = ImportFormat.AUTO,
    out: Annotated[
        Path | None, typer.Option("--out", help="The JSONL file to write, for formats of rows.")
    ] = None,
    consent: Annotated[
        Consent | None, typer.Option("--consent", help="Of Open WebUI's chats; by default `train`.")
    ] = None,
    thumb: Annotated[
        str | None, typer.Option("--thumb", help="Langfuse: the boolean score that is the thumb.")
    ] = None,
) -> CommandResult:
    """Bring in what other programs kept: chats and ratings into the store, training rows into a file."""
    from escultor.data.importers import formats

    name = formats.format_of(need_file(file)) if format is ImportFormat.AUTO else format.value
    for given, option, of in ((consent, "--consent", "open-webui"), (thumb, "--thumb", "langfuse")):
        if given is not None and name != of:
            raise InputError(f"{option} acts on format {of} alone", f"format {name}", None, "leave it out")
    if name in formats.ROWS:
        if out is None:
            raise InputError(f"{name} holds rows to train on", "no --out", "a file", "give --out FILE")
        report, where = formats.import_rows(need_file(file), name, out), str(out)
    else:
        if out is not None:
            remedy = "leave --out out; --store says where they go"
            raise InputError(f"{name} holds events, which go into the store", f"--out {out}", None, remedy)
        where = shell.config.store.url
        report = _into_store(shell, file, name, consent or Consent.TRAIN, thumb)
    kept = {what: report.counts.pop(what, 0) for what in ("kept", "interactions", "feedback")}
    said = ", ".join(f"{n:,} {'rows' if what == 'kept' else what}" for what, n in kept.items() if n)
    shell.say(f"{file} ({name}): {said or 'nothing'} into {where}")
    rest = [
        (why, f"{n:,}", ", ".join(map(str, report.skipped.get(why, ())))) for why, n in report.counts.items()
    ]
    if rest:
        shell.table(["Left out or not used", "Count", "Lines"], rest, left=(0, 2))
    return CommandResult(
        {"file": file, "format": name, "into": where, **kept, "left_out": dict(report.counts)}
    )


def _into_store(shell: Shell, file: Path, name: str, consent: Consent, thumb: str | None):
    from escultor.data.importers import formats
    from escultor.serve.subjects import SubjectHasher
    from escultor.store import open_store
    from escultor.store.redaction import redact_record

    with open_store(shell.config.store.url) as store:
        hashed = SubjectHasher.for_store(store.root).subject
        without = None if shell.config.serve.keep_text else partial(redact_record, keyed_hash=hashed)
        terms = formats.ImportOptions(hashed, consent, thumb, without)
        return formats.import_events(need_file(file), name, store.log, terms)

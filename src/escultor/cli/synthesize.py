"""`synthesize`: a structured summary of a document."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NamedTuple

from typer import Argument, Option

from escultor.cli.documents import DocumentOptions
from escultor.cli.lookup import require_file
from escultor.cli.output import CommandResult, Shell, write_text
from escultor.cli.skills import named_skill
from escultor.errors import DataError

SKILL = "synthesize"


def synthesize(
    shell: Shell,
    options: DocumentOptions,
    file: Annotated[Path, Argument(help="Text, HTML, e-mail, .docx, PDF or source.")],
    out: Annotated[Path | None, Option(help="Write the summary as Markdown.")] = None,
) -> CommandResult:
    """Summarise a document: a title, two paragraphs, and key points each with its context.

    Names and numbers of the summary that do not occur in the document are shown.
    """
    from escultor.cycle.document_answers import AnswerReading, answer_documents
    from escultor.skills.document_processes import read_documents
    from escultor.skills.synthesis import Synthesis, merge_syntheses, read_synthesis, unsupported

    class Read(NamedTuple):
        made: Synthesis
        filled: tuple[str, ...]

    def read(answer: str, document: str) -> Read:
        return Read(*read_synthesis(answer, document))

    def merge(parts, whole):  # type: ignore[no-untyped-def]
        made = merge_syntheses([part.made for part in parts], whole and whole.made)
        return Read(made, tuple(dict.fromkeys(name for part in parts for name in part.filled)))

    ((_, document),) = read_documents([require_file(file)], 1)
    if isinstance(document, DataError):
        raise document
    skill = named_skill(shell, SKILL)
    answerer = options.answerer(shell, skill, skill.output.schema or {})
    reading = AnswerReading(read, lambda answer: "\n\n".join(answer.made.summary), merge)
    ((answer, sections),) = answer_documents(answerer, reading, [document.text])
    text, missing = answer.made.to_markdown(), unsupported(answer.made, document.text)
    shell.print(text)
    if answer.filled:
        shell.print(
            f"taken from the document, since the answer did not give them: {', '.join(answer.filled)}"
        )
    if missing:
        shell.print(f"not in the document: {', '.join(missing)}")
    if out is not None:
        write_text(out, text)
    figures = {"sections": sections, "filled": answer.filled, "not_in_document": missing}
    return CommandResult({**asdict(answer.made), **figures, "model": answerer.name, "out": out})

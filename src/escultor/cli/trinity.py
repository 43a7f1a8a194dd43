"""`trinity`: documents in three files each, for a person, a model and a machine; and their corrections."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from typer import Argument, Option

from escultor.cli.documents import DocumentOptions
from escultor.cli.lookup import open_or_create_store
from escultor.cli.output import CommandResult, Shell
from escultor.cli.skills import named_skill
from escultor.errors import DataError, InputError, LocationError, StoreError
from escultor.ids import hash_file, hash_value
from escultor.skills.trinity_answers import ReadAnswer, TrinityReader, answer_schema, file_schemas
from escultor.skills.trinity_folders import Source, TrinityFolder, TrinityRecord, find_sources

if TYPE_CHECKING:
    from escultor.cycle.document_answers import Answerer, AnswerReading
    from escultor.skills.documents import ReadDocument
    from escultor.skills.skill import Skill
    from escultor.store import Store

SKILL = "trinity"
WRITERS = 8  # files that wait for the disk at a time
DomainOption = Annotated[list[str] | None, Option(help="A domain that is allowed; default: the skill's.")]
PurposeOption = Annotated[list[str] | None, Option(help="A purpose that is allowed; default: the skill's.")]


def trinity(
    shell: Shell,
    options: DocumentOptions,
    files: Annotated[list[Path] | None, Argument(help="Files, and folders of files.")] = None,
    out: Annotated[Path | None, Option(help="The folder of the three files of each document.")] = None,
    domain: DomainOption = None,
    purpose: PurposeOption = None,
    schemas: Annotated[bool, Option("--schemas", help="Show the schemas of the JSON files.")] = False,
) -> CommandResult:
    """Write each document in three files: text, Markdown, reStructuredText, HTML, e-mail, .docx, PDF, source.

    A document whose files are there is left alone, unless it, the prompt or the model is another; files that
    were edited are never written over: `escultor trinity accept` takes the edits as corrections.
    """
    skill = named_skill(shell, SKILL)
    schema = answer_schema(skill.output.schema or {}, domain or (), purpose or ())
    if schemas:
        shell.print(json.dumps(file_schemas(schema), indent=2, ensure_ascii=False))
        return CommandResult(file_schemas(schema))
    if not files or out is None:
        raise InputError("nothing to do", "no files, or no --out", "FILES… --out FOLDER, or --schemas")
    from escultor.skills.documents import READERS

    sources, skipped, problems = find_sources(files, READERS, out)
    counts: Counter[str] = Counter()
    lines = [("failed", line) for line in problems]
    if sources:
        answerer = options.answerer(shell, skill, schema)
        key = hash_value([skill.prompt_version, schema, answerer.name])
        folder = TrinityFolder(out)
        folder.keep_schema(schema)
        run = _Run(folder, TrinityReader(schema), answerer, key)
        lines += _shown(shell, run.all(sources))
    counts.update(state for state, _ in lines)
    for line in problems:
        shell.print(f"failed  {' '.join(line.split())}")
    for ending, number in sorted(skipped.items()):
        shell.print(f"left out: {number:,} of the kind {ending}, which is not read")
    shell.print(", ".join(f"{number:,} {state}" for state, number in counts.items()) or "no documents")
    failed = [line for state, line in lines if state == "failed"]
    return CommandResult({"counts": counts, "left_out": skipped, "failed": failed}, 2 if failed else 0)


def _shown(shell: Shell, lines: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Show each line as it comes; those of what is done already are only counted."""
    found = []
    for state, line in lines:
        if state != "done":
            shell.print(f"{state}  {' '.join(line.split())}")  # names may hold line ends
        found.append((state, line))
    return found


class _Waiting(NamedTuple):
    """A file to be read: its content's hash, and when it was changed, as they were looked at."""

    source: Source
    digest: str
    modified: str


class _Run:
    """One call: a folder, a model, and what its answers are read by."""

    def __init__(self, folder: TrinityFolder, reader: TrinityReader, answerer: Answerer, key: str):
        self.folder, self.reader, self.answerer, self.key = folder, reader, answerer, key

    def all(self, sources: Sequence[Source]) -> Iterator[tuple[str, str]]:
        """A state and a line for each document, as they are done."""
        from escultor.cycle.document_answers import TOGETHER
        from escultor.skills.document_processes import read_documents

        waiting: list[_Waiting] = []
        for source in sources:
            try:
                one = _Waiting(source, hash_file(source.path), _modified(source.path))
                state = self.folder.state(source.name, one.digest, self.key)
            except (DataError, OSError) as error:
                yield "failed", str(error)
                continue
            if state == "incomplete":
                record = self.folder.record(source.name)
                assert record is not None
                yield self._written(record, "from its record")
            elif state == "edited":
                yield _edited(source.name)
            elif state == "done":
                yield "done", source.name
            else:
                waiting.append(one)
        documents = read_documents(one.source.path for one in waiting)
        pairs = zip(waiting, documents, strict=True)
        while batch := list(islice(pairs, TOGETHER)):
            good = [(one, found) for one, (_, found) in batch if not isinstance(found, DataError)]
            yield from (("failed", str(found)) for _, (_, found) in batch if isinstance(found, DataError))
            yield from self._answered(good)

    def _answered(self, batch: Sequence[tuple[_Waiting, ReadDocument]]) -> Iterator[tuple[str, str]]:
        from escultor.cycle.document_answers import answer_documents

        texts = [document.text for _, document in batch]
        answers = answer_documents(self.answerer, _reading(self.reader), texts)
        records, notes = [], []
        for (one, document), (answer, sections) in zip(batch, answers, strict=True):
            record = TrinityRecord(
                name=one.source.name,
                source=one.digest,
                key=self.key,
                model=self.answerer.name,
                made=time.time(),
                time=document.time or one.modified,
                document=document.text,
                trinity={name: getattr(answer.trinity, name) for name in answer.trinity.__slots__},
                sections=sections,
                filled=answer.filled,
                dropped=answer.dropped,
            )
            records.append(record)
            said = [f"{sections} sections"] if sections > 1 else []
            said += [f"by rule: {', '.join(answer.filled)}"] if answer.filled else []
            said += [f"names that do not occur: {len(answer.dropped)}"] if answer.dropped else []
            notes.append("; ".join(said))
        with ThreadPoolExecutor(WRITERS) as pool:
            yield from pool.map(self._written, records, notes)

    def _written(self, record: TrinityRecord, note: str) -> tuple[str, str]:
        """Write a document's files. Raises LocationError where the disk is full, as it is for the others."""
        try:
            if not self.folder.write(record):
                return _edited(record.name)
        except LocationError:
            raise
        except StoreError as error:  # such as a name that is too long with its ending
            return "failed", f"{record.name}: {error}"
        return "written", f"{record.name}; {note}" if note else record.name


def _edited(name: str) -> tuple[str, str]:
    return "edited", f"{name}: it was edited; `escultor trinity accept` takes the edits"


def _reading(reader: TrinityReader) -> AnswerReading[ReadAnswer]:
    from escultor.cycle.document_answers import AnswerReading

    def merge(parts: Sequence[ReadAnswer], whole: ReadAnswer | None) -> ReadAnswer:
        return reader.merge(parts, whole and whole.trinity.summary)

    return AnswerReading(reader.read, lambda answer: answer.trinity.summary, merge)


def _modified(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")


def accept(
    shell: Shell,
    folder: Annotated[Path, Argument(help="The folder that --out named.")],
    person: Annotated[str, Option(help="Who edited the files; only its salted hash is kept.")] = "editor",
) -> CommandResult:
    """Record what people changed in the three files as corrections, which the loop learns from."""
    skill = named_skill(shell, SKILL)
    files = TrinityFolder(folder)
    reader = TrinityReader(files.schema())
    edited = [record for record in files.records() if files.edited(record)]
    counts: Counter[str] = Counter()
    failed: list[str] = []
    with open_or_create_store(shell) as store:
        for record in edited:
            try:
                new, notes = files.edits(record, reader)
            except (DataError, UnicodeDecodeError) as error:
                failed.append(f"{record.name}: {error}")
                continue
            for note in notes:
                shell.print(note)
            counts[_record(shell, store, skill, person, (record, new))] += 1
            files.keep(new)
    for line in failed:
        shell.print(f"failed  {' '.join(line.split())}")
    shell.print(", ".join(f"{n:,} {state}" for state, n in counts.items()) or "nothing was edited")
    return CommandResult({"counts": counts, "failed": failed}, 2 if failed else 0)


def _record(
    shell: Shell, store: Store, skill: Skill, person: str, change: tuple[TrinityRecord, TrinityRecord]
) -> str:
    from escultor.cycle.document_corrections import CorrectedAnswer, record_correction

    old, new = change
    if old.content == new.content:
        return "edited elsewhere than in an answer"
    given = CorrectedAnswer(
        skill=skill.name,
        version=old.model,
        made=old.made,
        messages=skill.prompt(old.document),
        answer=old.answered.to_json(),
        corrected=new.content.to_json(),
        sampling=skill.decoding,
    )
    return "corrected" if record_correction(store, given, person, shell.config.serve.keep_text) else "known"

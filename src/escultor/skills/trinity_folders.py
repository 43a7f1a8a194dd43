"""A folder of Trinities. Each document has three files, and a record in `.trinity` of what they were made
from and what they were. With it a run goes on where it stopped, and what a person changed is seen.

The record is written first: files that are missing are written from it, without a model. A file that is not
what its record says was edited, and is never written over.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from escultor.errors import DataError, InputError
from escultor.ids import hash_bytes
from escultor.skills.trinity import FIELDS, Trinity, file_texts
from escultor.skills.trinity_answers import TrinityReader
from escultor.store.files import atomic_write
from escultor.strict_json import strict_loads

RECORDS = ".trinity"
LINKED = "link to a folder"
SCHEMA = "answer.schema"  # in the records' folder
State = Literal["new", "changed", "incomplete", "done", "edited"]


@dataclass(frozen=True, slots=True)
class Source:
    """A file, and the name of its Trinity: its path in the folder that was given, its ending included, so
    that no two files share one."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class TrinityRecord:
    """What the three files of a document were made from. source: the file's content hash; key: the hash of
    prompt, schema and model; files: the hash of each file as written, by ending; replaced: those of the files
    that these took the place of; said: what the model said, where a person changed it since."""

    name: str
    source: str
    key: str
    model: str
    made: float
    time: str
    document: str
    trinity: Mapping[str, Any]
    sections: int = 1
    filled: Sequence[str] = ()
    dropped: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    replaced: Mapping[str, str] = field(default_factory=dict)
    said: Mapping[str, Any] | None = None

    @property
    def content(self) -> Trinity:
        """The Trinity as the files have it."""
        return _trinity(self.trinity)

    @property
    def answered(self) -> Trinity:
        """The Trinity as the model gave it."""
        return _trinity(self.said or self.trinity)

    @property
    def texts(self) -> dict[str, str]:
        """The texts of the three files, by ending."""
        return file_texts(self.content, self.document, self.time)


def _trinity(fields: Mapping[str, Any]) -> Trinity:
    return Trinity(**{**fields, "entities": tuple(fields["entities"])})


def find_sources(
    given: Iterable[Path], known: Iterable[str], out: Path
) -> tuple[list[Source], dict[str, int], list[str]]:
    """The files of the given files and folders, by name; how many files of folders have an ending that is not
    `known`, by ending, and how many are links to folders, which are not followed; and a line for each file
    and folder that cannot be used. Hidden files and folders, and what is in `out`, are left out.

    Raises InputError for what is not there, or no file.
    """
    endings = frozenset(known)
    sources: dict[str, Source] = {}
    skipped: Counter[str] = Counter()
    problems: list[str] = []
    for root in given:
        if not root.is_dir():
            if not root.is_file():
                raise InputError(f"{root} is not there, or no file", str(root), "a file or a folder")
            found = [(root, root.name)]
        else:
            files = sorted(_files_in(root, out.resolve(), skipped, problems))
            found = [(path, f"{root.resolve().name}/{path.relative_to(root).as_posix()}") for path in files]
        for path, name in found:
            ending = path.suffix.lower().removeprefix(".")
            if root.is_dir() and ending not in endings:
                skipped[ending or "none"] += 1
            elif why := _problem(path, name):
                problems.append(f"{str(path)!a}: {why}")
            elif name in sources and sources[name].path.resolve() != path.resolve():
                problems.append(f"{path}: the name {name} is taken by {sources[name].path}")
            else:
                sources[name] = Source(path, name)
    return list(sources.values()), {kind: n for kind, n in skipped.items() if n}, problems


def _files_in(root: Path, out: Path, skipped: Counter[str], problems: list[str]) -> Iterator[Path]:
    """The files in a folder that are not hidden; a folder that cannot be looked into becomes a problem."""
    for folder, folders, files in os.walk(root, onerror=lambda error: problems.append(str(error))):
        if Path(folder).resolve() == out:
            folders.clear()
            continue
        skipped[LINKED] += sum(os.path.islink(os.path.join(folder, name)) for name in folders)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(folder, name) for name in files if not name.startswith("."))


def _problem(path: Path, name: str) -> str | None:
    """Why a file cannot be a source; None where it can."""
    if not path.is_file():
        return "it is no regular file, or a link that leads nowhere"
    if name.encode("utf-8", "replace").decode() != name:
        return "its name is not Unicode; rename it"
    return None


class TrinityFolder:
    """The folder that `--out` names."""

    def __init__(self, root: Path):
        self.root = root

    def record(self, name: str) -> TrinityRecord | None:
        """The record of a document's files; None where there is none that can be read."""
        try:
            value = json.loads(self._record_path(name).read_text(encoding="utf-8"))
            return TrinityRecord(**value)
        except (OSError, ValueError, TypeError):
            return None

    def records(self) -> Iterator[TrinityRecord]:
        """All records, by name."""
        folder = self.root / RECORDS
        for path in sorted(folder.rglob("*.json")):
            record = self.record(path.relative_to(folder).as_posix().removesuffix(".json"))
            if record is not None:
                yield record

    def state(self, name: str, source: str, key: str) -> State:
        """How far the files of a document are, given the hashes of its source and of what makes answers.

        Raises DataError where a file of that name stands there that no record knows.
        """
        record = self.record(name)
        if record is None:
            if taken := [path for path in self._paths(name).values() if path.exists()]:
                remedy = "move it, or give another --out"
                raise DataError(f"{taken[0]} is not of this program", "a file", "no file", remedy)
            return "new"
        if self.edited(record):
            return "edited"
        if (record.source, record.key) != (source, key):
            return "changed"
        return "done" if self._hashes(name) == record.files else "incomplete"

    def edited(self, record: TrinityRecord) -> list[str]:
        """The endings of the files that are not as they were written. A file that the last run, cut off, was
        about to replace is not among them."""
        known = {end: (record.files.get(end), record.replaced.get(end)) for end in self._paths("")}
        return [end for end, digest in self._hashes(record.name).items() if digest not in known[end]]

    def _hashes(self, name: str) -> dict[str, str]:
        """The hash of each file that is there, by ending."""
        found = ((end, path) for end, path in self._paths(name).items() if path.exists())
        return {end: hash_bytes(path.read_bytes()) for end, path in found}

    def write(self, record: TrinityRecord) -> bool:
        """Write the record, then the three files. False, and nothing is written, where a person has changed
        the files since they were looked at. Raises StoreError."""
        old = self.record(record.name)
        if old is not None and self.edited(old):
            return False
        texts, replaced = record.texts, self._hashes(record.name)
        record = replace(record, files={end: hash_bytes(text.encode()) for end, text in texts.items()})
        self.keep(replace(record, replaced=replaced))
        for ending, path in self._paths(record.name).items():
            with atomic_write(path) as draft:
                draft.write_bytes(texts[ending].encode())
        if replaced:
            self.keep(replace(record, replaced={}))
        return True

    def keep(self, record: TrinityRecord) -> None:
        """Write the record alone."""
        with atomic_write(self._record_path(record.name)) as draft:
            draft.write_text(json.dumps(asdict(record), ensure_ascii=False) + "\n", encoding="utf-8")

    def keep_schema(self, schema: Mapping[str, Any]) -> None:
        """Write the schema that the answers follow, by which edits are judged."""
        with atomic_write(self.root / RECORDS / SCHEMA) as draft:
            draft.write_text(json.dumps(schema, ensure_ascii=False) + "\n", encoding="utf-8")

    def schema(self) -> dict[str, Any]:
        """The schema that the answers follow. Raises InputError where there is none."""
        try:
            return json.loads((self.root / RECORDS / SCHEMA).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            allowed = "the folder that `--out` named"
            raise InputError(f"{self.root} holds no Trinities", str(error), allowed) from error

    def edits(self, record: TrinityRecord, reader: TrinityReader) -> tuple[TrinityRecord, list[str]]:
        """The record as a person's edits of the files leave it, and notes on what of them is not used. Raises
        DataError where the files cannot be read, or contradict each other."""
        texts = {
            ending: path.read_bytes().decode("utf-8", "strict")
            for ending, path in self._paths(record.name).items()
            if path.exists()
        }
        entity, summary, notes = _markdown(texts.get(".md"), record)
        values: dict[str, list[Any]] = {"entity": [entity], "summary": [summary]}
        for ending in (".llm.json", ".meta.json"):
            for name, value in _object(texts.get(ending), record, ending).items():
                values.setdefault(name, []).append(value)
        time = values.pop("timestamp", [record.time])[-1]
        if unknown := sorted(set(values) - set(FIELDS)):
            raise DataError(f"{record.name} has unknown fields", unknown, FIELDS)
        new = {name: _changed(name, values.get(name, []), record) for name in FIELDS}
        trinity = reader.parse(json.dumps(new, ensure_ascii=False))
        content = {name: getattr(trinity, name) for name in FIELDS}
        files = {ending: hash_bytes(text.encode()) for ending, text in texts.items()}
        said = record.said or record.trinity
        return replace(record, trinity=content, time=str(time), files=files, replaced={}, said=said), notes

    def _paths(self, name: str) -> dict[str, Path]:
        return {ending: self.root / f"{name}{ending}" for ending in (".md", ".llm.json", ".meta.json")}

    def _record_path(self, name: str) -> Path:
        return self.root / RECORDS / f"{name}.json"


def _markdown(text: str | None, record: TrinityRecord) -> tuple[str, str, list[str]]:
    """Entity and summary of the Markdown file, and what else was changed in it."""
    if text is None:
        return record.content.entity, record.content.summary, []
    title, _, rest = text.replace("\r\n", "\n").lstrip().partition("\n")
    if not title.startswith("# "):
        raise DataError(f"{record.name}.md has no title", title[:60], "`# ENTITY` as its first line")
    body = rest.strip()
    if body.endswith(record.document):
        return title[2:].strip(), body.removesuffix(record.document).strip(), []
    summary = body.split("\n\n", 1)[0].strip()
    return title[2:].strip(), summary, [f"{record.name}.md: changes of the document itself are not used"]


def _object(text: str | None, record: TrinityRecord, ending: str) -> dict[str, Any]:
    try:
        value = {} if text is None else strict_loads(text)
    except ValueError as error:
        raise DataError(f"{record.name}{ending} is no JSON", str(error)[:80]) from error
    if not isinstance(value, dict):
        raise DataError(f"{record.name}{ending} is no JSON object", type(value).__name__, "an object")
    return value


def _changed(name: str, values: Sequence[Any], record: TrinityRecord) -> Any:
    """The value of a field that may stand in two files: the one that was changed. Raises DataError where both
    were, and differ."""
    old = record.trinity[name]
    old = list(old) if isinstance(old, list | tuple) else old
    new = [value for value in values if value != old]
    if any(value != new[0] for value in new):
        raise DataError(f"{record.name} gives two values of `{name}`", new, "the same in both files")
    return new[0] if new else old

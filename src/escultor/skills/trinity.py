"""Trinity: one document in three forms, for a person, a model and a machine, written side by side.

    NAME.md          Markdown
    NAME.llm.json    {summary, entities[], purpose}
    NAME.meta.json   {domain, entity, timestamp}

The model answers with one JSON object that holds what is to be inferred; the time stamp and the
Markdown are the program's.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from escultor.errors import DataError, InputError
from escultor.store.files import atomic_write
from escultor.strict_json import keys_once
from escultor.types import Message, Messages, Role

Purpose = Literal["reference", "education", "operational"]
PURPOSES: tuple[str, ...] = get_args(Purpose)
FIELDS = ("entity", "domain", "purpose", "entities", "summary")
INSTRUCTION = "Write the Trinity of this document."
MAX_ENTITIES = 4


@dataclass(frozen=True, slots=True)
class Trinity:
    """What the three files say, but for the time stamp. Fields stand in the order they are written."""

    entity: str
    domain: str
    purpose: str
    entities: tuple[str, ...]
    summary: str

    def to_json(self) -> str:
        """The answer a model is asked for: one JSON object on one line."""
        values = {name: getattr(self, name) for name in FIELDS}
        return json.dumps(values, ensure_ascii=False)


def prompt_for(document: str) -> Messages:
    """The messages that ask for a document's Trinity; training and serving share them."""
    return (Message(Role.USER, f"{INSTRUCTION}\n\n{document}"),)


def document_in(prompt: Messages) -> str:
    """The document that `prompt_for` asked about."""
    return prompt[-1].content.removeprefix(f"{INSTRUCTION}\n\n")


def parse_trinity(answer: str) -> Trinity:
    """Read an answer strictly: one JSON object, the five fields and no other, the right types.

    Raises DataError naming the first thing that is wrong.
    """
    try:
        value = json.loads(answer, object_pairs_hook=keys_once)
        answer.encode()
    except json.JSONDecodeError as error:
        raise DataError("the answer is no JSON", f"{error.msg} at character {error.pos}") from error
    except (RecursionError, ValueError) as error:  # nested too deep, a number too long, a lone surrogate
        raise DataError("the answer is no JSON", str(error)[:80]) from error
    if not isinstance(value, dict) or set(value) != set(FIELDS):
        got = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise DataError("the answer has the wrong fields", got, FIELDS)
    for name in ("entity", "domain", "summary"):
        if not isinstance(value[name], str) or not value[name].strip():
            raise DataError(f"`{name}` is no text", repr(value[name]), "text that is not empty")
    if value["purpose"] not in PURPOSES:
        raise DataError("`purpose` is not known", repr(value["purpose"]), PURPOSES)
    entities = value["entities"]
    if not isinstance(entities, list) or not all(isinstance(e, str) and e for e in entities):
        raise DataError("`entities` is no list of names", repr(entities), "a list of texts, or []")
    texts = [value["entity"], value["domain"], value["summary"], *entities]
    if any("\ud800" <= char <= "\udfff" for text in texts for char in text):
        raise DataError("the answer holds half a character", "a lone surrogate", "whole characters")
    return Trinity(value["entity"], value["domain"], value["purpose"], tuple(entities), value["summary"])


def write_trinity(trinity: Trinity, document: str, folder: Path, now: datetime | None = None) -> list[Path]:
    """Write the three files side by side and return their paths. Raises InputError where one of them is there
    already, StoreError when the disk refuses."""
    stem = re.sub(r"[^\w.-]+", "_", trinity.entity, flags=re.ASCII)[:120].strip(".") or "document"
    time = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    texts = {
        f"{stem}.md": f"# {trinity.entity}\n\n{trinity.summary}\n\n{document}\n",
        f"{stem}.llm.json": _dump(trinity, "summary", "entities", "purpose"),
        f"{stem}.meta.json": _dump(trinity, "domain", "entity", timestamp=time),
    }
    paths = [folder / name for name in texts]
    if there := [path for path in paths if path.exists()]:
        remedy = "give another folder, or move it"
        raise InputError(f"{there[0]} is there already", "a file", "a new one", remedy)
    for path, text in zip(paths, texts.values(), strict=True):
        with atomic_write(path) as draft:
            draft.write_text(text, encoding="utf-8")
    return paths


def _dump(trinity: Trinity, *names: str, **more: str) -> str:
    values = {name: getattr(trinity, name) for name in names} | more
    return json.dumps(values, ensure_ascii=False, indent=2) + "\n"


_NAME = re.compile(
    r"``([A-Za-z_][\w.]*)``|`~?\.?([A-Za-z_][\w.]*)`"  # in backticks, roles such as :class:`X` included
    r"|\b([A-Za-z]\w*(?:\.[A-Za-z_]\w*)+)\b"  # dotted
    r"|\b((?:[A-Z][a-z0-9]+){2,})\b"  # CamelCase
    r"|\b([a-z][a-z0-9]*(?:_[a-z0-9]+)+)\b"  # snake_case
)


def mentioned_names(text: str, but: str = "") -> tuple[str, ...]:
    """The names a document mentions, in order of appearance, each once, four at most.

    A name is what stands in backticks, is dotted, CamelCase or snake_case. `but` and its last
    part are left out: a document's own name is its entity, not a mention.
    """
    found: dict[str, None] = {}
    own = {but, but.rsplit(".", 1)[-1]}
    for match in _NAME.finditer(text):
        name = next(group for group in match.groups() if group).strip(".")
        if name not in own and 2 < len(name) <= 40:
            found.setdefault(name)
    return tuple(found)[:MAX_ENTITIES]


_OPERATIONAL = re.compile(
    r"command[- ]line|environment variable|config(?:ur|\b)|install|deploy|\bserver\b|\bprocess(?:es)?\b|"
    r"\bthread|\blog(?:ging|ger|s)?\b|\btimeout\b|\bsignal\b|\bfile(?:s|name)?\b|\bdirectory\b|\bcache\b|"
    r"\bconnection\b|\bsocket\b",
    re.IGNORECASE,
)
_EDUCATION = re.compile(r">>>|\bexamples?\b|\btutorial\b|\bfor instance\b|\be\.g\.", re.IGNORECASE)


def purpose_of(document: str) -> str:
    """What a document is for, by stated rules, the first that holds.

    education: it shows an example; operational: it speaks of running, files, processes, connections or
    configuration; reference: all else.
    """
    if _EDUCATION.search(document):
        return "education"
    return "operational" if _OPERATIONAL.search(document) else "reference"

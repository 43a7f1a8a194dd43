"""Trinity: one document in three files, for a person, a model and a machine.

    NAME.md          Markdown
    NAME.llm.json    {summary, entities[], purpose}
    NAME.meta.json   {domain, entity, timestamp}

The model answers with one JSON object that holds what has to be inferred; the program adds the time stamp
and the Markdown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from escultor.errors import DataError, InputError
from escultor.skills.metrics import exact_match, rouge_l, set_f1
from escultor.store.files import atomic_write
from escultor.strict_json import strict_loads
from escultor.types import Message, Messages, Role

Purpose = Literal["reference", "education", "operational"]
PURPOSES: tuple[str, ...] = get_args(Purpose)
FIELDS = ("entity", "domain", "purpose", "entities", "summary")
INSTRUCTION = "Write the Trinity of this document."
MAX_ENTITIES = 4


@dataclass(frozen=True, slots=True)
class Trinity:
    """The content of the three files without the time stamp; fields are in the order they are written."""

    entity: str
    domain: str
    purpose: str
    entities: tuple[str, ...]
    summary: str

    def to_json(self) -> str:
        """The answer that a model should give: one JSON object on one line."""
        return json.dumps({name: getattr(self, name) for name in FIELDS}, ensure_ascii=False)


def prompt_for(document: str) -> Messages:
    """The messages that ask for a document's Trinity, the same in training and serving."""
    return (Message(Role.USER, f"{INSTRUCTION}\n\n{document}"),)


def document_in(prompt: Messages) -> str:
    """The document in a prompt made by `prompt_for`."""
    return prompt[-1].content.removeprefix(f"{INSTRUCTION}\n\n")


def parse_trinity(answer: str, purposes: Sequence[str] = PURPOSES) -> Trinity:
    """Read an answer strictly: one JSON object with exactly the five fields, each of its type.

    Raises DataError naming the first thing that is wrong.
    """
    try:
        value = strict_loads(answer)
        answer.encode()
    except json.JSONDecodeError as error:
        raise DataError("the answer is no JSON", f"{error.msg} at character {error.pos}") from error
    except ValueError as error:  # nested too deep, a number too long, a lone surrogate
        raise DataError("the answer is no JSON", str(error)[:80]) from error
    if not isinstance(value, dict) or set(value) != set(FIELDS):
        got = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise DataError("the answer has the wrong fields", got, FIELDS)
    for name in ("entity", "domain", "summary"):
        if not isinstance(value[name], str) or not value[name].strip():
            raise DataError(f"`{name}` is no text", repr(value[name]), "text that is not empty")
    if value["purpose"] not in purposes:
        raise DataError("`purpose` is not known", repr(value["purpose"]), purposes)
    entities = value["entities"]
    if not isinstance(entities, list) or not all(isinstance(e, str) and e for e in entities):
        raise DataError("`entities` is no list of names", repr(entities), "a list of texts, or []")
    texts = [value["entity"], value["domain"], value["summary"], *entities]
    if any("\ud800" <= char <= "\udfff" for text in texts for char in text):
        raise DataError("the answer holds half a character", "a lone surrogate", "whole characters")
    return Trinity(value["entity"], value["domain"], value["purpose"], tuple(entities), value["summary"])


def write_trinity(trinity: Trinity, document: str, folder: Path, now: datetime | None = None) -> list[Path]:
    """Write the three files into a folder and return their paths. Raises InputError where one of them exists,
    StoreError when the disk refuses."""
    stem = re.sub(r"[^\w.-]+", "_", trinity.entity, flags=re.ASCII)[:120].strip(".") or "document"
    time = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    texts = file_texts(trinity, document, time)
    paths = [folder / f"{stem}{ending}" for ending in texts]
    if existing := [path for path in paths if path.exists()]:
        remedy = "give another folder, or move it"
        raise InputError(f"{existing[0]} is there already", "a file", "a new one", remedy)
    for path, text in zip(paths, texts.values(), strict=True):
        with atomic_write(path) as draft:
            draft.write_text(text, encoding="utf-8")
    return paths


def file_texts(trinity: Trinity, document: str, time: str) -> dict[str, str]:
    """The texts of the three files, by the endings of their names."""
    return {
        ".md": f"# {trinity.entity}\n\n{trinity.summary}\n\n{document}\n",
        ".llm.json": _dump(trinity, "summary", "entities", "purpose"),
        ".meta.json": _dump(trinity, "domain", "entity", timestamp=time),
    }


def write_answer(answer: str, prompt: Messages, folder: Path) -> list[Path]:
    """Write the three files of an answer. Raises DataError where it is no Trinity, and as `write_trinity`."""
    return write_trinity(parse_trinity(answer), document_in(prompt), folder)


def _dump(trinity: Trinity, *names: str, **more: str) -> str:
    values = {name: getattr(trinity, name) for name in names} | more
    return json.dumps(values, ensure_ascii=False, indent=2) + "\n"


_NAME = re.compile(
    r"``([A-Za-z_][\w.]*)``|`~?\.?([A-Za-z_][\w.]*)`"  # in backticks, roles such as :class:`X` included
    r"|\b([A-Za-z]\w*(?:\.[A-Za-z_]\w*)+)\b"  # dotted
    r"|\b((?:[A-Z][a-z0-9]+){2,})\b"  # CamelCase
    r"|\b([a-z][a-z0-9]*(?:_[a-z0-9]+)+)\b"  # snake_case
)


def mentioned_names(text: str, own_name: str = "") -> tuple[str, ...]:
    """The first four distinct names that a document mentions, in order of appearance.

    A name is a text in backticks, or a dotted, CamelCase or snake_case word. `own_name` and its last part are
    left out: a document's own name is its entity, not a mention.
    """
    matches = (next(filter(None, match.groups())).strip(".") for match in _NAME.finditer(text))
    own = {own_name, own_name.rsplit(".", 1)[-1]}
    names = dict.fromkeys(name for name in matches if name not in own and 2 < len(name) <= 40)
    return tuple(names)[:MAX_ENTITIES]


_OPERATIONAL = re.compile(
    r"command[- ]line|environment variable|config(?:ur|\b)|install|deploy|\bserver\b|\bprocess(?:es)?\b|"
    r"\bthread|\blog(?:ging|ger|s)?\b|\btimeout\b|\bsignal\b|\bfile(?:s|name)?\b|\bdirectory\b|\bcache\b|"
    r"\bconnection\b|\bsocket\b",
    re.IGNORECASE,
)
_EDUCATION = re.compile(r">>>|\bexamples?\b|\btutorial\b|\bfor instance\b|\be\.g\.", re.IGNORECASE)


def purpose_of(document: str) -> str:
    """The purpose of a document, by the first rule that holds.

    education: it shows an example; operational: it mentions running, files, processes, connections or
    configuration; reference: all else.
    """
    if _EDUCATION.search(document):
        return "education"
    return "operational" if _OPERATIONAL.search(document) else "reference"


# --- scores against the Trinity of the document's author, each in [0, 1] ------------------------

EXACT = ("valid", "entity", "domain", "purpose")  # 0 or 1
METRICS = ("valid", "entity", "domain", "purpose", "entities_f1", "rouge_l", "field_accuracy", "quality")


def score_trinity(answer: str, gold: Trinity) -> dict[str, float]:
    """One number per metric for one answer; an answer that is no Trinity scores 0 in all of them.

    valid: it parses, strictly. entity, domain, purpose: exactly right. entities_f1: set F1 of the
    names. rouge_l: of the summary. field_accuracy: mean of the four fields that have a right answer.
    quality: mean of those four and the summary.
    """
    try:
        trinity = parse_trinity(answer)
    except DataError:
        return dict.fromkeys(METRICS, 0.0)
    fields = {
        "entity": exact_match(trinity.entity, gold.entity),
        "domain": exact_match(trinity.domain, gold.domain),
        "purpose": exact_match(trinity.purpose, gold.purpose),
        "entities_f1": set_f1(trinity.entities, gold.entities),
    }
    rouge = rouge_l(trinity.summary, gold.summary)
    accuracy = sum(fields.values()) / len(fields)
    quality = (sum(fields.values()) + rouge) / (len(fields) + 1)
    return {"valid": 1.0, **fields, "rouge_l": rouge, "field_accuracy": accuracy, "quality": quality}


def lead_sentence(document: str) -> str:
    """The first sentence below the signature: the baseline summary that any model should beat."""
    body = document.split("\n\n", 1)[-1]
    return re.split(r"(?<=[.!?])\s|\n\n", " ".join(body.split()), maxsplit=1)[0]

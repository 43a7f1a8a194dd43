"""Trinities of any document: the schema that answers are held to, what completes an answer that was cut, and
how those of a long document's sections become one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from escultor.errors import DataError
from escultor.skills.partial_json import read_partial
from escultor.skills.text_forms import folded
from escultor.skills.trinity import (
    MAX_ENTITIES,
    PURPOSES,
    Trinity,
    lead_sentence,
    mentioned_names,
    parse_trinity,
    purpose_of,
)

ENTITY_CHARACTERS, DOMAIN_CHARACTERS, SUMMARY_CHARACTERS = 80, 40, 600
MERGED_ENTITIES = 16  # of a document of several sections
UNKNOWN_DOMAIN = "general"


def answer_schema(
    declared: Mapping[str, Any], domains: Sequence[str] = (), purposes: Sequence[str] = ()
) -> dict[str, Any]:
    """The schema of an answer: the declaration's, with closed sets where they are given, and with lengths, so
    that a guided answer comes to its end."""
    schema = deepcopy(dict(declared))
    fields = schema["properties"]
    for name, values in (("domain", domains), ("purpose", purposes)):
        if values:
            fields[name] = {"enum": list(dict.fromkeys(values))}
    sizes = (("entity", ENTITY_CHARACTERS), ("domain", DOMAIN_CHARACTERS), ("summary", SUMMARY_CHARACTERS))
    for name, most in sizes:
        if "enum" not in fields[name]:
            fields[name].setdefault("maxLength", most)
    fields["entities"].setdefault("maxItems", MAX_ENTITIES)
    fields["entities"]["items"].setdefault("maxLength", ENTITY_CHARACTERS)
    return schema


def file_schemas(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The schemas of the answer and of the two JSON files."""
    fields = answer["properties"]
    time = {"type": "string", "format": "date-time"}

    def of(*names: str, **more: Any) -> dict[str, Any]:
        properties = {name: fields[name] for name in names} | more
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    return {
        "answer": dict(answer),
        "NAME.llm.json": of("summary", "entities", "purpose"),
        "NAME.meta.json": of("domain", "entity", timestamp=time),
    }


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """A Trinity that follows the schema; the fields that rules filled since the answer did not give them; and
    the names that were dropped since they do not occur in the document."""

    trinity: Trinity
    filled: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrinityReader:
    """Reads answers by a schema of `answer_schema`; the sets of domains and purposes are its."""

    schema: Mapping[str, Any]

    def read(self, answer: str, document: str) -> ReadAnswer:
        """The Trinity that an answer gives. What it does not give, or not within the schema, a rule fills."""
        given = read_partial(answer)
        rules = self._by_rules(document)
        values = {name: given[name] if self._fits(name, given) else rule for name, rule in rules.items()}
        filled = tuple(name for name in rules if not self._fits(name, given))
        text = folded(document)
        kept = tuple(e for e in dict.fromkeys(values["entities"]) if (name := folded(e)) and name in text)
        dropped = tuple(e for e in dict.fromkeys(values["entities"]) if e not in kept)
        answer = json.dumps(values | {"entities": kept}, ensure_ascii=False)
        return ReadAnswer(parse_trinity(answer, self._enum("purpose")), filled, dropped)

    def merge(self, parts: Sequence[ReadAnswer], summary: str | None) -> ReadAnswer:
        """The Trinity of a document from those of its sections. Entity: the first section's; domain and
        purpose: those of most sections, of equal ones the first; names: those that most sections name, at
        most 16; summary: as given, else the first section's."""
        trinities = [part.trinity for part in parts]
        counts = Counter(name for each in trinities for name in each.entities)  # keeps the order of the text
        merged = replace(
            trinities[0],
            domain=Counter(each.domain for each in trinities).most_common(1)[0][0],
            purpose=Counter(each.purpose for each in trinities).most_common(1)[0][0],
            entities=tuple(name for name, _ in counts.most_common(MERGED_ENTITIES)),
            summary=summary or trinities[0].summary,
        )
        filled = tuple(dict.fromkeys(name for part in parts for name in part.filled))
        dropped = tuple(dict.fromkeys(name for part in parts for name in part.dropped))
        return ReadAnswer(merged, filled, dropped)

    def parse(self, answer: str) -> Trinity:
        """The Trinity of an answer that a person wrote. Raises DataError where it leaves the closed sets."""
        trinity = parse_trinity(answer, self._enum("purpose"))
        domains = self._enum("domain")
        if domains and trinity.domain not in domains:
            raise DataError("`domain` is not known", repr(trinity.domain), domains)
        return trinity

    def _enum(self, name: str) -> tuple[str, ...]:
        return tuple(self.schema["properties"][name].get("enum", PURPOSES if name == "purpose" else ()))

    def _by_rules(self, document: str) -> dict[str, Any]:
        purposes, domains = self._enum("purpose"), self._enum("domain")
        purpose = purpose_of(document)
        title = next(
            line.strip("#=- \t") for line in [*document.splitlines(), "document"] if line.strip("#=- \t")
        )
        return {
            "entity": title[:ENTITY_CHARACTERS].strip(),
            "domain": domains[0] if domains else UNKNOWN_DOMAIN,
            "purpose": purpose if purpose in purposes else purposes[0],
            "entities": list(mentioned_names(document)),
            "summary": (lead_sentence(document) or title)[:SUMMARY_CHARACTERS].strip() or title,
        }

    def _fits(self, name: str, given: Mapping[str, Any]) -> bool:
        value, allowed = given.get(name), self._enum(name)
        if name == "entities":
            return isinstance(value, list) and all(isinstance(each, str) for each in value)
        return isinstance(value, str) and bool(value.strip()) and (not allowed or value in allowed)

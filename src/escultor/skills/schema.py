"""JSON answers: whether they follow a schema, and how many of their fields are right.

The schema language is the part of JSON Schema 2020-12 that says what an answer looks like. A keyword
outside it is refused when a suite is read, so that no answer passes a rule that was not looked at.
"""

from __future__ import annotations

import json
import re
from typing import Any

from escultor.errors import DataError
from escultor.strict_json import keys_once, no_constant

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_NOTES = frozenset(("$schema", "$id", "title", "description", "default", "examples", "$comment"))
_RULES = frozenset(
    (
        *("type", "enum", "const", "properties", "required", "additionalProperties", "items"),
        *("minItems", "maxItems", "uniqueItems", "minLength", "maxLength", "pattern"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "anyOf", "allOf"),
    )
)


def check_schema(schema: Any, where: str = "the schema") -> None:
    """Raise DataError for a schema that `follows` could not judge by, naming the place."""
    if not isinstance(schema, dict):
        raise DataError(f"{where} is no JSON schema", type(schema).__name__, "an object")
    if unknown := sorted(schema.keys() - _RULES - _NOTES):
        raise DataError(
            f"{where} has keywords that are not judged", unknown, sorted(_RULES), "leave them out"
        )
    types = schema.get("type", [])
    for name in [types] if isinstance(types, str) else types:
        if name not in TYPES:
            raise DataError(f"{where} names an unknown type", name, TYPES)
    if "pattern" in schema:
        try:
            re.compile(schema["pattern"])
        except (re.error, TypeError) as error:
            raise DataError(f"{where} has a pattern that is none", schema["pattern"]) from error
    for name, inner in schema.get("properties", {}).items():
        check_schema(inner, f"{where}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            check_schema(schema[key], f"{where}.{key}")
    for key in ("anyOf", "allOf"):
        for at, inner in enumerate(schema.get(key, [])):
            check_schema(inner, f"{where}.{key}[{at}]")


def parsed(answer: str) -> Any:
    """The JSON value that an answer is, strictly: no key twice, no NaN, nothing around it.

    Raises DataError for what is none.
    """
    try:
        return json.loads(answer, object_pairs_hook=keys_once, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise DataError("the answer is no JSON", str(error)[:80]) from error


def follows(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a JSON value follows a schema that `check_schema` let pass."""
    return (
        _type_fits(value, schema.get("type"))
        and ("enum" not in schema or any(_equal(value, each) for each in schema["enum"]))
        and ("const" not in schema or _equal(value, schema["const"]))
        and all(follows(value, each) for each in schema.get("allOf", ()))
        and ("anyOf" not in schema or any(follows(value, each) for each in schema["anyOf"]))
        and _object_fits(value, schema)
        and _array_fits(value, schema)
        and _string_fits(value, schema)
        and _number_fits(value, schema)
    )


def schema_valid(answer: str, schema: dict[str, Any]) -> float:
    """1.0 if the whole answer is one JSON value that follows the schema, else 0.0."""
    try:
        return float(follows(parsed(answer), schema))
    except DataError:
        return 0.0


def field_accuracy(answer: str, reference: str) -> float:
    """Share of the reference's fields that the answer has exactly right; 0.0 where it is no JSON object.

    A field more than the reference has costs as much as a wrong one, so that guessing keys does not pay.
    """
    gold = parsed(reference)
    try:
        said = parsed(answer)
    except DataError:
        return 0.0
    if not isinstance(said, dict) or not isinstance(gold, dict):
        return float(_equal(said, gold))
    fields = said.keys() | gold.keys()
    right = sum(name in said and name in gold and _equal(said[name], gold[name]) for name in fields)
    return right / len(fields) if fields else 1.0


def _equal(one: Any, other: Any) -> bool:
    """Equality of JSON: true is not 1, and 1.0 is 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return one == other


def _type_fits(value: Any, types: str | list[str] | None) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    holds = {
        "object": isinstance(value, dict),
        "array": isinstance(value, list),
        "string": isinstance(value, str),
        "number": number,
        "integer": number and (isinstance(value, int) or value.is_integer()),
        "boolean": isinstance(value, bool),
        "null": value is None,
    }
    return types is None or any(holds[name] for name in ([types] if isinstance(types, str) else types))


def _object_fits(value: Any, schema: dict[str, Any]) -> bool:
    if not isinstance(value, dict):
        return True
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    if not value.keys() >= set(schema.get("required", ())):
        return False
    for name, inner in value.items():
        rule = known.get(name, others)
        if rule is False or (isinstance(rule, dict) and not follows(inner, rule)):
            return False
    return True


def _array_fits(value: Any, schema: dict[str, Any]) -> bool:
    if not isinstance(value, list):
        return True
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        return False
    if schema.get("uniqueItems") and any(_equal(a, b) for i, a in enumerate(value) for b in value[:i]):
        return False
    return "items" not in schema or all(follows(inner, schema["items"]) for inner in value)


def _string_fits(value: Any, schema: dict[str, Any]) -> bool:
    if not isinstance(value, str):
        return True
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        return False
    return "pattern" not in schema or re.search(schema["pattern"], value) is not None


def _number_fits(value: Any, schema: dict[str, Any]) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return True
    return (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
    )

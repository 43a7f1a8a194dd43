"""JSON answers: whether they follow a JSON Schema (2020-12), and how many of their fields are right.

The library `jsonschema` judges. What it would pass over in silence is refused when a suite is read, so that
no answer passes a rule that was not looked at: unknown keywords and formats, references that lead nowhere
or out of the schema, and definitions that refer to themselves without end. Patterns are searched in linear
time, and refused where they cannot be.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.exceptions import SchemaError, UnknownType
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from pydantic import AnyUrl, TypeAdapter
from referencing import Registry
from referencing._core import Resolver
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from escultor.errors import DataError
from escultor.patterns import is_found, linear_pattern
from escultor.strict_json import strict_loads

# Keywords that say nothing about an answer's value; `discriminator` is how Pydantic annotates tagged unions.
_ANNOTATIONS = frozenset(
    (
        *("$schema", "$id", "$anchor", "$comment", "$defs", "definitions", "title", "description"),
        *("default", "examples", "deprecated", "readOnly", "writeOnly", "discriminator", "then", "else"),
        *("minContains", "maxContains", "contentMediaType", "contentEncoding"),
    )
)
KEYWORDS = (frozenset(Draft202012Validator.VALIDATORS) - {"$dynamicRef"}) | _ANNOTATIONS
# Where a schema holds schemas: under each name of an object, in a list, or as the value itself.
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_IN_LIST = ("anyOf", "allOf", "oneOf", "prefixItems")
_AS_VALUE = ("items", "additionalProperties", "unevaluatedProperties", "unevaluatedItems", "contains", "not")
_AS_VALUE += ("if", "then", "else", "propertyNames")

MOST_JUDGEMENTS = 10_000  # schemas by which one value is judged
_FORMATS = FormatChecker(("email", "ipv4", "ipv6", "regex", "uuid"))
_UNCHECKED = frozenset(("binary", "byte", "password", "path", "file-path", "directory-path", "json-string"))
_PYTHON_TYPES: dict[str, Any] = {
    "date-time": datetime,
    "date": date,
    "time": time,
    "duration": timedelta,
    "uri": AnyUrl,
}


def _check_format(name: str, kind: Any) -> None:
    adapter = TypeAdapter(kind)

    def is_of_format(value: object) -> bool:
        # A digit alone would be read as a time stamp, which is no date in JSON Schema.
        if isinstance(value, str):
            if value.replace(".", "", 1).lstrip("-").isdigit():
                return False
            adapter.validate_python(value)
        return True

    _FORMATS.checks(name, raises=ValueError)(is_of_format)


for _name, _kind in _PYTHON_TYPES.items():
    _check_format(_name, _kind)
FORMATS = frozenset(_FORMATS.checkers) | _UNCHECKED


# --- the keywords that search patterns, without the library's `re`, which may backtrack --------------------


def _pattern(judge: Validator, pattern: str, value: Any, schema: Any) -> Iterator[ValidationError]:
    if judge.is_type(value, "string") and not is_found(pattern, value):
        yield ValidationError(f"the text does not match {pattern!r}")


def _pattern_properties(judge: Any, patterns: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if judge.is_type(value, "object"):
        for pattern, rule in patterns.items():
            for name in value:
                if is_found(pattern, name):
                    yield from judge.descend(value[name], rule, path=name, schema_path=pattern)


def _additional_properties(judge: Any, rule: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if judge.is_type(value, "object"):
        named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        others = {
            name: each
            for name, each in value.items()
            if name not in named and not any(is_found(pattern, name) for pattern in patterns)
        }
        yield from Draft202012Validator.VALIDATORS["additionalProperties"](judge, rule, others, {})


_Judge = extend(
    Draft202012Validator,
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
    },
)


def check_schema(schema: Any, where: str = "the schema") -> None:
    """Raise DataError for a schema by which answers cannot be judged, naming the place in it."""
    if not isinstance(schema, dict):
        raise DataError(f"{where} is no JSON schema", type(schema).__name__, "an object")
    try:
        for place, each in _subschemas(schema, where):
            if unknown := sorted(each.keys() - KEYWORDS):
                remedy = "leave them out"
                raise DataError(
                    f"{place} has keywords that are not judged", unknown, sorted(KEYWORDS), remedy
                )
            if (name := each.get("format")) is not None and name not in FORMATS:
                raise DataError(f"{place} names a format that is not judged", name, sorted(FORMATS))
            _check_patterns(each, place, schema)
        # Patterns were checked above: Python's own syntax for them is another (no `\p{L}`).
        Draft202012Validator.check_schema(schema, format_checker=FormatChecker(()))
        resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
        known: dict[int, int] = {}
        for place, each in _subschemas(schema, where):
            _judgements(each, resolver, place, (), known)
    except (SchemaError, UnknownType) as error:
        path = ".".join(map(str, getattr(error, "absolute_path", ())))
        message = getattr(error, "message", str(error))
        raise DataError(f"{where}{'.' + path if path else ''} is no JSON schema", message[:200]) from error
    except Unresolvable as error:
        allowed = "a `$ref` to a part of the same schema, such as #/$defs/Address"
        raise DataError(f"{where} refers to what is not there", error.ref, allowed) from error
    except RecursionError as error:
        raise DataError(f"{where} refers to itself without end, or is nested too deep") from error


def _check_patterns(each: dict[str, Any], place: str, schema: dict[str, Any]) -> None:
    """Raise DataError for patterns that cannot be searched in linear time."""
    if isinstance(pattern := each.get("pattern"), str):
        linear_pattern(pattern, f"{place}.pattern")
    if isinstance(patterns := each.get("patternProperties"), dict):
        for pattern in patterns:
            linear_pattern(pattern, f"{place}.patternProperties")
        if any("unevaluatedProperties" in other for _, other in _subschemas(schema, "")):
            remedy = "use additionalProperties, or name the properties"
            what = "patternProperties and unevaluatedProperties in one schema are not judged"
            raise DataError(f"{place}: {what}", sorted(patterns), "one of the two", remedy)


def _judgements(
    schema: Any, resolver: Resolver[Any], place: str, path: tuple[int, ...], known: dict[int, int]
) -> int:
    """How many schemas judge one value by this one, itself included: along `$ref` and the keywords that judge
    the value itself rather than a part of it.

    Raises DataError where that comes back to the same schema, or where they are too many: definitions that
    each refer twice to the next double with each of them.
    """
    if not isinstance(schema, dict):
        return 0
    if id(schema) in path:
        raise DataError(f"{place} refers to itself without end", schema.get("$ref"))
    if id(schema) in known:
        return known[id(schema)]
    path, total = (*path, id(schema)), 1
    if "$ref" in schema:
        target = resolver.lookup(schema["$ref"])
        total += _judgements(target.contents, target.resolver, place, path, known)
    inner = [each for key in ("anyOf", "allOf", "oneOf") for each in schema.get(key, ())]
    inner += [schema.get(key) for key in ("not", "if", "then", "else")]
    inner += list(schema.get("dependentSchemas", {}).values())
    total += sum(_judgements(each, resolver, place, path, known) for each in inner)
    if total > MOST_JUDGEMENTS:
        allowed = f"at most {MOST_JUDGEMENTS}"
        raise DataError(f"{place} judges one value by too many schemas", f"{total} of them", allowed)
    known[id(schema)] = total
    return total


def _subschemas(schema: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A schema and all schemas in it, each with its place."""
    if not isinstance(schema, dict):
        return
    yield where, schema
    for key in _BY_NAME:
        inner = schema.get(key)
        for name, each in inner.items() if isinstance(inner, dict) else ():
            yield from _subschemas(each, f"{where}.{name}")
    for key in _IN_LIST:
        inner = schema.get(key)
        for at, each in enumerate(inner if isinstance(inner, list) else ()):
            yield from _subschemas(each, f"{where}.{key}[{at}]")
    for key in _AS_VALUE:
        yield from _subschemas(schema.get(key), f"{where}.{key}")


def parsed(answer: str) -> Any:
    """The JSON value that an answer is, strictly: no key twice, no NaN, nothing around it.

    Raises DataError for what is none.
    """
    try:
        return strict_loads(answer)
    except ValueError as error:
        raise DataError("the answer is no JSON", str(error)[:80]) from error


def validator(schema: dict[str, Any]) -> Validator:
    """What judges by a schema. References outside the schema are never fetched."""
    return _Judge(schema, registry=Registry(), format_checker=_FORMATS)


def follows(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a JSON value follows a schema that `check_schema` let pass."""
    return validator(schema).is_valid(value)


def schema_valid(answer: str, schema: dict[str, Any]) -> float:
    """1.0 if the whole answer is one JSON value that follows the schema, else 0.0."""
    try:
        return float(follows(parsed(answer), schema))
    except (DataError, RecursionError):
        return 0.0


def field_accuracy(answer: str, reference: str) -> float:
    """Share of the reference's fields that the answer has exactly right; 0.0 where it is no JSON object.

    A field more than the reference has costs as much as a wrong one, so that guessing keys does not pay.
    """
    gold = parsed(reference)
    try:
        value = parsed(answer)
    except DataError:
        return 0.0
    if not isinstance(value, dict) or not isinstance(gold, dict):
        return float(json_equal(value, gold))
    fields = value.keys() | gold.keys()
    right = sum(name in value and name in gold and json_equal(value[name], gold[name]) for name in fields)
    return right / len(fields) if fields else 1.0


def json_equal(a: Any, b: Any) -> bool:
    """Equality of JSON values: true is not 1, 1.0 is 1, and texts are compared as composed (NFC)."""
    if isinstance(a, str) and isinstance(b, str):
        return unicodedata.normalize("NFC", a) == unicodedata.normalize("NFC", b)
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(json_equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(json_equal(a[key], b[key]) for key in a)
    return a == b

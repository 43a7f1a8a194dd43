"""Nouns as JSON text and back, exactly: a body names its variant and decodes to an equal noun."""

from __future__ import annotations

import operator
from functools import cache, reduce
from typing import Annotated, Any

from pydantic import Discriminator, Tag, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from escultor.errors import DataError, StoreError
from escultor.store.kinds import RecordKind, kind_of_instance

VARIANT = "_"  # the key of a body that names its variant


def encode(noun: object) -> str:
    """The body of a noun: its fields as JSON, led by the name of its variant.

    Raises DataError when the noun holds what would not come back as it went in (a value of another
    type than its field's, a tuple or object inside a Step's result, text that is not Unicode): an
    entry that cannot be read must not enter a log from which nothing is ever removed.
    """
    kind, name = kind_of_instance(noun), type(noun).__name__
    try:
        fields = to_json(noun, inf_nan_mode="constants").decode()
        # Every noun has fields, so the variant's name is followed by a comma.
        body = f'{{"{VARIANT}":"{name}",{fields[1:]}'
        if same(_adapter(kind).validate_json(body), noun):
            return body
        problem = "it would come back changed"
    except (PydanticSerializationError, ValidationError) as error:
        problem = _short(error)
    raise DataError(
        f"a {name} cannot be written to the log",
        problem,
        "the types of its fields; in free-form fields text, numbers, booleans, null, lists and dicts",
        f"correct the {name} {kind.id(noun)!r}",
    )


def decode(kind: RecordKind, body: str) -> Any:
    """The noun that a body holds.

    Raises StoreError when the body is not one of the kind's variants.
    """
    try:
        return _adapter(kind).validate_json(body)
    except ValidationError as error:
        raise StoreError(
            f"an entry of kind {kind.name} cannot be read",
            _short(error),
            [variant.__name__ for variant in kind.variants],
            "the entry was written by other means than escultor; restore the store from a copy",
        ) from error


def same(one: object, other: object) -> bool:
    """Whether two nouns say the same; not-a-number, unlike in Python, equals itself here."""
    return one == other or repr(one) == repr(other)


@cache
def _adapter(kind: RecordKind) -> TypeAdapter[Any]:
    """One reader per kind: a sum type is told apart by the variant's name, never by its shape."""
    if len(kind.variants) == 1:
        return TypeAdapter(kind.noun)
    tagged: Any = reduce(operator.or_, (Annotated[v, Tag(v.__name__)] for v in kind.variants))
    union: Any = Annotated[tagged, Discriminator(_variant)]
    return TypeAdapter(union)


def _variant(body: Any) -> Any:
    return body.get(VARIANT) if isinstance(body, dict) else None


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
    return str(error)

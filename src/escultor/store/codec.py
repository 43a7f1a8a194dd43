"""Records as JSON text and back: a body names its type and decodes to an equal record."""

from __future__ import annotations

import operator
from dataclasses import fields, is_dataclass
from functools import cache, reduce
from typing import Annotated, Any

from pydantic import ConfigDict, Discriminator, Tag, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from escultor import types
from escultor.errors import DataError, StoreError
from escultor.store.kinds import RecordKind, kind_of_instance

VARIANT = "_"  # the key of a body that names the type


@cache
def _prepare_sparse_types() -> None:
    """Let `to_json` leave out the fields that are not written while they are empty (`exclude_if`): it asks a
    class for its serializer."""
    for each in _sparse_types():
        setattr(each, "__pydantic_config__", ConfigDict(ser_json_inf_nan="constants"))  # noqa: B010
        setattr(each, "__pydantic_serializer__", TypeAdapter(each).serializer)  # noqa: B010


def _sparse_types() -> list[type]:
    """The types with such fields, whether records or parts of them."""
    known = [each for each in vars(types).values() if isinstance(each, type) and is_dataclass(each)]
    return [each for each in known if any("omit_default" in field.metadata for field in fields(each))]


def encode(record: object) -> str:
    """The body of a record: the name of its type, then its fields, as JSON.

    Raises DataError for a record that would be read back changed (a value of another type than its field's,
    a tuple or object inside a Step's result, text that is not Unicode): an entry that cannot be read must
    not enter a log that is never edited.
    """
    _prepare_sparse_types()
    kind, name = kind_of_instance(record), type(record).__name__
    try:
        json = to_json(record, inf_nan_mode="constants").decode()
        # Every record has fields, so the type's name is followed by a comma.
        body = f'{{"{VARIANT}":"{name}",{json[1:]}'
        if same(_adapter(kind).validate_json(body), record):
            return body
        problem = "it would be read back changed"
    except (PydanticSerializationError, ValidationError) as error:
        problem = _short(error)
    raise DataError(
        f"a {name} cannot be written to the log",
        problem,
        "the types of its fields; in free-form fields text, numbers, booleans, null, lists and dicts",
        f"correct the {name} {kind.id(record)!r}",
    )


def decode(kind: RecordKind, body: str) -> Any:
    """The record that a body holds. Raises StoreError for a body of none of the kind's types."""
    try:
        return _adapter(kind).validate_json(body)
    except ValidationError as error:
        raise StoreError(
            f"an entry of kind {kind.name} cannot be read",
            _short(error),
            [variant.__name__ for variant in kind.variants],
            "the entry was written by other means than escultor; restore the store from a copy",
        ) from error


def same(a: object, b: object) -> bool:
    """Whether two records are equal; unlike in Python, not-a-number equals itself."""
    return a == b or repr(a) == repr(b)


@cache
def _adapter(kind: RecordKind) -> TypeAdapter[Any]:
    """The reader of a kind. The types of a union are told apart by name, never by their fields."""
    if len(kind.variants) == 1:
        return TypeAdapter(kind.record_type)
    tagged: Any = reduce(operator.or_, (Annotated[v, Tag(v.__name__)] for v in kind.variants))
    union: Any = Annotated[tagged, Discriminator(_variant)]
    return TypeAdapter(union)


def _variant(body: Any) -> Any:
    return body.get(VARIANT) if isinstance(body, dict) else None


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
    return str(error)

"""JSON answers: what follows a schema (oracle: jsonschema_rs), and how many fields are right."""

import json
from datetime import date, datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AnyUrl, BaseModel, Field

from escultor.errors import DataError
from escultor.skills.schema import check_schema, field_accuracy, follows, schema_valid

values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from((0.5, 1.0, "", "a", "ab")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)
types = st.sampled_from(("object", "array", "string", "number", "integer", "boolean", "null"))
schemas = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": types | st.lists(types, min_size=1, max_size=2, unique=True),
            "enum": st.lists(values, min_size=1, max_size=3),
            "const": values,
            "required": st.lists(st.sampled_from("ab"), max_size=2, unique=True),
            "minItems": st.integers(0, 2),
            "maxItems": st.integers(0, 2),
            "uniqueItems": st.booleans(),
            "minLength": st.integers(0, 2),
            "maxLength": st.integers(0, 2),
            "pattern": st.sampled_from(("a", "^b")),
            "minimum": st.integers(-1, 1),
            "exclusiveMaximum": st.integers(-1, 1),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            "additionalProperties": st.booleans() | inner,
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
        },
    ),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(values, schemas)
def test_what_follows_a_schema_is_what_another_library_says(value, schema):
    check_schema(schema)
    assert follows(value, schema) == jsonschema_rs.is_valid(schema, value)


@pytest.mark.parametrize("answer", ["", "{", '{"a": 1} and', '{"a": 1, "a": 1}', '{"a": NaN}', "[" * 9000])
def test_what_is_not_wholly_json_is_not_valid(answer):
    assert schema_valid(answer, {}) == 0.0
    assert field_accuracy(answer, '{"a": 1}') == 0.0


DOUBLING = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)} | {"d60": {}}


@pytest.mark.parametrize(
    ("schema", "what"),
    [
        ([], "no JSON schema"),
        ({"$ref": "#"}, "without end"),
        ({"items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}, "without end"),
        ({"$ref": "#/$defs/absent"}, "what is not there"),
        ({"$ref": "https://example.org/schema.json"}, "what is not there"),
        ({"type": "text"}, "no JSON schema"),
        ({"properties": {"a": {"oneOf": []}}}, r"schema\.properties\.a"),
        ({"pattern": "("}, "pattern"),
        ({"properties": {"a": {"format": "zip-code"}}}, r"schema\.a names a format"),
        ({"properties": {"a": {"minimun": 1}}}, r"schema\.a has keywords"),
        ({"$dynamicRef": "#a"}, "has keywords"),
        ({"$ref": "#/$defs/d0", "$defs": DOUBLING}, "too many schemas"),
    ],
)
def test_a_schema_that_could_not_be_judged_by_is_refused(schema, what):
    with pytest.raises(DataError, match=what):
        check_schema(schema)


def test_fields_count_singly_and_one_too_many_costs_as_much_as_a_wrong_one():
    gold = json.dumps({"a": 1, "b": ["x"], "c": None})
    assert field_accuracy(gold, gold) == 1.0
    assert field_accuracy('{"a": 1.0, "b": ["x"], "c": false}', gold) == pytest.approx(2 / 3)
    assert field_accuracy('{"a": 1, "b": ["x"], "c": null, "d": 0}', gold) == pytest.approx(3 / 4)
    assert field_accuracy("[1]", "[1]") == 1.0
    assert field_accuracy('{"a": "cafe\u0301"}', '{"a": "caf\u00e9"}') == 1.0


class Address(BaseModel):
    street: str
    kind: Literal["home", "work"]


class Cat(BaseModel):
    animal: Literal["cat"]
    lives: int


class Dog(BaseModel):
    animal: Literal["dog"]
    born: datetime


class Person(BaseModel):
    address: Address
    birthday: date
    id: UUID
    page: AnyUrl
    wait: timedelta
    pet: Annotated[Cat | Dog, Field(discriminator="animal")]
    nickname: str | None = None
    tags: dict[str, int] = {}
    place: tuple[int, str] = (1, "a")
    children: list["Person"] = []


MARIA = {
    "address": {"street": "Rua do Gato", "kind": "home"},
    "birthday": "1990-01-02",
    "id": "6f1b0ad5-4a4a-4cc3-8f7b-1b7a33d8c111",
    "page": "https://example.org/maria",
    "wait": "P1DT2H",
    "pet": {"animal": "cat", "lives": 9},
}


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True),
        ({"children": [MARIA]}, True),
        ({"pet": {"animal": "dog", "born": "2020-01-02T03:04:05Z"}}, True),
        ({"children": [{}]}, False),
        ({"birthday": "1990-13-02"}, False),
        ({"birthday": "19900102"}, False),
        ({"id": "6f1b"}, False),
        ({"wait": "2 hours or so"}, False),
        ({"pet": {"animal": "dog", "born": "long ago"}}, False),
        ({"pet": {"animal": "cow", "lives": 1}}, False),
        ({"place": [1]}, False),
        ({"nickname": 3}, False),
    ],
)
def test_schemas_are_judged_as_pydantic_writes_them(change, valid):
    schema = Person.model_json_schema()
    check_schema(schema)
    assert schema_valid(json.dumps(MARIA | change), schema) == float(valid)


def test_a_definition_may_refer_to_itself_where_the_value_gets_smaller():
    tree = {"$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "$ref": "#/$defs/tree"}
    check_schema(tree)
    assert schema_valid("[[], [[]]]", tree) == 1.0
    assert schema_valid("[[], [1]]", tree) == 0.0


PATTERNED = {
    "type": "object",
    "properties": {"id": {"type": "string", "pattern": "^(a|aa)+$"}},
    "patternProperties": {"^x_": {"type": "integer"}},
    "additionalProperties": False,
}


def test_patterns_of_a_schema_are_searched_by_a_linear_engine():
    check_schema(PATTERNED)
    assert follows({"id": "aaa", "x_n": 1}, PATTERNED)
    for wrong in ({"id": "b"}, {"x_n": "1"}, {"other": 1}, {"id": "a" * 10_000 + "!"}):
        assert not follows(wrong, PATTERNED)
    assert not follows({"b": 1}, {"additionalProperties": {"type": "string"}})
    letters = {"pattern": r"^\p{L}+$"}  # which Python's `re` does not know
    check_schema(letters)
    assert follows("née", letters)
    assert not follows("a1", letters)


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "(?=a)"},
        {"patternProperties": {r"(.)\1": {}}},
        {"patternProperties": {"a": {}}, "allOf": [{"unevaluatedProperties": False}]},
    ],
)
def test_patterns_that_cannot_be_searched_in_linear_time_are_refused(schema):
    with pytest.raises(DataError, match=r"linear time|one of the two"):
        check_schema({"properties": {"x": schema}})

"""Content ids are the hash of canonical JSON as Python's `json` writes it, whichever writer made it."""

import json
from dataclasses import dataclass, field
from enum import StrEnum

from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.ids import OMIT_DEFAULT, compact_json, hash_bytes, hash_value, plain

value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from([1e-5, 1e15, 1e16, 0.1, -0.0, 1.0, 2**63, 10**20]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(value)
def test_a_hash_is_that_of_canonical_json(value):
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hash_value(value) == hash_bytes(text.encode())


@settings(max_examples=100, deadline=None)
@given(value)
def test_compact_json_is_what_json_writes(value):
    assert compact_json(value) == json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Thing:
    z: str
    a: tuple[Colour, ...]
    new: str = field(default="", metadata=OMIT_DEFAULT)


def test_records_enums_and_sets_have_one_form():
    thing = {"_": "Thing", "z": "x", "a": ["red"]}
    assert hash_value(Thing("x", (Colour.RED,))) == hash_value(thing)
    assert hash_value(Thing("x", (Colour.RED,), "n")) == hash_value(thing | {"new": "n"})
    assert hash_value({"b": {"y", "x"}, 1: None}) == hash_value({"1": None, "b": ["x", "y"]})

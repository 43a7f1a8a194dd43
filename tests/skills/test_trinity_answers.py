"""Answers about any document become Trinities that follow the schema, whatever the model said."""

import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.errors import DataError
from escultor.skills.catalog import built_in
from escultor.skills.trinity import Trinity
from escultor.skills.trinity_answers import ReadAnswer, TrinityReader, answer_schema, file_schemas

DECLARED = built_in("trinity").output.schema
DOCUMENT = "# Cats\n\nThe `json.dumps` function runs fast. Ana Silva wrote it."
READER = TrinityReader(answer_schema(DECLARED, ("law", "art"), ("contract", "letter")))
GOOD = {"entity": "Cats", "domain": "art", "purpose": "letter", "entities": ["Ana Silva"], "summary": "Run."}


def test_an_answer_within_the_sets_is_taken_and_names_that_do_not_occur_are_dropped():
    said = GOOD | {"entities": ["Ana Silva", "json.dumps", "Rui Costa", "ana silva"]}
    read = READER.read(json.dumps(said), DOCUMENT)
    assert read.trinity.entities == ("Ana Silva", "json.dumps", "ana silva")
    assert (read.dropped, read.filled) == (("Rui Costa",), ())
    assert (read.trinity.domain, read.trinity.purpose) == ("art", "letter")


def test_what_an_answer_lacks_a_rule_fills_and_says_so():
    read = READER.read('{"entity": "Cats", "domain": "physics", "purpose": "letter", "summ', DOCUMENT)
    assert read.filled == ("domain", "entities", "summary")
    assert read.trinity == Trinity(
        "Cats", "law", "letter", ("json.dumps",), "The `json.dumps` function runs fast."
    )


@settings(max_examples=60, deadline=None)
@given(
    st.text() | st.from_regex(r'\{"entity": "[a-z]*"?,? ?("domain": [^}]*)?', fullmatch=True),
    st.text(min_size=1),
)
def test_every_answer_to_every_document_follows_the_schema(answer, document):
    trinity = READER.read(answer, document).trinity
    jsonschema.validate(json.loads(trinity.to_json()), READER.schema)
    assert READER.parse(trinity.to_json()) == trinity


def test_sections_are_merged_by_majority_and_in_the_order_of_the_text():
    parts = [
        ReadAnswer(Trinity("A", "law", "letter", ("x", "y"), "One."), ("summary",)),
        ReadAnswer(Trinity("B", "art", "contract", ("y", "z"), "Two.")),
        ReadAnswer(Trinity("C", "art", "contract", (), "Three."), (), ("q",)),
    ]
    merged = READER.merge(parts, "All.")
    assert merged == ReadAnswer(
        Trinity("A", "art", "contract", ("y", "x", "z"), "All."), ("summary",), ("q",)
    )
    assert READER.merge(parts, None).trinity.summary == "One."


def test_a_persons_answer_stays_within_the_closed_sets():
    with pytest.raises(DataError, match="domain"):
        READER.parse(json.dumps(GOOD | {"domain": "physics"}))
    with pytest.raises(DataError, match="purpose"):
        READER.parse(json.dumps(GOOD | {"purpose": "reference"}))


def test_the_published_schemas_are_schemas_and_name_the_fields_of_the_files():
    schemas = file_schemas(answer_schema(DECLARED, ("law",)))
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert schemas["NAME.llm.json"]["required"] == ["summary", "entities", "purpose"]
    assert schemas["NAME.meta.json"]["properties"]["domain"] == {"enum": ["law"]}
    assert schemas["NAME.meta.json"]["required"] == ["domain", "entity", "timestamp"]

"""The OpenAPI document: whatever it allows is answered as it says, and nothing ends in a 5xx."""

import httpx2
import pytest
import schemathesis
from gateway_side import serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from escultor.serve.auth import create
from escultor.types import Scope

EXAMPLES = 25  # of each path and way to send a key; the seed is fixed
CHECKS = [
    schemathesis.checks.not_a_server_error,
    schemathesis.checks.status_code_conformance,
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def side(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("openapi"), names=("*",)) as running:
        key, made = create("a test", [Scope.ADMIN])
        running.log.append(made)
        running.until(lambda: made.id in running.gateway.keys.keys)
        running.key = key
        yield running


def test_the_document_names_both_ways_to_send_a_key(side):
    document = httpx2.get(side.url + "/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert {scheme["type"] for scheme in schemes.values()} == {"http", "apiKey"}
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert chat["security"] == [{"bearer": []}, {"header": []}]
    assert "messages" in document["components"]["schemas"]["ChatRequest"]["properties"]


FEW = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("scheme", ["bearer", "header", "none"])
def test_whatever_the_document_allows_is_answered_as_it_describes(side, scheme):
    keys = {"bearer": {"Authorization": f"Bearer {side.key}"}, "header": {"X-API-Key": side.key}}
    schema = schemathesis.openapi.from_url(side.url + "/openapi.json")
    paths = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        paths.add(operation.path)
        cases = st.one_of(operation.as_strategy(generation_mode=mode) for mode in GenerationMode)

        @FEW
        @given(cases)
        def holds(case):
            case.call_and_validate(headers=keys.get(scheme, {}), checks=CHECKS)

        holds()
    assert scheme == "none" or side.engine.asks  # not all was refused
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/health"} <= paths

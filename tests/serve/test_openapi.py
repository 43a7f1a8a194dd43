"""The OpenAPI document: whatever it allows is answered as it says, and nothing ends in a 5xx."""

from contextlib import suppress

import httpx2
import pytest
import schemathesis
from gateway_side import serving
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS as CHECK_REGISTRY
from schemathesis.checks import load_all_checks

from escultor.serve.auth import create
from escultor.types import Scope

load_all_checks()
EXAMPLES = 8  # of each path and way to send a key, valid and invalid; the seed is fixed
CHECKS = CHECK_REGISTRY.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "response_headers_conformance",
        "negative_data_rejection",
        "unsupported_method",
        "allow_header_conformance",
    ]
)
ACCEPTED = CHECK_REGISTRY.get_by_names(["positive_data_acceptance"])
# A prompt is a text, texts, tokens or lists of tokens: what one of these forms forbids, another may allow.
SEVERAL_FORMS = "/v1/completions"
# Events and calls are more than their form: a thumb is up or down, who asked is said once.
BEYOND_A_SCHEMA = "/v1/feedback", "/v1/interactions"


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
        for mode in GenerationMode:
            is_valid = mode is GenerationMode.POSITIVE and not operation.path.startswith(BEYOND_A_SCHEMA)
            checks = CHECKS + (ACCEPTED if is_valid and scheme != "none" else [])
            if operation.path == SEVERAL_FORMS:
                checks = [check for check in checks if check.__name__ != "negative_data_rejection"]

            @FEW
            @given(operation.as_strategy(generation_mode=mode))
            def holds(case):
                case.call_and_validate(headers=keys.get(scheme, {}), checks=checks)  # noqa: B023

            with suppress(Unsatisfiable):  # nothing about the request can be invalid
                holds()
    assert scheme == "none" or side.engine.asks  # not all was refused
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/health"} <= paths


def test_allow_names_the_methods_of_a_path(side):
    paths = httpx2.get(side.url + "/openapi.json").json()["paths"]
    for path, operations in paths.items():
        at = side.url + path.replace("{token}", "t").replace("{id}", "i").replace("{hash}", "0" * 32)
        answer = httpx2.request("TRACE", at.replace("{model}", "m"))
        assert answer.status_code == 405
        allowed = {method.strip().lower() for method in answer.headers["allow"].split(",")}
        assert allowed - {"options", "head"} == set(operations)

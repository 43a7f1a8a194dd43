"""The OpenAPI document: whatever it allows is answered as it says, and nothing ends in a 5xx."""

from contextlib import suppress

import httpx2
import jsonschema_rs
import pytest
import schemathesis
from gateway_side import serving
from hypothesis import HealthCheck, assume, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS as CHECK_REGISTRY
from schemathesis.checks import load_all_checks

from escultor.serve.auth import create
from escultor.types import Scope

load_all_checks()
EXAMPLES = 8  # of each path, valid and invalid, each with every way to send a key; the seed is fixed
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


def validator(document, operation):
    """Whether a case that is invalid by its body alone has one that the document allows after all."""
    described = document["paths"][operation.path][operation.method].get("requestBody", {})
    form = described.get("content", {}).get("application/json", {}).get("schema")
    if form is None:
        return lambda case: False
    valid = jsonschema_rs.validator_for({**form, "components": document["components"]}).is_valid

    def is_allowed(case):
        negated = {where.value for where, each in case.meta.components.items() if each.mode.is_negative}
        is_json = (case.media_type or "").startswith("application/json")
        is_value = isinstance(case.body, dict | list | str | int | float | bool | None)
        return is_json and is_value and negated == {"body"} and valid(case.body)

    return is_allowed


def test_whatever_the_document_allows_is_answered_as_it_describes(side):
    keys = {"Authorization": f"Bearer {side.key}"}, {"X-API-Key": side.key}
    document = httpx2.get(side.url + "/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=side.url)
    paths = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        paths.add(operation.path)
        for mode in GenerationMode:
            is_valid = mode is GenerationMode.POSITIVE and not operation.path.startswith(BEYOND_A_SCHEMA)
            checks = CHECKS + (ACCEPTED if is_valid else [])
            is_allowed = validator(document, operation)

            @FEW
            @given(operation.as_strategy(generation_mode=mode))
            def holds(case):
                # Of several forms of a body, such as a prompt's, what one forbids another may allow.
                assume(mode is GenerationMode.POSITIVE or not is_allowed(case))  # noqa: B023
                case.call_and_validate(headers={}, checks=CHECKS)
                for key in keys:
                    case.call_and_validate(headers=key, checks=checks)  # noqa: B023

            with suppress(Unsatisfiable):  # nothing about the request can be invalid
                holds()
    assert side.engine.asks  # not all was refused
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/health"} <= paths


def test_what_a_response_leads_to_is_answered_as_the_document_describes(side):
    """By its links: an answer is rated, its feedback is read and withdrawn, its person is erased."""
    schema = schemathesis.openapi.from_url(side.url + "/openapi.json")
    followed = set()

    class Client(schema.as_state_machine()):
        def get_call_kwargs(self, case):
            return {"headers": {"Authorization": f"Bearer {side.key}"}}

        def validate_response(self, response, case, additional_checks=(), **_):
            followed.add((case.operation.path, case.method, response.status_code < 300))
            case.validate_response(response, checks=[*CHECKS, *additional_checks])

    Client.run(settings=settings(FEW, max_examples=12, stateful_step_count=6))
    assert ("/v1/feedback", "GET", True) in followed


def test_a_link_names_an_operation_and_a_parameter_of_it(side):
    paths = httpx2.get(side.url + "/openapi.json").json()["paths"]
    operations = [each for methods in paths.values() for each in methods.values()]
    known = {each["operationId"]: each for each in operations}
    replies = [reply for each in operations for reply in each["responses"].values()]
    links = [link for reply in replies for link in reply.get("links", {}).values()]
    assert len(known) == len(operations)
    assert len(links) > 5
    for link in links:
        given = {name.partition(".")[2] for name in link.get("parameters", {})}
        parameters = {each["name"] for each in known[link["operationId"]].get("parameters", ())}
        assert given <= parameters
        assert given or "requestBody" in known[link["operationId"]]


def test_allow_names_the_methods_of_a_path(side):
    paths = httpx2.get(side.url + "/openapi.json").json()["paths"]
    for path, operations in paths.items():
        at = side.url + path.replace("{token}", "t").replace("{id}", "i").replace("{hash}", "0" * 32)
        answer = httpx2.request("TRACE", at.replace("{model}", "m"))
        assert answer.status_code == 405
        allowed = {method.strip().lower() for method in answer.headers["allow"].split(",")}
        assert allowed - {"options", "head"} == set(operations)

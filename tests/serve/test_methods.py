"""HEAD is GET without a body, OPTIONS says what a path takes, and browsers may send clients' headers."""

import httpx2
import pytest
from gateway_side import serving

ORIGIN = {"Origin": "https://chat.example"}
CLIENT_HEADERS = (  # of the official clients for browsers, and ours
    "authorization, content-type, x-api-key, x-stainless-lang, x-stainless-retry-count, x-stainless-timeout, "
    "anthropic-version, anthropic-beta, anthropic-dangerous-direct-browser-access, openai-organization, "
    "openai-project, x-escultor-subject, x-escultor-message"
)


@pytest.fixture(scope="module")
def side(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("methods")) as running:
        yield running


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/escultor", "/health", "/static/thumbs.js"])
def test_head_is_get_without_a_body(side, path):
    head, got = httpx2.head(side.url + path), httpx2.get(side.url + path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(got.content))


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/chat/completions", "OPTIONS, POST"),
        ("/v1/messages", "OPTIONS, POST"),
        ("/v1/embeddings", "OPTIONS, POST"),
        ("/v1/models", "GET, HEAD, OPTIONS"),
        ("/v1/feedback", "GET, HEAD, OPTIONS, POST"),
    ],
)
def test_options_and_a_wrong_method_say_what_a_path_takes(side, path, allowed):
    answer = httpx2.options(side.url + path)
    assert (answer.status_code, answer.headers["allow"]) == (204, allowed)
    assert "access-control-allow-origin" not in answer.headers
    wrong = httpx2.patch(side.url + path)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, allowed)


def test_an_unknown_path_has_no_options(side):
    assert httpx2.options(side.url + "/v1/nothing").status_code == 404


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/embeddings"])
def test_the_headers_of_official_clients_pass_from_a_browser(tmp_path, path):
    with serving(tmp_path, cors_origins=["https://chat.example"]) as side:
        wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": CLIENT_HEADERS}
        answer = httpx2.options(side.url + path, headers={**ORIGIN, **wanted})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]
        passed = {each.strip().lower() for each in answer.headers["access-control-allow-headers"].split(",")}
        assert {each.strip() for each in CLIENT_HEADERS.split(",")} <= passed
        refused = httpx2.options(side.url + path, headers={"Origin": "https://evil.example", **wanted})
        assert refused.status_code == 400

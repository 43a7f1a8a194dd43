"""Faulty requests of every dialect never end in an error of the gateway's own."""

import random

import httpx2
import pytest
from dialect_bodies import BODIES, requests, rightly
from forwarding_side import forwarding
from gateway_side import serving
from mock_upstream import MockUpstream

ALLOWED = {200, 202, 204, 400, 401, 404, 405, 409, 410, 413, 415, 422, 429, 501, 503}


def refused(url, seed, count=100):
    """What ended in an error that is the server's."""
    found, made = [], requests(random.Random(seed))
    with httpx2.Client(base_url=url, timeout=120) as client:
        for _ in range(count):
            method, path, body, headers = next(made)
            answer = client.request(method, path, content=body, headers=headers)
            if answer.status_code not in ALLOWED or b'"code":"internal"' in answer.content:
                found.append((answer.status_code, method, path, body, headers, answer.text))
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_in_front_of_an_upstream(tmp_path, seed):
    with MockUpstream(rightly) as mock, forwarding(tmp_path, mock) as side:
        assert refused(side.url, seed) == []


def test_on_an_engine_of_its_own(tmp_path):
    with serving(tmp_path) as side:
        assert refused(side.url, 3) == []


def test_the_bodies_before_they_are_changed_are_answered(tmp_path):
    with MockUpstream(rightly) as mock, forwarding(tmp_path, mock) as side:
        for path, bodies in BODIES.items():
            for body in bodies:
                answer = httpx2.post(side.url + path, json=body, timeout=120)
                # This upstream has no log-probabilities, and the log no earlier response.
                without = "logprobs" in body or "previous_response_id" in body
                assert without or answer.status_code in (200, 202), answer.text

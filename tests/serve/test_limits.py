"""Rate limiter and depth check."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escultor.serve.auth import RateLimiter
from escultor.serve.gateway.middleware import is_nested_deeper


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60), st.floats(0.1, 5), st.integers(1, 5))
def test_no_stretch_of_time_sees_more_than_burst_and_rate_allow(gaps, rate, burst):
    clock, taken = Clock(), []
    limiter = RateLimiter(rate, burst, clock)
    for gap in gaps:
        clock.now += gap
        if limiter.acquire("a") == 0:
            taken.append(clock.now)
    for i, start in enumerate(taken):
        for j, end in enumerate(taken[i:], i):
            assert j - i + 1 <= burst + rate * (end - start) + 1e-6


@given(st.floats(0.1, 5), st.integers(1, 5))
def test_after_the_wait_that_it_names_there_is_a_token(rate, burst):
    clock = Clock()
    limiter = RateLimiter(rate, burst, clock)
    while not (wait := limiter.acquire("a")):
        pass
    assert limiter.acquire("b") == 0
    clock.now += wait * (1 + 1e-9)
    assert limiter.acquire("a") == 0


def test_only_so_many_names_are_remembered():
    limiter = RateLimiter(0.001, 1, Clock(), max_buckets=10)
    for n in range(1000):
        limiter.acquire(f"n{n}")
    assert len(limiter._buckets) == 10
    assert limiter.acquire("n999") > 0


def depth(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max((depth(v) for v in inner), default=0)


json_values = st.recursive(
    st.none() | st.text('[]{}"\\x', max_size=5) | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('[{"\\', max_size=3), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(json_values, st.integers(0, 6))
def test_depth_is_the_one_that_parsing_finds(value, limit):
    assert is_nested_deeper(json.dumps(value).encode(), limit) == (depth(value) > limit)


@pytest.mark.parametrize("body", [b"[" * 10**6, b'{"a":' * 10**5, b'["' + b"[" * 10**6])
def test_invalid_json_is_checked_in_linear_time(body):
    assert is_nested_deeper(body, 64) or body.startswith(b'["')

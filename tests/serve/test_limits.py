"""Rate limiter and depth check."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escultor.serve.auth import RateLimiter
from escultor.serve.wire.body_json import parsed_json, refuse_excess
from escultor.serve.wire.errors import ApiError


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


def is_refused(body, limit=64):
    try:
        refuse_excess(body, limit)
    except ApiError:
        return True
    return False


@given(json_values, st.integers(0, 6))
def test_depth_is_the_one_that_parsing_finds(value, limit):
    assert is_refused(json.dumps(value).encode(), limit) == (depth(value) > limit)


@given(json_values)
def test_values_are_counted_without_parsing(value):
    def number(each):
        inner = each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        return 1 + sum(map(number, inner))

    assert number(value) <= refuse_excess(json.dumps(value).encode(), 64) <= 2 * number(value)


BOMBS = {
    "brackets": b"[" * 10**6,
    "objects": b'{"a":' * 10**5,
    "a string of brackets": b'["' + b"[" * 10**6,
    "escaped quotes": b"[" * 65 + b'"' + b'\\"' * 10**6,
    "an open string": b"[" * 65 + b'"' + b"a" * 10**6,
    "values": b"[" + b"1," * 10**6 + b"1]",
    "empty objects": b"[" + b"{}," * 10**6 + b"{}]",
    "keys": b"{" + b'"a":1,' * 10**6 + b'"b":1}',
    "strings": b"[" + b'"",' * 10**6 + b"1]",
    "backslashes": b'"' + b"\\" * 10**6,
}


@pytest.mark.parametrize("name", BOMBS)
def test_the_cost_of_a_check_grows_with_the_body_and_no_faster(name):
    body, looked = BOMBS[name], []

    class Counting(bytes):
        """Bytes that note how many of them each look takes, and make bytes of their kind."""

        def __getattribute__(self, method):
            looked.append(len(self))
            found = super().__getattribute__(method)

            def call(*values):
                made = found(*values)
                return Counting(made) if isinstance(made, bytes) else made

            return call

    few = name in ("a string of brackets", "backslashes")
    assert is_refused(Counting(body)) or few
    assert len(looked) < 20  # whatever the text is
    assert sum(looked) < 20 * len(body)


def test_a_key_that_is_given_twice_is_refused():
    with pytest.raises(ApiError, match="duplicate key"):
        parsed_json(b'{"a": 1, "b": {"a": 1, "a": 2}}')
    assert parsed_json(b'{"a": 1, "b": {"a": 1}}') == {"a": 1, "b": {"a": 1}}

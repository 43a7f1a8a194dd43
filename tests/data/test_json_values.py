"""Values of streams: found in any cut and layout, in linear time; files without the data of pictures."""

import gzip
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.data.containers.bytes_of_files import without_base64
from escultor.data.containers.rows_of_files import source_of
from escultor.data.importers.json_values import Splitter, values
from escultor.errors import DataError

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(['"', "\\", "[{", "]},"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)
documents = st.lists(st.dictionaries(st.text(max_size=5), anything, max_size=3), max_size=6)
LAYOUTS = {
    "array": lambda rows, indent: json.dumps(rows, indent=indent),
    "lines": lambda rows, indent: "".join(json.dumps(row) + "\n" for row in rows),
}


def cut(data, size):
    return [data[k : k + size] for k in range(0, len(data), size)]


@settings(max_examples=200, deadline=None)
@given(documents, st.sampled_from(sorted(LAYOUTS)), st.integers(1, 7), st.sampled_from([None, 1, 4]))
def test_values_are_found_in_any_cut_and_layout(rows, layout, size, indent):
    text = LAYOUTS[layout](rows, indent)
    data = b"\xef\xbb\xbf" + text.encode()
    found = list(values(cut(data, size), "a file"))
    assert [json.loads(value) for _, value in found] == rows
    lines = text.split("\n")
    assert all(lines[line - 1].strip()[:1] in (*"{[",) for line, _ in found)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'[{"a": 1}, {"b"', "the array does not end"),
        (b'[{"a": 1}] {"b": 2}', "something follows the array"),
        (b'["' + b"x" * 5000, "the value is too large"),
        (b'{"a": "' + b"x" * 5000, "the value is too large"),
    ],
)
def test_what_is_cut_short_or_too_large_is_refused(data, problem):
    with pytest.raises(DataError, match=problem):
        list(values([data], "a file", most=1000))


HOSTILE = {
    "a long string": b'["' + b"x" * 400_000 + b'"]',
    "escapes": b'["' + b'\\"' * 200_000 + b'"]',
    "a long line": b'{"a": "' + b"x" * 400_000 + b'"}\n',
    "open brackets": b"[" + b"[" * 50_000 + b"]" * 50_000 + b"]",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_every_byte_is_looked_at_a_bounded_number_of_times(data):
    splitter = Splitter("a file")
    looked = 0
    for block in cut(data, 1000):
        before = splitter._scanned
        list(splitter.feed(block))
        looked += max(0, splitter._scanned - before)
        assert not splitter._buffer or splitter._scanned >= len(splitter._buffer) - 1
    assert looked <= len(data)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([b'"data:image/png;base64,', b"QUJD", b'"', b"+/=", b" ;bas", b"e64,", b"x"])),
    st.integers(1, 9),
)
def test_the_data_of_pictures_is_left_out_in_any_cut(parts, size):
    data = b"".join(parts)
    whole = b"".join(without_base64([data]))
    assert b"".join(without_base64(cut(data, size))) == whole
    assert whole.count(b";base64,") == data.count(b";base64,")


def rows_in(path):
    return [row for _, row in source_of(path, with_base64=False).read()]


def test_pictures_of_any_size_leave_a_value_small(tmp_path):
    path = tmp_path / "chats.json.gz"
    picture = "data:image/png;base64," + "A" * 3_000_000
    path.write_bytes(gzip.compress(json.dumps([{"a": picture, "b": f"![x]({picture})"}, {"c": 1}]).encode()))
    assert rows_in(path) == [{"a": "data:image/png;base64,", "b": "![x](data:image/png;base64,)"}, {"c": 1}]


def test_memory_does_not_grow_with_the_pictures_in_a_value(tmp_path):
    path = tmp_path / "chats.json"
    with path.open("wb") as file:
        file.write(b'[{"a": "data:image/png;base64,')
        for _ in range(400):
            file.write(b"A" * 50_000)
        file.write(b'"}, {"b": 1}]')
    tracemalloc.start()
    assert rows_in(path) == [{"a": "data:image/png;base64,"}, {"b": 1}]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000

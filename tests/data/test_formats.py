"""Files of rows: each format by a fixture in its real shape; files that are broken or mean harm."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.data.importers import formats
from escultor.data.jsonl import read_jsonl
from escultor.data.jsonl_rows import Fault, Skip, kind_of_row
from escultor.errors import DataError

HERE = Path(__file__).parent / "formats"


OF_ROWS = [path for path in sorted(HERE.iterdir()) if path.name.startswith(("openai", "sharegpt", "trl"))]


@pytest.mark.parametrize("path", OF_ROWS, ids=lambda p: p.name)
def test_every_fixture_tells_its_format(path):
    assert path.stem.startswith(formats.format_of(path))


# --- rows -------------------------------------------------------------------------------------


def rows(name, file, tmp_path, kind):
    report = formats.import_rows(HERE / file, name, tmp_path / "out.jsonl")
    return read_jsonl(tmp_path / "out.jsonl", kind).items, report


def told(prompt):
    return [(str(m.role), m.content) for m in prompt]


def test_openai_chat(tmp_path):
    items, report = rows("openai-chat", "openai-chat.jsonl", tmp_path, "example")
    assert [item.response for item in items] == [
        "Paris, as if everyone doesn't know that already.",
        "Shakespeare.",
        "",
    ]
    assert told(items[1].prompt)[:2] == [("developer", "Be brief."), ("user", "Who wrote Hamlet?")]
    assert [call.name for call in items[2].extras.tool_calls] == ["weather"]
    assert report.skipped == {"every answer is empty or of weight 0": [4]}
    assert report.counts["kept"] == 3


def test_openai_preference(tmp_path):
    (pair,), _ = rows("openai-preference", "openai-preference.jsonl", tmp_path, "pair")
    assert pair.chosen.startswith("Today in San Francisco")
    assert pair.rejected.startswith("It is not particularly")
    assert pair.origin.rule == "import/pair/1"


def test_sharegpt(tmp_path):
    items, report = rows("sharegpt", "sharegpt.json", tmp_path, "example")
    assert [item.response for item in items] == ["The Ebro.", "My pleasure."]
    assert told(items[0].prompt)[1] == ("assistant", "The Nile.")
    assert told(items[1].prompt)[0] == ("system", "Be kind.")
    assert report.skipped == {"tool calls": [37]}


@pytest.mark.parametrize(
    ("file", "kind", "n"), [("kto", "unpaired", 2), ("preference", "pair", 2), ("completion", "example", 1)]
)
def test_trl(tmp_path, file, kind, n):
    items, _ = rows("trl", f"trl-{file}.jsonl", tmp_path, kind)
    assert len(items) == n


def test_a_broken_row_is_named_by_line_and_nothing_is_written(tmp_path):
    path = tmp_path / "in.jsonl"
    good = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    lines = [
        json.dumps(good),
        '{"conversations": 7}',
        "{",
        '{"conversations": [{"from": "cat", "value": ""}]}',
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        formats.import_rows(path, "sharegpt", tmp_path / "out.jsonl")
    for part in (
        f"{path}:2: `conversations` is of the wrong type",
        f"{path}:3: ",
        f"{path}:4: a turn is from an unknown role",
    ):
        assert part in str(caught.value)
    assert not (tmp_path / "out.jsonl").exists()


# --- hostile rows -----------------------------------------------------------------------------

NAMES = "conversations messages role content from value input preferred_output chosen rejected system weight"
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=5)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(anything)
def test_no_row_breaks_a_conversion(row):
    row = row if isinstance(row, dict) else {"messages": row}
    for convert in formats.ROWS.values():
        with suppress(Fault, Skip):
            kind_of_row(convert(row))

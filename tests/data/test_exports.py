"""What an item holds leaves in every format, and comes back."""

import json

import pytest

from escultor.data.containers.rows_of_files import source_of
from escultor.data.exports import export
from escultor.data.formats.reading import FormatReport, read_items, recognise
from escultor.data.jsonl import read_jsonl
from escultor.errors import DataError

TOOL = {"type": "function", "function": {"name": "w"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "w", "arguments": '{"city": "Recife"}'}}
ASKED = [
    {"role": "user", "content": "w?"},
    {"role": "assistant", "content": "", "reasoning_content": "ask", "tool_calls": [CALL], "weight": 1},
    {"role": "tool", "content": "31C", "tool_call_id": "c1"},
]
ROWS = {
    "example": [
        {"prompt": "a", "completion": "b"},
        {"prompt": ASKED, "completion": [{"role": "assistant", "content": "31"}], "tools": [TOOL]},
    ],
    "pair": [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {
            "prompt": "a",
            "chosen": [{"role": "assistant", "tool_calls": [CALL]}],
            "rejected": "c",
            "tools": [TOOL],
        },
    ],
    "unpaired": [
        {"prompt": "a", "completion": "b", "label": False},
        {"prompt": "a", "completion": {"role": "assistant", "tool_calls": [CALL]}, "label": True},
    ],
    "document": [{"text": "a"}],
}


def items_of(tmp_path, kind, rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_jsonl(path, kind).items


@pytest.mark.parametrize("kind", list(ROWS))
@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_items_come_back_from_our_own_formats(tmp_path, kind, format):
    items = items_of(tmp_path, kind, ROWS[kind])
    out = tmp_path / "out"
    export(items, format, out)
    if format == "parquet":
        from pyarrow.parquet import read_table

        rows = read_table(out).to_pylist()
    else:
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert items_of(tmp_path, kind, rows) == items


@pytest.mark.parametrize("format", ["trl", "openai"])
def test_turns_tools_and_calls_leave_in_the_formats_of_others(tmp_path, format):
    shown = ASKED[0], {**ASKED[1], "weight": 0}, ASKED[2]
    (item,) = items_of(
        tmp_path,
        "example",
        [{"messages": [*ASKED, *shown, {"role": "assistant", "content": "b"}], "tools": [TOOL]}],
    )
    export([item], format, tmp_path / "out")
    row = json.loads((tmp_path / "out").read_text())
    assert [message.get("weight") for message in row["messages"] if message["role"] == "assistant"] == [
        None,
        0,
        None,
    ]
    assert row["messages"][1]["tool_calls"] == [CALL]
    assert row["tools"] == [TOOL]
    (again,) = items_of(tmp_path, "example", [row])
    assert (again.prompt, again.response, again.tools) == (item.prompt, item.response, item.tools)


def test_an_answer_that_is_context_alone_has_weight_0_for_openai(tmp_path):
    prompt = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    items = items_of(tmp_path, "example", [{"prompt": prompt, "completion": "d"}])
    export(items, "openai", tmp_path / "out")
    assert json.loads((tmp_path / "out").read_text())["messages"][1] == {**prompt[1], "weight": 0}


S, U, A = (
    {"role": role, "content": text} for role, text in (("system", "s"), ("user", "u"), ("assistant", "a"))
)
LAST = {"role": "user", "content": "linha 1\n😀"}
SHARED = {
    "example": [{"messages": [S, U, A, LAST, A]}, {"messages": [U, A]}],
    "pair": [{"prompt": [S, U, A, LAST], "chosen": "b", "rejected": "c"}],
    "unpaired": [{"prompt": [S, U], "completion": "b", "label": label} for label in (True, False)],
    "document": [{"text": "a"}],
}


def imported(path):
    source, report = source_of(path), FormatReport()
    format = recognise(source)
    items = [item for _, _, item, _ in read_items(source, format, report)]
    return format.name, items


def contents(item, learnt=True):
    """What an item holds, without its id and origin."""
    shown = {name: getattr(item, name) for name in item.__slots__ if name not in ("id", "origin")}
    if not learnt and "prompt" in shown:
        shown["prompt"] = [(message.role, message.content) for message in item.prompt]
    return shown


@pytest.mark.parametrize("kind", list(SHARED))
@pytest.mark.parametrize("format", ["alpaca", "sharegpt"])
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_items_come_back_from_the_formats_of_other_trainers(tmp_path, kind, format, suffix):
    items = items_of(tmp_path, kind, SHARED[kind])
    out = tmp_path / f"out{suffix}"
    assert export(items, format, out) == len(items)
    if suffix == ".json":
        assert len(json.loads(out.read_text())) == len(items)
    name, again = imported(out)
    assert name.startswith(format) or kind == "document"
    # Which earlier answers are learnt is a matter of examples alone.
    learnt = kind == "example"
    assert [contents(item, learnt) for item in again] == [contents(item, learnt) for item in items]


def test_turns_that_are_not_learnt_calls_and_tools_come_back_from_sharegpt(tmp_path):
    call = {"role": "assistant", "content": "", "tool_calls": [{**CALL, "id": ""}], "weight": 0}
    result = {"role": "tool", "content": "31C"}
    items = items_of(tmp_path, "example", [{"messages": [U, call, result, A], "tools": [TOOL]}])
    export(items, "sharegpt", tmp_path / "out.json")
    _, again = imported(tmp_path / "out.json")
    assert list(map(contents, again)) == list(map(contents, items))


@pytest.mark.parametrize(
    ("format", "row", "said"),
    [
        ("alpaca", {"messages": [U, A], "tools": [TOOL]}, "no tools"),
        ("alpaca", {"messages": [U, {**A, "weight": 0}, U, A]}, "not learnt"),
        ("alpaca", {"messages": [U, U, A]}, "no such turns"),
        ("sharegpt", {"messages": [U, {**A, "tool_calls": [CALL]}], "tools": [TOOL]}, "text and calls"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_with_one_that_can(tmp_path, format, row, said):
    items = items_of(tmp_path, "example", [row])
    with pytest.raises(DataError, match=f"{said}[^\0]*--format openai"):
        export(items, format, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_an_export_of_nothing_is_an_empty_array(tmp_path):
    assert export([], "alpaca", tmp_path / "out.json") == 0
    assert json.loads((tmp_path / "out.json").read_text()) == []

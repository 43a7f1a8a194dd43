"""What an item holds leaves in every format, and comes back."""

import json

import pytest

from escultor.data.exports import export
from escultor.data.jsonl import read_jsonl

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

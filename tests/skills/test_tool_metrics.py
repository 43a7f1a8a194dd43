"""Calls of tools are scored by name, by schema and by value."""

import json

import pytest

from escultor.errors import DataError
from escultor.skills.suite_files import read_suite
from escultor.skills.suites import load_items, make_suite, register
from escultor.skills.table import METRICS, ModelOutput
from escultor.store import open_store
from escultor.types import Message, Role, Sampling, SuiteItem, ToolCall

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOLS = json.dumps(
    [
        {"type": "function", "function": {"name": "weather", "parameters": CITY}},
        {"type": "function", "function": {"name": "stop"}},
    ]
)


def written(*calls):
    return "".join(f"<tool_call>{json.dumps({'name': n, 'arguments': a})}</tool_call>" for n, a in calls)


PARIS, LIMA = ("weather", {"city": "Paris", "days": 2}), ("weather", {"city": "Lima"})
BOTH = [{"name": name, "arguments": arguments} for name, arguments in (PARIS, LIMA)]
ONE = BOTH[0]
SCORES = [  # answer, reference, and whether call, names and schema are right
    (written(PARIS), ONE, "111"),
    ("I look. " + written(PARIS), ONE, "111"),
    (written(("weather", {"days": 2.0, "city": "Paris"})), ONE, "111"),
    (json.dumps({"name": "weather", "parameters": PARIS[1]}), ONE, "111"),
    (written(("weather", {"city": "Paris", "days": True})), ONE, "010"),
    (written(("weather", {"city": "Paris", "days": 3})), ONE, "011"),
    (written(("weather", {"days": 2})), ONE, "010"),
    (written(("stop", {})), ONE, "001"),
    (written(("fly", {})), ONE, "000"),
    (written(PARIS, PARIS), ONE, "000"),
    ("Paris is sunny.", ONE, "000"),
    ("<tool_call>{", ONE, "000"),
    (written(LIMA, PARIS), BOTH, "111"),
    (written(PARIS, PARIS), BOTH, "011"),
    ("Paris is sunny.", [], "111"),
    (written(PARIS), [], "000"),
]


@pytest.mark.parametrize(("answer", "reference", "right"), SCORES)
def test_calls_are_scored_by_name_schema_and_value(answer, reference, right):
    item = SuiteItem("a", (Message(Role.USER, "?"),), "a", (json.dumps(reference),), tools=TOOLS)
    names = ("tool_call", "tool_name", "tool_schema")
    found = [METRICS[name].score(ModelOutput(answer), item) for name in names]
    assert found == [float(digit) for digit in right]


def test_a_suite_with_tools_and_turns_of_tools_is_kept_whole(tmp_path):
    turns = (
        Message(Role.USER, "weather?"),
        Message(Role.ASSISTANT, "", tool_calls=(ToolCall("c", "weather", "{}"),)),
        Message(Role.TOOL, "sunny", tool_call_id="c"),
    )
    item = SuiteItem("a", turns, "a", ("[]",), tools=TOOLS)
    suite = make_suite("calls", "chat", [item], ["tool_call"], Sampling())
    with open_store(str(tmp_path / "store")) as store:
        register(store, suite)
        assert load_items(store.blobs, suite.record) == (item,)


def test_a_suite_is_read_with_tools_and_refused_with_what_is_wrong(tmp_path):
    row = {"id": "a", "prompt": "weather?", "reference": json.dumps(ONE), "tools": json.loads(TOOLS)}
    file = tmp_path / "calls.yaml"

    def read(**change):
        file.write_text(json.dumps({"name": "calls", "metrics": ["tool_call"], "items": [row | change]}))
        return read_suite(file)

    assert json.loads(read().items[0].tools) == json.loads(TOOLS)
    with pytest.raises(DataError, match="'fly', which its tools lack"):
        read(reference='{"name": "fly"}')
    with pytest.raises(DataError, match="no call of a tool"):
        read(reference='"Paris"')
    with pytest.raises(DataError, match="tool_call needs `tools`"):
        read(tools=[])
    with pytest.raises(DataError, match="names no function"):
        read(tools=[{"type": "function"}])

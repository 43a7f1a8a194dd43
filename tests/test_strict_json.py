"""What no JSON may hold is refused wherever JSON comes in: numbers that no float holds, keys given twice,
halves of surrogate pairs, depth. Numbers at the other end are read as they are."""

import math
from typing import cast

import pytest

from escultor.config import load_config
from escultor.data.containers.rows_of_files import source_of
from escultor.data.jsonl_rows import Fault, decode
from escultor.data.row_messages import tools_of
from escultor.errors import EscultorError
from escultor.evaluate.scores import read_scores
from escultor.serve.engines.upstream.reply_json import parse_json
from escultor.serve.wire.anthropic import _tool_use
from escultor.serve.wire.body_json import parsed_json
from escultor.serve.wire.errors import ApiError
from escultor.skills.schema import parsed
from escultor.skills.suite_files import read_suite
from escultor.strict_json import JsonObject, strict_loads
from escultor.text.tool_calls import calls_in
from escultor.types import ToolCall

TOO_LARGE = ("1e999", "-1e999", "1.8e308", "9" * 400, "-" + "9" * 400, "9" * 100_000, "NaN", "-Infinity")
WRONG = (*TOO_LARGE, '"\\ud800"', '{"a": 1, "a": 2}')


def in_file(name, text):
    def read(folder, value):
        path = folder / name
        path.write_text(text % value)
        if any(isinstance(row, Fault) for _, row in source_of(path).read()):
            raise ValueError(text)

    return read


def scores(folder, value):
    (folder / "s.json").write_text(f'{{"checkpoint": "c", "summary": {{"x": {value}}}}}')
    read_scores(folder / "s.json")


def suite(folder, value):
    (folder / "s.jsonl").write_text(f'{{"prompt": "a", "reference": "b", "weight": {value}}}\n')
    read_suite(folder / "s.jsonl")


DOORS = {
    "lines": in_file("a.jsonl", '{"text": "a", "n": %s}\n'),
    "array": in_file("a.json", '[{"text": "a", "n": %s}]'),
    "object over lines": in_file("b.jsonl", '{"text": "a",\n"n": [%s]}\n'),
    "own rows": lambda _, value: decode(f'{{"text": "a", "n": {value}}}'.encode()),
    "tools of a row": lambda _, value: tools_of({"tools": f'[{{"n": {value}}}]'}),
    "scores": scores,
    "suite": suite,
    "answer": lambda _, value: parsed(f"[{value}]"),
    "body": lambda _, value: parsed_json(f"[{value}]".encode()),
    "text": lambda _, value: strict_loads(f"[{value}]"),
}


@pytest.mark.parametrize("value", WRONG, ids=[each[:12] for each in WRONG])
@pytest.mark.parametrize("door", DOORS)
def test_it_is_refused_at_every_door(door, value, tmp_path):
    with pytest.raises((EscultorError, ApiError, Fault, ValueError)):
        DOORS[door](tmp_path, value)


@pytest.mark.parametrize("value", TOO_LARGE, ids=[each[:12] for each in TOO_LARGE])
def test_a_number_that_no_float_holds_stays_text_or_is_refused(value, tmp_path):
    with pytest.raises(EscultorError):
        parse_json(f"[{value}]".encode())
    (tmp_path / "a.csv").write_text(f'text,n\na,"[{value}]"\n')
    assert [cast("JsonObject", row)["n"] for _, row in source_of(tmp_path / "a.csv").read()] == [f"[{value}]"]
    written = f'{{"n": {value}}}'
    assert _tool_use(ToolCall("c", "f", written))["input"] == {"arguments": written}
    call = f'<tool_call>{{"name": "f", "arguments": {written}}}</tool_call>'
    assert calls_in(call, '[{"function": {"name": "f"}}]') == []


@pytest.mark.parametrize("value", [*TOO_LARGE[:6], ".inf", "-.inf", ".nan", "0x" + "f" * 5000])
def test_a_setting_is_a_number_that_a_float_holds(value):
    with pytest.raises(EscultorError) as refused:
        load_config(None, (f"dpo.beta={value}",))
    assert len(str(refused.value)) < 500


def test_a_date_that_is_none_is_told_as_such():
    with pytest.raises(EscultorError, match="not YAML"):
        load_config(None, ("dpo.beta=2001-99-99",))


def test_small_numbers_and_deep_values():
    assert strict_loads("[-0, 1e-999, 1.7e308]") == [0, 0.0, 1.7e308]
    assert math.copysign(1, strict_loads("-0.0")) == -1
    assert strict_loads('"\\ud83d\\ude00"') == "😀"
    with pytest.raises(ValueError, match="deep"):
        strict_loads("[" * 100_000)


def test_a_cell_holds_values_of_json_alone(tmp_path):
    cells = ["['a', (1, 2)]", "{'a': None, 'b': True}", "{1, 2}", "[b'x']", "[1j]", "['\\ud800']"]
    (tmp_path / "a.csv").write_text("n\n" + "".join(f'"{cell}"\n' for cell in cells))
    got = [cast("JsonObject", row)["n"] for _, row in source_of(tmp_path / "a.csv").read()]
    assert got == [["a", [1, 2]], {"a": None, "b": True}, *cells[2:]]

"""Metrics of calls of tools: names, arguments by schema, arguments by value. Each is 1.0 or 0.0.

A reference is JSON: one call `{"name": …, "arguments": {…}}`, or a list of calls, whose order does not count;
the empty list says that no tool is to be called.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from escultor.errors import DataError, InputError
from escultor.skills.schema import check_schema, follows, json_equal, parsed
from escultor.text.tool_calls import calls_in, tool_names
from escultor.types import SuiteItem

NamedCall = tuple[str, Any]  # a name, and arguments as a JSON value; None where they are no JSON


def right_calls(answer: str, reference: str, tools: str) -> float:
    """Whether an answer calls the reference's tools with equal arguments (true is not 1, 1.0 is 1)."""
    left = wanted_calls(reference)
    for name, arguments in made_calls(answer, tools):
        at = next((i for i, (n, a) in enumerate(left) if n == name and json_equal(a, arguments)), None)
        if at is None:
            return 0.0
        del left[at]
    return float(not left)


def right_names(answer: str, reference: str, tools: str) -> float:
    """Whether an answer calls the reference's tools, each as often."""
    made, wanted = made_calls(answer, tools), wanted_calls(reference)
    return float(sorted(name for name, _ in made) == sorted(name for name, _ in wanted))


def valid_calls(answer: str, reference: str, tools: str) -> float:
    """Whether an answer makes as many calls as the reference, all with arguments by their schemas."""
    made = made_calls(answer, tools)
    schemas = {each.get("name"): each.get("parameters") or {} for each in map(_function, json.loads(tools))}
    are_valid = all(isinstance(given, dict) and follows(given, schemas[name]) for name, given in made)
    return float(are_valid and len(made) == len(wanted_calls(reference)))


def made_calls(answer: str, tools: str) -> list[NamedCall]:
    """The calls in an answer."""
    return [(name, _value(arguments)) for name, arguments in calls_in(answer, tools)]


def wanted_calls(reference: str) -> list[NamedCall]:
    """The calls that a reference asks for. Raises DataError for one that is something else."""
    value = parsed(reference)
    calls = value if isinstance(value, list) else [value]
    for call in calls:
        if not (isinstance(call, dict) and isinstance(call.get("name"), str)):
            raise DataError(
                "a reference is no call of a tool", reference[:80], '{"name": …, "arguments": {…}}'
            )
    return [(call["name"], _value(call.get("arguments", {}))) for call in calls]


def item_problems(item: SuiteItem) -> Iterator[str]:
    """What is wrong with an item's tools, and with the calls that are its references."""
    try:
        names = tool_names(json.loads(item.tools))
        for function in map(_function, json.loads(item.tools)):
            check_schema(function.get("parameters") or {}, f"the parameters of {function['name']}")
        called = {name for reference in item.references for name, _ in wanted_calls(reference)}
    except (DataError, InputError, ValueError) as error:
        yield f"item {item.id!r}: {error}"
    else:
        if unknown := sorted(called - set(names)):
            yield f"item {item.id!r}: its reference calls {unknown[0]!r}, which its tools lack"


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    return tool.get("function", tool)


def _value(arguments: Any) -> Any:
    """Arguments as a value; they may be JSON text. None for text that is none."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return parsed(arguments)
    except DataError:
        return None

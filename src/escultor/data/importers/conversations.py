"""Rows of conversations in other formats as rows of ours (see `escultor.data.jsonl`), by pure functions.

openai-chat        {"messages": [{"role", "content", "weight"?}, …]}: as ours
openai-preference  {"input": {"messages": […]}, "preferred_output": […], "non_preferred_output": […]}
                   (both: OpenAI's fine-tuning guide, supervised and direct preference)
sharegpt           {"conversations": [{"from": "human" | "gpt" | "system", "value"}, …], "system"?},
                   with {"chosen": {"from", "value"}, "rejected": …} a pair, as LLaMA-Factory has it
trl                prompt and completion, chosen and rejected, with a label or as messages: as ours
"""

from __future__ import annotations

from typing import Any

from escultor.data.jsonl_rows import Fault, Skip, short
from escultor.strict_json import JsonObject

_SHAREGPT = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "assistant", "model"), "assistant"),
    "system": "system",
}
_SHAREGPT_KEYS = ("conversations", "system", "chosen", "rejected", "id")
_TOOLS = ("function_call", "observation", "tool", "function", "tool_call", "tool_response")


def openai_preference(row: JsonObject) -> JsonObject:
    """A row of OpenAI's preference format."""
    prompt = row.get("input")
    if not isinstance(prompt, dict):
        raise Fault("`input` is of the wrong type", short(prompt), '{"messages": […]}')
    return {
        "prompt": _list(prompt, "messages"),
        "chosen": _list(row, "preferred_output"),
        "rejected": _list(row, "non_preferred_output"),
        "tools": prompt.get("tools"),
        **_without(row, "input", "preferred_output", "non_preferred_output"),
    }


def sharegpt(row: JsonObject) -> JsonObject:
    """A row of ShareGPT's format, without its id: dumps repeat ids for the parts of one conversation."""
    messages = [_turn(turn) for turn in _list(row, "conversations")]
    if isinstance(row.get("system"), str) and row["system"].strip():
        messages.insert(0, {"role": "system", "content": row["system"]})
    rest = _without(row, *_SHAREGPT_KEYS)
    if "chosen" in row or "rejected" in row:
        sides = {side: [_turn(row.get(side))] for side in ("chosen", "rejected")}
        return {"prompt": messages, **sides, **rest}
    return {"messages": messages, **rest}


def _without(row: JsonObject, *keys: str) -> JsonObject:
    return {key: value for key, value in row.items() if key not in keys}


def _list(row: JsonObject, key: str) -> list[Any]:
    value = row.get(key)
    if not isinstance(value, list):
        raise Fault(f"`{key}` is of the wrong type", short(value), "a list of messages")
    return value


def _turn(value: Any) -> JsonObject:
    """A message of ours from a turn of ShareGPT's. Raises Skip for tool calls."""
    if not isinstance(value, dict) or not value.keys() >= {"from", "value"}:
        raise Fault("a turn cannot be read", short(value), '{"from": …, "value": TEXT}')
    if value["from"] in _TOOLS:
        raise Skip("tool calls")
    role = _SHAREGPT.get(value["from"]) if isinstance(value["from"], str) else None
    if role is None:
        raise Fault("a turn is from an unknown role", short(value["from"]), ", ".join(_SHAREGPT))
    return {"role": role, "content": value["value"]}

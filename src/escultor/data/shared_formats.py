"""Rows in the two formats that most trainers read: Alpaca's, of one instruction, and ShareGPT's, of turns,
with the keys that LLaMA-Factory has for preferences (`chosen`, `rejected`) and verdicts (`kto_tag`).

A row is given as `messages` of OpenAI's form, with `tools`, and with `chosen` and `rejected` messages or a
`label` where it is a pair or a verdict. Reasoning is written within the answer, as `<think>`.
"""

from __future__ import annotations

import json
from typing import Any

from escultor.errors import DataError
from escultor.strict_json import JsonObject, strict_loads

_TURNS = {"user": "human", "assistant": "gpt", "tool": "observation"}
_OTHERS = "use --format openai, trl or jsonl"


def alpaca(row: JsonObject) -> JsonObject:
    """Instruction, output and, where there are any, system prompt and earlier questions and answers, all of
    which are learnt by those who read this format. Raises DataError for tools and any other order of turns,
    and for earlier answers that are not to be learnt."""
    if "text" in row:
        return row
    messages, sides = list(row["messages"]), _sides(row)
    if "tools" in row:
        raise DataError("Alpaca's format has no tools", None, "questions and answers", _OTHERS)
    system = messages.pop(0) if messages and messages[0]["role"] in ("system", "developer") else None
    made: JsonObject = {"output": _said(messages.pop())} if not sides else {}
    roles = [message["role"] for message in messages]
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        raise DataError("Alpaca's format has no such turns", roles, "questions and answers in turn", _OTHERS)
    history = [[_said(q), _said(a)] for q, a in zip(messages[:-1:2], messages[1::2], strict=True)]
    is_context = [message.get("weight") == 0 for message in messages[1::2]]
    if any(is_context) and not sides and "label" not in row:
        what = "Alpaca's format has no answers that are not learnt"
        raise DataError(what, f"{sum(is_context)} of weight 0", "earlier answers that are learnt", _OTHERS)
    made = {"instruction": _said(messages[-1]), "input": "", **made, **sides}
    made |= {"system": _said(system)} if system else {}
    return made | ({"history": history} if history else {}) | _label(row)


def sharegpt(row: JsonObject) -> JsonObject:
    """Turns of `from` and `value`, with `weight` 0 for those that are not learnt, a system prompt, and tools
    as JSON text. Calls of tools become turns of their own, without their ids. Raises DataError for an answer
    of text and calls."""
    if "text" in row:
        return row
    messages = list(row["messages"])
    system = messages.pop(0) if messages and messages[0]["role"] in ("system", "developer") else None
    made: JsonObject = {"conversations": [_turn(message) for message in messages]}
    made |= {side: _turn(row[side][0]) for side in ("chosen", "rejected") if side in row}
    made |= {"system": _said(system)} if system else {}
    tools = {"tools": json.dumps(row["tools"], ensure_ascii=False)} if "tools" in row else {}
    return made | tools | _label(row)


def _turn(message: JsonObject) -> JsonObject:
    weight = {"weight": message["weight"]} if "weight" in message else {}
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    if not calls:
        return {"from": _TURNS.get(message["role"], "system"), "value": _said(message)} | weight
    if (message.get("content") or "").strip() or message.get("reasoning_content"):
        what = "ShareGPT's format has no turn of text and calls"
        raise DataError(what, [call["name"] for call in calls], "text or calls", _OTHERS)
    parsed = [{"name": call["name"], "arguments": _parsed(call["arguments"])} for call in calls]
    value = json.dumps(parsed if len(parsed) > 1 else parsed[0], ensure_ascii=False)
    return {"from": "function_call", "value": value} | weight


def _parsed(arguments: str) -> Any:
    try:
        return strict_loads(arguments)
    except ValueError:
        return arguments


def _said(message: JsonObject) -> str:
    """The text of a message with its reasoning. Raises DataError for one with more than text."""
    text = message.get("content") or ""
    if not isinstance(text, str) or message.get("tool_calls"):
        raise DataError("the format holds text alone", sorted(message), "a message of text", _OTHERS)
    reasoning = message.get("reasoning_content")
    return f"<think>\n{reasoning}\n</think>\n\n{text}" if reasoning else text


def _sides(row: JsonObject) -> JsonObject:
    return {side: _said(row[side][0]) for side in ("chosen", "rejected") if side in row}


def _label(row: JsonObject) -> JsonObject:
    return {"kto_tag": row["label"]} if "label" in row else {}

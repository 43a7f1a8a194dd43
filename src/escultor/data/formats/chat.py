"""Conversations in their many spellings as messages of ours.

Turns are {"role", "content"} or {"from", "value"}, of roles under any of their names; contents are text,
parts, or Anthropic's blocks. Turns may also be texts by turns, or a question and its answer in one object.
"""

from __future__ import annotations

import json
from typing import Any

from escultor.data.jsonl_rows import Fault, Skip, short
from escultor.data.row_messages import turn_weight
from escultor.strict_json import JsonObject, strict_loads

_NAMES_OF_ROLES = {
    "user": ("user", "human", "prompter", "customer"),
    "assistant": ("assistant", "gpt", "chatgpt", "bing", "bard", "claude", "model", "chatbot", "ai", "bot"),
    "system": ("system",),
    "developer": ("developer",),
    "tool": ("tool", "observation", "function", "function_response", "tool_response", "ipython"),
    "call": ("function_call", "tool_call"),
}
ROLES = {name: role for role, names in _NAMES_OF_ROLES.items() for name in names}
NO_ANSWER = "a prompt without an answer"
CONVERSATIONS = (
    *("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "contents", "items"),
    "chat_messages",  # Claude's export
)
_FROM = ("role", "from", "speaker", "author", "sender")
_VALUE = ("content", "value", "parts", "text", "message")
_ASKED, _ANSWERED = (
    ("user", "human", "prompt", "question", "input"),
    ("assistant", "gpt", "bot", "response", "answer", "output"),
)
_CANONICAL_ROLES = ("system", "user", "assistant")
_ROW_KEYS = (*CONVERSATIONS, "system", "systemInstruction", "system_prompt", "tools")


def conversation(row: JsonObject) -> JsonObject:
    """A row of one conversation, under any of the names of its list of turns, with what stands beside it."""
    key = next((key for key in CONVERSATIONS if row.get(key) is not None), "messages")
    messages = turns(row.get(key), key)
    if "assistant" not in [message["role"] for message in messages]:
        raise Skip(NO_ANSWER)
    system = row.get("system") or row.get("system_prompt") or row.get("systemInstruction") or None
    if system is not None and not (messages and messages[0]["role"] == "system"):
        messages = [{"role": "system", "content": _text(system, "system")}, *messages]
    # Dumps of ShareGPT's form repeat the id of a conversation for its parts.
    used = _ROW_KEYS if key == "messages" else (*_ROW_KEYS, "id")
    rest = {k: v for k, v in row.items() if k not in used}
    return {"messages": messages, **tools_of(row.get("tools")), **rest}


def turns(value: Any, key: str) -> list[JsonObject]:
    """The messages of a list of turns. Raises Fault for what is none, Skip for an empty conversation."""
    if not isinstance(value, list):
        raise Fault(f"`{key}` is of the wrong type", short(value), "a list of messages")
    if not value:
        raise Skip("empty conversation")
    messages: list[JsonObject] = []
    for i, turn in enumerate(value):
        if isinstance(turn, str):  # by turns, the user first
            turn = {"role": _CANONICAL_ROLES[1 + i % 2], "content": turn}
        is_plain = isinstance(turn, dict) and len(turn) == 2 and isinstance(turn.get("content"), str)
        if is_plain and turn.get("role") in _CANONICAL_ROLES:
            messages.append(turn)
        else:
            messages += _turn(turn, f"{key}[{i}]")
    return messages


def _turn(value: Any, key: str) -> list[JsonObject]:
    """The messages of one turn: results of tools inside a user's turn become messages of their own."""
    present = {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else {}
    if both := _exchange(present, key):
        return both
    name = next((present[k] for k in _FROM if k in present), None)
    name = name.get("role") if isinstance(name, dict) else name
    if not isinstance(name, str):
        raise Fault(f"`{key}` is not a turn", short(value), '{"role", "content"} or {"from", "value"}')
    role = ROLES.get(name.strip().lower())
    if role is None:
        raise Fault(f"`{key}` has an unknown role", short(name), ", ".join(ROLES))
    content = next((present[k] for k in _VALUE if k in present), None)
    kept = {k: v for k, v in present.items() if k not in (*_FROM, *_VALUE)}
    if role == "call":
        return [{"role": "assistant", "content": "", "tool_calls": _calls(content, key), **kept}]
    content = content.get("parts") if isinstance(content, dict) else content  # ChatGPT's export
    if isinstance(content, list):
        return _blocks(role, content, key, kept)
    if content is None and "tool_calls" not in kept and "function_call" not in kept:
        if "refusal" not in kept:
            raise Skip("a turn without content")
        content = ""
    return [{"role": role, "content": content, **kept}]


def _exchange(turn: JsonObject, key: str) -> list[JsonObject]:
    """The two messages of a turn that holds a question and its answer; none for another turn."""
    names = [next((k for k in keys if isinstance(turn.get(k), str)), None) for keys in (_ASKED, _ANSWERED)]
    if None in names or any(key in turn for key in _FROM):
        return []
    asked, answered = (turn[name] for name in names if name)
    learnt = turn_weight(turn, key)
    answer = {"role": "assistant", "content": answered} | ({} if learnt is None else {"weight": learnt})
    return [{"role": "user", "content": asked}, answer]


# --- blocks -----------------------------------------------------------------------------------


def _blocks(role: str, blocks: list[Any], key: str, kept: JsonObject) -> list[JsonObject]:
    """The messages of a turn whose content is a list of blocks: Anthropic's, OpenAI's parts, or Gemini's."""
    texts, thoughts, calls = [], [], []
    results: list[JsonObject] = []
    for block in blocks:
        if isinstance(block, str):
            texts.append(block)
            continue
        if not isinstance(block, dict):
            raise Fault(
                f"`{key}` has a part that is no object", short(block), '{"type": "text", "text": TEXT}'
            )
        kind = block.get("type") or next((k for k in ("text", "functionCall", "toolUse") if k in block), "")
        if kind in ("text", "input_text", "output_text"):
            texts.append(_text(block.get("text"), key))
        elif kind == "thinking":
            thoughts.append(_text(block.get("thinking"), key))
        elif kind == "tool_use":
            function = {"name": block.get("name"), "arguments": _json(block.get("input", {}))}
            calls.append({"id": str(block.get("id") or ""), "type": "function", "function": function})
        elif kind == "tool_result":
            text = _text(block.get("content") or "", key)
            results.append({"role": "tool", "content": text, "tool_call_id": block.get("tool_use_id") or ""})
        else:
            raise Skip(f"content that is no text: {short(kind or sorted(block))}")
    message: JsonObject = {"role": role, "content": "".join(texts), **kept}
    message |= {"reasoning_content": "".join(thoughts)} if thoughts else {}
    message |= {"tool_calls": calls} if calls else {}
    is_said = texts or calls or thoughts or not results
    return [*results, message] if is_said else results


def _text(value: Any, key: str) -> str:
    """The text of a content that may be a list of text blocks, or wrap them as `parts`."""
    if isinstance(value, dict):
        value = value.get("parts", value.get("text"))
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise Fault(f"`{key}` is of the wrong type", short(value), "text or a list of parts")
    parts = [part.get("text") if isinstance(part, dict) else part for part in value]
    if not all(isinstance(part, str) for part in parts):
        raise Skip("content that is no text")
    return "".join(part for part in parts if part)


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _calls(value: Any, key: str) -> list[JsonObject]:
    """The calls that a turn of ShareGPT's `function_call` writes as JSON: one, or a list."""
    try:
        calls = strict_loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise Fault(f"`{key}` is not a call of a tool", short(value), "its JSON") from error
    calls = calls if isinstance(calls, list) else [calls]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        raise Fault(f"`{key}` is not a call of a tool", short(value), '{"name": TEXT, "arguments": {…}}')
    functions = [
        {"name": c["name"], "arguments": _json(c.get("arguments", c.get("parameters", {})))} for c in calls
    ]
    return [{"id": "", "type": "function", "function": function} for function in functions]


def tools_of(value: Any) -> JsonObject:
    """A row's tools in OpenAI's form, from it, its JSON text, or Anthropic's `input_schema`."""
    if isinstance(value, str):
        try:
            value = strict_loads(value) if value.strip() else None
        except ValueError as error:
            raise Fault("`tools` is not JSON", short(value), "a list of tools") from error
    if not value:
        return {}
    if not isinstance(value, list):
        raise Fault("`tools` is of the wrong type", short(value), "a list of tools")
    return {"tools": [_tool(each) for each in value]}


def _tool(value: Any) -> Any:
    if not isinstance(value, dict) or "function" in value or "name" not in value:
        return value
    function = {k: v for k, v in value.items() if k != "input_schema"}
    if "input_schema" in value:
        function["parameters"] = value["input_schema"]
    return {"type": "function", "function": function}

"""Messages and answers in the forms that tracing tools and chat APIs record them in, as messages of ours.

A message is an object with role and content (text or parts: OpenAI, Anthropic), one of LangChain's (`type`
and `content`, or `id` and `kwargs`), or an object that holds one as `message`. What a program was given is
a list of them, an object that has one, a plain text, or an object with one obvious text; what it gave back,
likewise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from escultor.data.jsonl_rows import Fault, Skip, short
from escultor.strict_json import JsonObject
from escultor.types import FinishReason, Message, Role, ToolCall

MAX_DEPTH = 8  # of objects that hold what was given
_ROLES = {
    **dict.fromkeys(("user", "human", "humanmessage", "humanmessagechunk", "customer"), Role.USER),
    **dict.fromkeys(("assistant", "ai", "model", "bot", "chatbot", "gpt", "aimessage"), Role.ASSISTANT),
    **dict.fromkeys(("aimessagechunk", "chatmessage"), Role.ASSISTANT),
    **dict.fromkeys(("system", "systemmessage"), Role.SYSTEM),
    **dict.fromkeys(("developer",), Role.DEVELOPER),
    **dict.fromkeys(("tool", "function", "toolmessage", "functionmessage", "ipython"), Role.TOOL),
}
_TEXT_PARTS = ("text", "input_text", "output_text")
_REASONING_PARTS = ("thinking", "reasoning", "reasoning_content")
_CHOICES = ("choices", "generations", "candidates")
_THOUGHTS = (("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<reasoning>", "</reasoning>"))
_LISTS = ("messages", "input_messages", "chat_history", "conversation")
_QUESTIONS = [
    "input",
    "question",
    "prompt",
    "query",
    "instruction",
    "message",
    "user_input",
    "user_message",
    "user_query",
    "content",
    "text",
    "inputs",
    "request",
]
_ANSWERS = [
    "output",
    "answer",
    "response",
    "completion",
    "generation",
    "result",
    "message",
    "content",
    "text",
    "output_text",
    "outputs",
]
_FINISH: dict[Any, FinishReason] = {
    **dict.fromkeys(("length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "incomplete"), "length"),
    **dict.fromkeys(("error", "failed"), "error"),
    **dict.fromkeys(("cancelled", "canceled", "abort"), "cancelled"),
}
NO_TEXT = "content that is no text, such as a picture"


def conversation(given: Any, depth: int = 0) -> tuple[Message, ...]:
    """The messages of what a program was given. Raises Skip if it is no conversation."""
    if isinstance(given, str):
        return (Message(Role.USER, given),) if given.strip() else ()
    if isinstance(given, list) and given and depth < MAX_DEPTH:
        return messages_of(given)
    if isinstance(given, dict) and given and depth < MAX_DEPTH:
        if _is_message(given):
            return messages_of([given])
        for key in _LISTS:
            if isinstance(given.get(key), list) and given[key]:
                system = given.get("system") or given.get("instructions")
                first = messages_of([{"role": "system", "content": system}]) if system else ()
                return first + messages_of(given[key])
        if args := given.get("kwargs") or given.get("args"):
            return conversation(args, depth + 1)
        keys = [key for key in _QUESTIONS if given.get(key)] or (list(given) if len(given) == 1 else [])
        if keys:
            return conversation(given[keys[0]], depth + 1)
    raise Skip("what was asked is no conversation")


def unused_inputs(given: Any) -> list[str]:
    """The keys of what was given that `conversation` does not use and that hold text or lists: a context,
    documents, variables."""
    if (
        not isinstance(given, dict)
        or _is_message(given)
        or any(given.get(key) for key in (*_LISTS, "kwargs", "args"))
    ):
        return []
    question = next((key for key in _QUESTIONS if given.get(key)), None)
    rest = {key: value for key, value in given.items() if key != question}
    return [
        k
        for k, v in rest.items()
        if (isinstance(v, list | dict) and v) or (isinstance(v, str) and len(v) > 40)
    ]


def answer_of(output: Any, depth: int = 0) -> tuple[tuple[Message, ...], FinishReason]:
    """The messages that a program gave back, of which the last is the answer, and how it ended. Raises Skip
    if there is none."""
    finish: FinishReason = "stop"
    if isinstance(output, str):
        return (split_thoughts(Message(Role.ASSISTANT, output)),), finish
    if isinstance(output, list) and output and depth < MAX_DEPTH:
        if isinstance(output[0], dict) and output[0].get("type") in _TEXT_PARTS:
            return (_message(Role.ASSISTANT, {"content": output}),), finish
        if not any(_is_message(each) for each in _flat(output)):
            return answer_of(output[0], depth + 1)
        messages = messages_of(output, Role.ASSISTANT)
        last = max((i for i, m in enumerate(messages) if m.role is Role.ASSISTANT), default=-1)
        if last >= 0:
            return messages[: last + 1], finish
    if isinstance(output, dict) and output and depth < MAX_DEPTH:
        ended = output.get("finish_reason") or output.get("stop_reason") or output.get("finishReason")
        finish = _FINISH.get(ended if isinstance(ended, str) else None, "stop")
        if _is_message(output):
            return messages_of([output], Role.ASSISTANT), finish
        keys = [key for key in (*_CHOICES, "messages", *_ANSWERS) if output.get(key)]
        if not keys and len(output) == 1:
            keys = list(output)
        if keys:
            value = output[keys[0]]
            while keys[0] in _CHOICES and isinstance(value, list) and value:
                value = value[0]  # of several answers the first
            messages, inner = answer_of(value, depth + 1)
            return messages, finish if finish != "stop" else inner
    raise Skip("no answer")


def exchange(given: Any, output: Any) -> tuple[tuple[Message, ...], Message, FinishReason]:
    """The prompt, the answer and how it ended. A program that gives back the whole conversation repeats
    what it was given, which is then left out."""
    prompt = conversation(given)
    (*before, answer), finish = answer_of(output)
    repeated = tuple(before[: len(prompt)]) == prompt
    return (tuple(before) if repeated else prompt + tuple(before)), answer, finish


def split_thoughts(message: Message) -> Message:
    """The message with the reasoning that its text begins with, in tags, kept apart."""
    text = message.content.lstrip()
    for opening, closing in _THOUGHTS:
        if text.startswith(opening) and closing in text and not message.reasoning:
            thoughts, _, rest = text.removeprefix(opening).partition(closing)
            return replace(message, content=rest.strip(), reasoning=thoughts.strip())
    return message


def messages_of(values: Any, role: Role = Role.USER) -> tuple[Message, ...]:
    """The messages of a list, which may hold lists. `role` is that of a plain text. Raises Fault for what
    is no message, Skip for content that is no text."""
    messages: list[Message] = []
    for value in _flat(values):
        messages += [Message(role, value)] if isinstance(value, str) else _messages(value, role)
    return tuple(messages)


def _flat(values: Any) -> Iterator[Any]:
    for value in values if isinstance(values, list) else [values]:
        if isinstance(value, list):
            yield from value  # one list within another, as LangChain's batches are
        else:
            yield value


def _is_message(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    inner = value.get("kwargs") or value.get("data")
    is_langchain = isinstance(inner, dict) and "content" in inner and ("id" in value or "type" in value)
    is_plain = _role(value) is not None and ("content" in value or "tool_calls" in value or "parts" in value)
    return is_langchain or is_plain or _is_message(value.get("message"))


def _role(value: JsonObject) -> Role | None:
    names = [value.get("role"), value.get("type")]
    if isinstance(value.get("id"), list) and value["id"]:
        names.append(value["id"][-1])
    return next((_ROLES[n.lower()] for n in names if isinstance(n, str) and n.lower() in _ROLES), None)


def _messages(value: Any, role: Role) -> list[Message]:
    """The message of an object; Anthropic's results of tools are messages of their own."""
    if isinstance(value, dict) and isinstance(value.get("message"), dict):
        value = value["message"]
    if not isinstance(value, dict):
        raise Fault("a message cannot be read", short(value), "an object with role and content")
    inner = value.get("kwargs") or value.get("data")
    body = inner if isinstance(inner, dict) and "content" in inner else value
    own = _role(value) or _role(body) or (role if "role" not in value else None)
    if own is None:
        raise Fault("a message has an unknown role", short(value.get("role")), [str(r) for r in Role])
    content = body.get("content")
    parts = content if isinstance(content, list) else []
    results = [p for p in parts if isinstance(p, dict) and p.get("type") == "tool_result"]
    tools = [
        Message(Role.TOOL, text_of(p.get("content")), tool_call_id=str(p.get("tool_use_id") or ""))
        for p in results
    ]
    if results and len(results) == len(parts):
        return tools
    return [*tools, _message(own, {**body, "content": [p for p in parts if p not in results] or content})]


def _message(role: Role, body: JsonObject) -> Message:
    content = body.get("content", body.get("parts"))
    parts = content if isinstance(content, list) else []
    thoughts = [p for p in parts if isinstance(p, dict) and p.get("type") in _REASONING_PARTS]
    uses = [p for p in parts if isinstance(p, dict) and p.get("type") in ("tool_use", "function_call")]
    text = text_of([p for p in parts if p not in thoughts and p not in uses] if parts else content)
    reasoning = body.get("reasoning_content") or body.get("reasoning") or body.get("thinking")
    said = [str(p.get("thinking") or p.get("text") or p.get("reasoning") or "") for p in thoughts]
    calls = body.get("tool_calls")
    calls = [*(calls if isinstance(calls, list) else []), *uses]
    is_tool = role is Role.TOOL
    message = Message(
        role,
        text,
        reasoning=reasoning if isinstance(reasoning, str) else "\n".join(filter(None, said)),
        tool_calls=tuple(_call(call) for call in calls) if role is Role.ASSISTANT else (),
        tool_call_id=str(body.get("tool_call_id") or "") if is_tool else "",
        name=body["name"] if is_tool and isinstance(body.get("name"), str) else "",
    )
    return split_thoughts(message) if role is Role.ASSISTANT else message


def _call(call: Any) -> ToolCall:
    """A call in the forms of OpenAI (`function`), LangChain (`name`, `args`) and Anthropic (`name`,
    `input`)."""
    call = call.get("tool_call", call) if isinstance(call, dict) else {}
    body = call.get("function") if isinstance(call.get("function"), dict) else call
    arguments = next((body[key] for key in ("arguments", "args", "input") if key in body), "{}")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    if not isinstance(body.get("name"), str):
        raise Fault("a call of a tool cannot be read", short(call), "its name and arguments")
    return ToolCall(str(call.get("id") or call.get("call_id") or ""), body["name"], text)


def text_of(content: Any) -> str:
    """The text of a content. Raises Skip for parts that are no text."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        return _part(content)
    if isinstance(content, list):
        return "".join(part if isinstance(part, str) else _part(part) for part in content)
    raise Fault("a content is of the wrong type", short(content), "text or parts")


def _part(part: Any) -> str:
    if (
        isinstance(part, dict)
        and isinstance(part.get("text"), str)
        and part.get("type", "text") in _TEXT_PARTS
    ):
        return part["text"]
    if isinstance(part, dict) and isinstance(part.get("refusal"), str):
        return part["refusal"]
    raise Skip(NO_TEXT)

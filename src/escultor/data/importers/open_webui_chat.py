"""A chat of Open WebUI: a tree of messages, each with its answers by regeneration or by models side by
side.

A message holds its text as `content`, and since version 0.6.4 its parts as `output` (reasoning,
function_call, function_call_output, message). Older texts have reasoning and calls of tools as blocks
`<details type="…">`. A text that was edited in place keeps the generated one as `originalContent`; "save as
copy" makes a sibling that shares the parts and the feedback of the answer it was made from.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from escultor.data.importers import dialogues
from escultor.data.importers.session import answer_id, objects
from escultor.data.jsonl_rows import Fault, Skip, short
from escultor.strict_json import JsonObject, strict_loads
from escultor.types import FinishReason, Interaction, Lineage, Message, Messages, Relation, Role, ToolCall

MAX_MESSAGES = 1000  # before an answer
MAX_SIBLINGS = 200  # answers to one message
FILES = "an answer about a file or picture, which is not text"
# Neither class holds `<`, so that an unclosed tag costs no more than its own length.
_TAG = re.compile(r"<details\b([^<>]*+)>|</details>")
_ATTRIBUTE = re.compile(r'(?<![a-z_])([a-z_]++)="([^"]*+)"')
_SUMMARY = re.compile(r"<summary>[^<]*+</summary>")
_BLOCKS = ("reasoning", "tool_calls", "code_interpreter")


class Answer(NamedTuple):
    """An answer as it was generated, what led to it, and the text a person made of it."""

    prompt: Messages
    message: Message
    edited: str | None
    finish: FinishReason


@dataclass(slots=True)
class ChatTree:
    """A chat's messages by id. `owner` is the user's id, where it is known."""

    id: str
    owner: str | None
    system: str
    messages: dict[str, JsonObject]
    roots: list[str]  # the messages without a parent
    row_of: Callable[[str], Interaction | None]  # the row of an answer that this gateway served

    @classmethod
    def read(cls, id: str, record: Any, row_of: Callable[[str], Interaction | None]) -> ChatTree:
        """The chat of an exported record, or of the snapshot within feedback: empty if it holds none."""
        record = record if isinstance(record, dict) else {}
        body = record["chat"] if isinstance(record.get("chat"), dict) else record
        params = body.get("params")
        system = (params.get("system") if isinstance(params, dict) else None) or body.get("system")
        owner, messages = record.get("user_id"), _messages_by_id(body)
        return cls(
            id=id,
            owner=owner if isinstance(owner, str) and owner else None,
            system=system if isinstance(system, str) else "",
            messages=messages,
            roots=[id for id, message in messages.items() if message["parentId"] not in messages],
            row_of=row_of,
        )

    def target(self, message: str) -> str:
        """The id of the interaction that a message is: of the row that this gateway recorded when it served
        the answer, otherwise one of the chat's and the message's."""
        row = self.row_of(message)
        return self.own_id(message) if row is None else row.id

    def own_id(self, message: str) -> str:
        """The id of an imported answer."""
        return answer_id(f"{self.id}/{message}")

    def answers(self) -> list[str]:
        """The messages that are answers: of the assistant, generated whole or in part, no copies."""
        found = [id for id, m in self.messages.items() if m.get("role") == "assistant"]
        return [id for id in found if not self.is_failed(id) and self.copied_from(id) is None]

    def siblings(self, id: str) -> list[str]:
        """The messages with the same parent and role, in the order in which they were made."""
        parent, role = self.messages[id]["parentId"], self.messages[id].get("role")
        children = self.messages[parent]["childrenIds"] if parent in self.messages else self.roots
        if len(children) > MAX_SIBLINGS:
            raise Fault("a message has too many answers", len(children), MAX_SIBLINGS)
        known = dict.fromkeys(c for c in children if c in self.messages)
        found = [c for c in known if self.messages[c].get("role") == role]
        return found if id in found else [*found, id]

    def alternatives(self, id: str) -> list[str]:
        """The answers to the same message, this one included."""
        return [c for c in self.siblings(id) if not self.is_failed(c) and self.copied_from(c) is None]

    def is_failed(self, id: str) -> bool:
        """Whether nothing was generated."""
        message = self.messages[id]
        return bool(message.get("error")) or not (message.get("content") or message.get("output"))

    def copied_from(self, id: str) -> str | None:
        """The answer that a person copied and edited to make this one."""
        marks = _marks(self.messages[id])
        earlier = self.siblings(id)
        earlier = earlier[: earlier.index(id)]
        return next((c for c in earlier if marks & _marks(self.messages[c])), None) if marks else None

    def version(self, id: str) -> Any:
        """The model that answered; in the arena, the one behind its name."""
        return self.messages[id].get("selectedModelId") or self.messages[id].get("model")

    def answer(self, id: str) -> Answer:
        """An answer with its prompt. Raises Skip if it cannot be used as text, Fault if it is broken."""
        message = self.messages[id]
        content, original = _content(message), message.get("originalContent")
        generated = original if isinstance(original, str) and original.strip() else content
        steps = _steps(generated, message.get("output"))
        now = _steps(content, message.get("output"))[-1].content
        # An edit in place may leave no trace of the first text in the chat; the row that was served has it.
        row = self.row_of(id)
        said = steps[-1].content if row is None or not row.answer else row.answer.strip()
        edited = now if now and now != said else None
        return Answer((*self._prompt(id), *steps[:-1]), steps[-1], edited, _finish(message))

    def lineage(self, id: str) -> Lineage | None:
        """What the answer continues: one regenerated by the same column, one to the question before it was
        edited, or the answer before."""
        message = self.messages[id]
        siblings = self.siblings(id)
        column = message.get("modelIdx")
        for other in reversed(siblings[: siblings.index(id)]):
            if self.messages[other].get("modelIdx") == column and not self.is_failed(other):
                return Lineage(self.target(other), Relation.REGENERATE)
        question = message["parentId"]
        if question not in self.messages:
            return None
        earlier = self.siblings(question)
        for other in reversed(earlier[: earlier.index(question)]):
            if child := self._first_answer(other):
                return Lineage(self.target(child), Relation.EDIT_PROMPT)
        before = self.messages[question]["parentId"]
        if before not in self.messages or self.is_failed(before):
            return None
        is_answer = self.messages[before].get("role") == "assistant"
        return Lineage(self.target(before), Relation.CONTINUE) if is_answer else None

    def _first_answer(self, question: str) -> str | None:
        children = self.messages[question]["childrenIds"]
        known = [c for c in children if c in self.messages and not self.is_failed(c)]
        return next((c for c in known if self.messages[c].get("role") == "assistant"), None)

    def _prompt(self, id: str) -> Messages:
        """The messages that lead to an answer, oldest first."""
        path: list[str] = []
        seen = {id}
        parent = self.messages[id]["parentId"]
        while parent in self.messages:
            if parent in seen:
                raise Fault("the history of the chat is a circle", short(parent), "a tree of messages")
            if len(seen) > MAX_MESSAGES:
                raise Skip(f"an answer behind more than {MAX_MESSAGES:,} messages")
            seen.add(parent)
            path.append(parent)
            parent = self.messages[parent]["parentId"]
        messages: list[Message] = [Message(Role.SYSTEM, self.system)] if self.system.strip() else []
        for each in reversed(path):
            message = self.messages[each]
            if message.get("role") == "assistant":
                messages += [] if self.is_failed(each) else _steps(_content(message), message.get("output"))
            else:
                if message.get("files"):
                    raise Skip(FILES)
                messages += dialogues.messages_of(
                    [{"role": message.get("role"), "content": message.get("content")}]
                )
        return tuple(messages)


def _messages_by_id(body: JsonObject) -> dict[str, JsonObject]:
    """The messages of a chat's history; of an old chat, which only has a list, one after the other."""
    history = body.get("history")
    messages = history.get("messages") if isinstance(history, dict) else None
    if isinstance(messages, dict) and messages:
        return {id: _tidy(m) for id, m in messages.items() if isinstance(m, dict)}
    listed = objects(body.get("messages"))
    ids = [str(m.get("id") or i) for i, m in enumerate(listed)]
    chain = zip(ids, listed, [None, *ids], [*([each] for each in ids[1:]), []], strict=False)
    return {id: _tidy({"childrenIds": kids, "parentId": parent, **m}) for id, m, parent, kids in chain}


def _tidy(message: JsonObject) -> JsonObject:
    """The message with a parent that is text or None, and a list of texts as children."""
    parent, children = message.get("parentId"), message.get("childrenIds")
    children = [c for c in children if isinstance(c, str)] if isinstance(children, list) else []
    return {**message, "parentId": parent if isinstance(parent, str) else None, "childrenIds": children}


def _content(message: JsonObject) -> str:
    """The text of a message, whose parts are joined."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    return dialogues.messages_of([{"role": "assistant", "content": content}])[0].content


def _marks(message: JsonObject) -> set[str]:
    """The ids that an answer shares with its edited copies."""
    output = message.get("output")
    items = [item.get("id") for item in objects(output)]
    return {mark for mark in [message.get("feedbackId"), *items] if isinstance(mark, str) and mark}


def _finish(message: JsonObject) -> FinishReason:
    output = message.get("output")
    items = objects(output)
    reasons = {
        i.get("status") for i in items if i.get("type") == "message" and isinstance(i.get("status"), str)
    }
    for key in ("info", "usage"):
        part = message.get(key)
        known = [part.get("done_reason"), part.get("finish_reason")] if isinstance(part, dict) else []
        reasons |= {reason for reason in known if isinstance(reason, str)}
    if reasons & {"length", "incomplete", "max_tokens"}:
        return "length"
    return "interrupted" if message.get("done") is False else "stop"


def _steps(text: str, output: Any) -> list[Message]:
    """The messages that one answer is: calls of tools with their results, then the text, last. Reasoning
    goes with the message that it precedes."""
    blocks, rest = _split(text)
    items = objects(output)
    steps, reasoning = _from_output(items) if items and not blocks else _from_blocks(blocks)
    if not rest.strip():
        rest = "".join(dialogues.text_of(i.get("content")) for i in items if i.get("type") == "message")
    return [*steps, dialogues.split_thoughts(Message(Role.ASSISTANT, rest.strip(), reasoning=reasoning))]


def _from_blocks(blocks: list[tuple[dict[str, str], str]]) -> tuple[list[Message], str]:
    steps: list[Message] = []
    thoughts: list[str] = []
    for attributes, body in blocks:
        body = _SUMMARY.sub("", body, 1).strip()
        if attributes["type"] == "reasoning":
            lines = html.unescape(body).splitlines()
            thoughts.append("\n".join(line.removeprefix(">").removeprefix(" ") for line in lines))
            continue
        name = attributes.get("name") or attributes["type"]
        arguments = _unquoted(attributes.get("arguments") or body)
        steps += _call(ToolCall(attributes.get("id", ""), name, arguments), "\n".join(thoughts))
        thoughts.clear()
        result = attributes.get("result") or attributes.get("output")
        if result is not None:
            id = attributes.get("id", "")
            steps.append(Message(Role.TOOL, _unquoted(result), tool_call_id=id, name=name))
    return steps, "\n".join(thoughts)


def _from_output(items: list[JsonObject]) -> tuple[list[Message], str]:
    steps: list[Message] = []
    thoughts: list[str] = []
    for item in items:
        if item.get("type") == "reasoning":
            thoughts.append(dialogues.text_of(item.get("content") or item.get("summary")))
        elif item.get("type") in ("function_call", "custom_tool_call"):
            arguments = item.get("arguments") or item.get("input")
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            call = ToolCall(
                str(item.get("call_id") or item.get("id") or ""), str(item.get("name") or ""), text
            )
            steps += _call(call, "\n".join(thoughts))
            thoughts.clear()
        elif item.get("type") == "function_call_output":
            result = dialogues.text_of(item.get("output"))
            steps.append(Message(Role.TOOL, result, tool_call_id=str(item.get("call_id") or "")))
    return steps, "\n".join(thoughts)


def _call(call: ToolCall, reasoning: str) -> list[Message]:
    return [Message(Role.ASSISTANT, "", reasoning=reasoning, tool_calls=(call,))]


def _unquoted(text: str) -> str:
    """The text of an attribute: HTML, within which it is JSON, at times of JSON."""
    text = html.unescape(text)
    try:
        value = strict_loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str) else text


def _split(text: str) -> tuple[list[tuple[dict[str, str], str]], str]:
    """The blocks of a text, with attributes and body, and the text around them. A block that is not closed
    ends with the text."""
    blocks: list[tuple[dict[str, str], str]] = []
    around: list[str] = []
    depth, end, start = 0, 0, 0
    attributes: dict[str, str] = {}
    for tag in _TAG.finditer(text):
        if tag[1] is None:
            depth -= bool(depth)
            if not depth and attributes:
                blocks.append((attributes, text[start : tag.start()]))
                attributes, end = {}, tag.end()
        elif depth:
            depth += 1
        elif (found := dict(_ATTRIBUTE.findall(tag[1]))).get("type") in _BLOCKS:
            around.append(text[end : tag.start()])
            attributes, depth, start = found, 1, tag.end()
    if attributes:
        return [*blocks, (attributes, text[start:])], "".join(around)
    return blocks, "".join([*around, text[end:]])

"""Trees of messages: OpenAssistant's as a conversation along the best-ranked replies and pairs by rank,
ChatGPT's export as the conversation that was shown last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from escultor.data.containers.json_stream import Numbered
from escultor.data.formats.chat import NO_ANSWER
from escultor.data.jsonl_rows import Fault, Skip, short
from escultor.strict_json import JsonObject

_ROLES = {"prompter": "user", "assistant": "assistant"}
_BESIDE_TEXT = ("user_editable_context", "model_editable_context", "thoughts", "reasoning_recap")
MAX_DEPTH = 200  # messages of a conversation


def tree_rows(row: JsonObject) -> list[JsonObject]:
    """The rows of a tree: the conversation that follows the best-ranked reply at each message, and for each
    prompt the best of its ranked replies over every other one. Deleted messages are no replies.

    Raises Fault for what is no tree, Skip for one without an answer.
    """
    root = row.get("prompt")
    if not isinstance(root, dict) or not isinstance(root.get("text"), str):
        raise Fault("`prompt` is not the first message of a tree", short(root), '{"text", "role", "replies"}')
    path, node, rows = [_message(root)], root, []
    while replies := _replies(node):
        if len(path) > MAX_DEPTH:
            raise Fault("the tree is too deep", len(path), f"{MAX_DEPTH} messages")
        path.append(_message(replies[0]))
        node = replies[0]
    last = max((i for i, message in enumerate(path) if message["role"] == "assistant"), default=0)
    if not last:
        raise Skip(NO_ANSWER)
    rows.append({"messages": path[: last + 1]})
    rows += _pairs(root)
    return rows


def _pairs(root: JsonObject) -> list[JsonObject]:
    """For every prompt of the tree the best of its ranked answers over each other one."""
    rows: list[JsonObject] = []
    waiting: list[tuple[JsonObject, list[JsonObject]]] = [(root, [_message(root)])]
    while waiting:
        node, path = waiting.pop()
        replies = _replies(node)
        ranked = [r for r in replies if r.get("rank") is not None and r.get("role") == "assistant"]
        rows += [
            {"prompt": path, "chosen": [_message(ranked[0])], "rejected": [_message(worse)]}
            for worse in ranked[1:]
            if worse["rank"] > ranked[0]["rank"]
        ]
        if len(path) < MAX_DEPTH:
            waiting += [(reply, [*path, _message(reply)]) for reply in reversed(replies)]
    return rows


def _replies(node: JsonObject) -> list[JsonObject]:
    """The replies that were not deleted, the best-ranked first, those without a rank last."""
    kept = [r for r in node.get("replies") or () if isinstance(r, dict) and not r.get("deleted")]
    return sorted(kept, key=lambda r: (r.get("rank") is None, r.get("rank") or 0))


def _message(node: JsonObject) -> JsonObject:
    role = _ROLES.get(str(node.get("role")))
    if role is None or not isinstance(node.get("text"), str):
        raise Fault(
            "a message of the tree cannot be read", short(node), '{"role": "prompter" | "assistant", "text"}'
        )
    return {"role": role, "content": node["text"]}


def chatgpt_rows(row: JsonObject) -> JsonObject:
    """The conversation that a tree of ChatGPT's export showed last; hidden and empty messages are none of it.
    Raises Skip for one with pictures, code that was run, or no answer."""
    nodes, at, path = row["mapping"], row["current_node"], []
    while isinstance(node := nodes.get(at), dict) and len(path) <= len(nodes):
        path.append(node.get("message") or {})
        at = node.get("parent")
    messages: list[JsonObject] = []
    for message in reversed(path):
        role, content = (message.get("author") or {}).get("role"), message.get("content") or {}
        parts = [part for part in content.get("parts") or () if part]
        is_hidden = (message.get("metadata") or {}).get("is_visually_hidden_from_conversation")
        if is_hidden or message.get("weight") == 0 or (content.get("content_type") == "text" and not parts):
            continue
        if role in ("system", "user", "assistant") and content.get("content_type") in _BESIDE_TEXT:
            continue
        if role and not all(isinstance(part, str) for part in parts or [None]):
            raise Skip(f"content that is no text: {short(content.get('content_type'))}")
        if role:
            messages.append({"role": role, "content": "".join(parts)})
    if "assistant" not in [message["role"] for message in messages]:
        raise Skip(NO_ANSWER)
    return {"messages": messages}


def trees_of_messages(rows: Iterable[Numbered]) -> Iterator[Numbered]:
    """The trees of a table of messages, whose rows of one tree follow each other; one in memory at a time.
    A message whose parent is not among them is a Fault."""
    tree: dict[str, JsonObject] = {}
    lines: dict[str, int] = {}
    current: Any = None
    for line, row in rows:
        if isinstance(row, Fault | Skip):
            yield line, row
            continue
        if not isinstance(row.get("message_id"), str) or not isinstance(row.get("parent_id"), str | None):
            yield line, Fault("a message has no id", short(sorted(row)), "message_id and parent_id, as text")
            continue
        is_root = row.get("parent_id") is None
        name = row.get("message_tree_id") or (row["message_id"] if is_root else current)
        if name != current:
            yield from _trees(tree, lines)
            tree, lines, current = {}, {}, name
        tree[row["message_id"]] = {**row, "replies": []}
        lines[row["message_id"]] = line
    yield from _trees(tree, lines)


def _trees(tree: dict[str, JsonObject], lines: dict[str, int]) -> Iterator[Numbered]:
    roots = []
    for id, node in tree.items():
        parent = node.get("parent_id")
        if parent is None:
            roots.append(id)
        elif parent in tree and parent != id:
            tree[parent]["replies"].append(node)
        else:
            remedy = "sort the table by message_tree_id"
            yield (
                lines[id],
                Fault("the message answers one that is not in its tree", short(parent), None, remedy),
            )
    for id in roots:
        yield lines[id], {"prompt": tree[id]}

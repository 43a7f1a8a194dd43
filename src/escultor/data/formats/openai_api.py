"""What OpenAI's API keeps of requests: stored completions, and the output of batches with their input."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from escultor.data.containers.json_stream import Numbered
from escultor.data.formats.chat import tools_of, turns
from escultor.data.jsonl_rows import Fault, Skip, short
from escultor.errors import DataError
from escultor.strict_json import JsonObject

MAX_INPUTS = 500_000  # requests of batches held in memory


def openai_stored(row: JsonObject) -> JsonObject:
    """A stored completion with its messages, which the API lists separately."""
    asked = row.get("messages", row.get("input"))
    asked = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    return {"messages": [*turns(asked, "messages"), _answer(row)], **tools_of(row.get("tools"))}


def openai_batch(row: JsonObject) -> JsonObject:
    """A line of a batch's output to which `with_inputs` has given the body of its request."""
    response = row.get("response") or {}
    if row.get("error") or response.get("status_code", 200) != 200:
        raise Skip("the request failed")
    body = row.get("body")
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        raise Fault(
            "the request of the answer is not known", short(row.get("custom_id")), "its line in --inputs"
        )
    messages = turns(body["messages"], "body.messages")
    return {"messages": [*messages, _answer(response.get("body"))], **tools_of(body.get("tools"))}


def _answer(completion: Any) -> JsonObject:
    choices = completion.get("choices") if isinstance(completion, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Fault("the completion has no answer", short(completion), '{"choices": [{"message": …}]}')
    if choices[0].get("finish_reason") == "length":
        raise Skip("the answer was cut at its length limit")
    (message,) = turns([choices[0].get("message")], "choices[0].message")
    return message


def requests_by_id(rows: Iterable[Numbered]) -> dict[str, JsonObject]:
    """The bodies of a batch's requests by `custom_id`. Raises DataError for more than `MAX_INPUTS`."""
    bodies: dict[str, JsonObject] = {}
    for _, row in rows:
        if isinstance(row, dict) and isinstance(row.get("body"), dict):
            bodies[str(row.get("custom_id"))] = row["body"]
        if len(bodies) > MAX_INPUTS:
            raise DataError(
                "the batch has too many requests", f"over {MAX_INPUTS:,}", None, "import it in parts"
            )
    return bodies

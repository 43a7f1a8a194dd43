"""What an answer has beside its text comes into the items that are made of it."""

from collections import Counter
from dataclasses import replace

from escultor.feedback.items import make_item, read_texts
from escultor.feedback.labelling_rules import Draft
from escultor.serve.in_flight import draft_interaction
from escultor.store import open_store
from escultor.types import AnswerExtras, Interaction, Message, Role, Sampling, ToolCall, ToolDefinitions

CALL = ToolCall("c1", "weather", "{}")


def logged(id, messages, **fields):
    made = draft_interaction(messages, id=id, subject="s", version="v", sampling=Sampling())
    return replace(made, answer="31 degrees", finish_reason="stop", **fields)


def draft(id):
    fields = dict.fromkeys(Draft._fields, "")
    return Draft(
        **fields
        | {
            "kind": "unpaired",
            "rule": "thumb/1",
            "answer": id,
            "chosen": id,
            "event_ids": "e",
            "desirable": True,
        }
    )


def test_calls_reasoning_tools_and_token_ids_of_a_logged_answer_are_those_of_the_item(tmp_path):
    asked = (
        Message(Role.USER, "w?"),
        Message(Role.ASSISTANT, "", tool_calls=(CALL,)),
        Message(Role.TOOL, "31"),
    )
    beside = {"reasoning": "hm", "tool_calls": (CALL,), "token_ids": "v:AAAA"}
    shown = (Message(Role.USER, "this?", parts='[{"type": "image_url"}]'),)
    rows: list[Interaction] = [logged("a", asked, tools="t", **beside), logged("b", shown)]
    counts = Counter()
    with open_store(str(tmp_path / "store")) as store:
        store.log.append(ToolDefinitions("t", '[{"type": "function"}]'), *rows)
        texts = read_texts({id: draft(id) for id in "abc"}, store.log, counts)
    item = make_item("i", 1.0, draft("a"), texts["a"])
    assert (item.prompt, item.response, item.tools) == (asked, "31 degrees", '[{"type": "function"}]')
    assert item.extras == AnswerExtras("hm", (CALL,), "v:AAAA")
    assert counts == {"left out: content that is no text: parts": 1, "left out: erased": 1}

"""Open WebUI's exports: what was rated, edited and regenerated, in the shapes its source code makes."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.config import FeedbackRules
from escultor.data.importers import events
from escultor.data.importers.events import ImportOptions, import_events
from escultor.data.importers.open_webui_chat import _split
from escultor.errors import DataError
from escultor.feedback.conversion import convert
from escultor.feedback.selection import SelectionQuery
from escultor.store import open_store
from escultor.store.feedback import live
from escultor.types import (
    Correction,
    Feedback,
    Interaction,
    Lineage,
    Message,
    Rating,
    Relation,
    Role,
    ToolCall,
)

T = 1790000000


def message(id, parent, children, role, content, **more):
    own = {"model": "m1", "done": True} if role == "assistant" else {}
    base = {"id": id, "parentId": parent, "childrenIds": children, "role": role, "content": content}
    return base | {"timestamp": T} | own | more


def chat(*messages, params=None, **more):
    by_id = {m["id"]: m for m in messages}
    body = {"title": "t", "params": params or {}, "history": {"messages": by_id, "currentId": "a"}}
    return {"id": "c", "user_id": "u1", "title": "t", "chat": body, "updated_at": T, "created_at": T} | more


def feedback(*messages, id="f1", about="a", rating=1, arena=None, user: str | None = "u1", data=None, **more):
    meta = {"chat_id": "c", "message_id": about} | ({} if arena is None else {"arena": arena})
    said = {"rating": rating, "model_id": "m1", "reason": "", "comment": "", "details": {"rating": None}}
    row = {
        "id": id,
        "user_id": user,
        "version": 0,
        "type": "rating",
        "data": said | (data or {}),
        "meta": meta,
    }
    snapshot = {"chat": chat(*messages, **more)} if messages else None
    return row | {"snapshot": snapshot, "created_at": T, "updated_at": T + 5}


def ask(*children, content: Any = "Who painted Guernica?", **more):
    return message("q", None, list(children), "user", content, **more)


def answer(content, id: str = "a", **more: Any):
    return message(id, "q", [], "assistant", content, **more)


def output(*items):
    return [{"type": "message", "id": "m", "content": [{"type": "output_text", "text": t}]} for t in items]


EDITED = {
    "of the text": {"content": "By Picasso.", "originalContent": "By Dali."},
    "of the parts": {"content": "", "originalContent": "By Dali.", "output": output("By Picasso.")},
}


@pytest.mark.parametrize("form", EDITED.values(), ids=EDITED)
def test_an_edit_in_place_corrects_what_was_generated_and_a_thumb_up_is_about_the_edit(brought, form):
    found = brought(feedback(ask("a"), answer("") | form))
    assert found.interactions["c/a"].answer == "By Dali."
    assert found.said == [("correction", "c/a", None, "By Picasso.", "u1")]
    assert found.report.counts["a thumb up of an edited answer: its correction says it"] == 1
    down = brought(feedback(ask("a"), answer("") | form, id="f2", rating=-1))
    assert ("rating", "c/a", "thumb", False, "u1") in down.said


def test_an_edited_copy_is_a_correction_and_no_answer(brought):
    original = answer("By Dali.", output=output("By Dali."), feedbackId="f1")
    copy = answer("By Picasso.", id="b", output=output("By Dali."), feedbackId="f1")
    for row in (chat(ask("a", "b"), original, copy), feedback(ask("a", "b"), original, copy, about="b")):
        found = brought(row)
        assert set(found.interactions) == {"c/a"}
        assert found.said == [("correction", "c/a", None, "By Picasso.", "u1")]


BLOCKS = {
    "a block": '<details type="reasoning" done="true" duration="3">\n<summary>Thought</summary>\n'
    "&gt; Who was it?\n&gt; Ah.\n</details>\nPicasso.",
    "parts": "Picasso.",
    "tags": "<think>\nWho was it?\nAh.\n</think>\n\nPicasso.",
}


@pytest.mark.parametrize("form", BLOCKS)
def test_reasoning_is_kept_apart_from_the_text_of_every_turn(brought, form):
    items = [
        {"type": "reasoning", "id": "r", "content": [{"type": "output_text", "text": "Who was it?\nAh."}]}
    ]
    said = answer(BLOCKS[form], output=items + output("Picasso.") if form == "parts" else None)
    more = message("q2", "a", ["b"], "user", "When?"), message("b", "q2", [], "assistant", "In 1937.")
    found = brought(
        feedback(ask("a"), said | {"childrenIds": ["q2"]}, *more, about="b"), chat(ask("a"), said)
    )
    assert found.interactions["c/a"].answer == "Picasso."
    assert found.interactions["c/a"].reasoning == "Who was it?\nAh."
    assert found.interactions["c/b"].messages[1] == Message(
        Role.ASSISTANT, "Picasso.", reasoning="Who was it?\nAh."
    )


ARGUMENTS = '{"q": "a < b"}'
BLOCK = (
    '<details type="tool_calls" done="true" id="x" name="web" arguments="&quot;{\\&quot;q\\&quot;: '
    '\\&quot;a &lt; b\\&quot;}&quot;" result="&quot;found&quot;">\n<summary>Done</summary>\n</details>'
)
TOOLS = {
    "a block": {"content": BLOCK + "\nPicasso."},
    "parts": {
        "content": "Picasso.",
        "output": [
            {"type": "function_call", "id": "i", "call_id": "x", "name": "web", "arguments": ARGUMENTS},
            {
                "type": "function_call_output",
                "call_id": "x",
                "output": [{"type": "input_text", "text": "found"}],
            },
            *output("Picasso."),
        ],
    },
}


@pytest.mark.parametrize("form", TOOLS)
def test_calls_of_tools_and_their_results_come_before_the_answer(brought, form):
    found = brought(feedback(ask("a"), answer("") | TOOLS[form])).interactions["c/a"]
    assert found.answer == "Picasso."
    _, call, result = found.messages
    assert call.tool_calls == (ToolCall("x", "web", ARGUMENTS),)
    assert (result.role, result.content, result.tool_call_id) == (Role.TOOL, "found", "x")


def test_a_block_that_is_not_closed_or_nested_costs_its_length():
    assert _split("<details" * 100_000) == ([], "<details" * 100_000)
    text = '<details type="reasoning">a<details>b</details>c</details>d'
    assert _split(text) == ([({"type": "reasoning"}, "a<details>b</details>c")], "d")
    assert _split('x<details type="reasoning">never ends') == ([({"type": "reasoning"}, "never ends")], "x")
    assert _split("<details><summary>mine</summary></details>") == (
        [],
        "<details><summary>mine</summary></details>",
    )


PICTURE = {"type": "image", "url": "data:image/png;base64,AAAA"}


@pytest.mark.parametrize(
    "question",
    [
        ask("a", files=[PICTURE]),
        ask("a", files=[{"type": "file", "id": "x"}]),
        ask(
            "a", content=[{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": "x"}}]
        ),
    ],
)
def test_an_answer_about_a_picture_or_file_is_counted_and_its_thumb_kept(brought, question):
    found = brought(feedback(question, answer("A red bicycle.")))
    assert (found.interactions, [each[0] for each in found.said]) == ({}, ["rating"])
    assert found.report.counts["feedback kept, without the answer it is about"] == 1


def test_the_system_prompt_of_a_chat_is_its_first_message(brought):
    found = brought(feedback(ask("a"), answer("Arr."), params={"system": "Talk like a pirate."}))
    assert found.interactions["c/a"].messages[0] == Message(Role.SYSTEM, "Talk like a pirate.")


@pytest.mark.parametrize(
    "failed", [{"error": {"content": "500"}}, {"error": True, "content": "Pab"}, {"content": ""}]
)
def test_a_failed_generation_is_no_answer(brought, failed):
    row = answer("", output=[]) | failed
    found = brought(feedback(ask("a"), row, rating=-1), chat(ask("a"), row))
    assert (found.interactions, found.feedback) == ({}, [])
    assert found.report.counts["a failed generation is no answer"] == 2


@pytest.mark.parametrize(
    ("more", "finish"),
    [
        ({}, "stop"),
        ({"done": False}, "interrupted"),
        ({"info": {"done_reason": "length"}}, "length"),
        ({"usage": {"finish_reason": "length"}}, "length"),
        ({"output": [{"type": "message", "status": "incomplete", "content": []}]}, "length"),
    ],
)
def test_how_an_answer_ended(brought, more, finish):
    assert brought(feedback(ask("a"), answer("Pablo", **more))).interactions["c/a"].finish_reason == finish


def test_the_arena_names_the_model_behind_it_and_the_better_answer(brought):
    two = [answer("Dali.", selectedModelId="m7"), answer("Picasso.", id="b", selectedModelId="m8")]
    found = brought(
        feedback(ask("a", "b"), *two, rating=-1, arena=True),
        feedback(ask("a", "b"), *two, id="f2", about="b", arena=True),
    )
    assert {id: i.version for id, i in found.interactions.items()} == {"c/a": "m7", "c/b": "m8"}
    assert {each[3] for each in found.said if each[0] == "choice"} == {"c/b"}


def test_regenerated_and_side_by_side_answers_have_their_lineage_and_votes(brought, store):
    first, again = answer("Dali.", modelIdx=0), answer("Picasso.", id="b", modelIdx=0)
    beside = answer("Miro.", id="d", modelIdx=1)
    rows = (
        feedback(ask("a", "b", "d"), first, again, beside, about="b"),
        feedback(ask("a", "b", "d"), first, again, beside, about="d", id="f2", rating=-1),
    )
    found = brought(*rows)
    assert {id: i.lineage for id, i in found.interactions.items()} == {
        "c/a": None,
        "c/b": Lineage("c/a", Relation.REGENERATE),
        "c/d": None,
    }
    assert [each[:4] for each in found.said] == [
        ("rating", "c/b", "thumb", True),
        ("rating", "c/d", "thumb", False),
    ]


def test_an_edited_question_and_a_next_turn_have_their_lineage(brought):
    edited = message("q2", None, ["b"], "user", "Who painted it?")
    later = message("q3", "b", ["d"], "user", "When?"), message("d", "q3", [], "assistant", "1937.")
    b = message("b", "q2", ["q3"], "assistant", "Picasso.")
    found = brought(chat(ask("a"), answer("Dali."), edited, b, *later)).interactions
    assert found["c/b"].lineage == Lineage("c/a", Relation.EDIT_PROMPT)
    assert found["c/d"].lineage == Lineage("c/b", Relation.CONTINUE)


def test_one_answer_in_both_exports_of_a_server_is_there_once(brought, store):
    rated = answer(
        "Picasso.", annotation={"rating": 1, "reason": "accurate"}, feedbackId="f1", timestamp=T + 1
    )
    brought(feedback(ask("a"), answer("Picasso.")))
    found = brought(chat(ask("a"), rated))
    assert store.log.count(Interaction) == 1
    assert (found.report.read["interactions"], found.report.counts["already recorded"]) == (0, 1)
    assert events.TAKEN not in found.report.counts


def test_a_failed_answer_is_no_part_of_a_later_prompt(brought):
    failed = answer("", error={"content": "500"}) | {"childrenIds": ["q2"]}
    later = message("q2", "a", ["b"], "user", "Again?"), message("b", "q2", [], "assistant", "Picasso.")
    (found,) = brought(chat(ask("a"), failed, *later)).interactions.values()
    assert [m.content for m in found.messages] == ["Who painted Guernica?", "Again?"]


def test_a_page_of_feedback_stands_for_its_items(brought):
    rows = [feedback(ask("a"), answer("Picasso."), id=f"f{i}") for i in range(3)]
    assert brought({"items": rows, "total": 3}).report.read["thumbs"] == 3


def test_a_changed_mind_is_a_later_event(brought):
    first, second = feedback(ask("a"), answer("Picasso.")), feedback(ask("a"), answer("Picasso."), rating=-1)
    found = brought(first, second | {"updated_at": T + 100})
    assert [(e.id, e.value) for e in found.feedback] == [
        (f"owui-f1-{T + 5}", True),
        (f"owui-f1-{T + 100}", False),
    ]


def test_unknown_people_are_one_for_each_chat(brought):
    rows = [feedback(ask("a"), answer("Picasso."), id=f"f{i}", user=None, user_id=None) for i in range(2)]
    rows[1]["meta"]["chat_id"] = "other"
    found = brought(*rows)
    assert len({event.subject for event in found.feedback}) == 2
    assert found.report.counts["people unknown: kept apart by chat"] == 2


def test_a_fault_is_named_by_the_feedback_and_the_others_are_read(brought):
    rows = [feedback(ask("a"), answer("Picasso."), id=f"f{i}") for i in range(5)]
    rows[3]["updated_at"] = None
    rows[4]["snapshot"]["chat"]["chat"]["history"]["messages"]["q"]["content"] = [
        {"type": "text", "text": "hi"}
    ]
    found = brought(*rows)
    assert found.report.broken == 1
    (places,) = (p for reason, p in found.report.places.items() if reason.startswith("broken: `updated_at`"))
    assert places == ["f3 (line 4)"]
    assert len([each for each in found.said if each[0] == "rating"]) == 4


def test_history_in_a_circle_and_old_chats_of_a_list(brought):
    circle = [message("q", "a", ["a"], "user", "x"), message("a", "q", ["q"], "assistant", "y")]
    listed = {
        "id": "o",
        "user_id": "u",
        "chat": {"messages": [ask("a") | {"parentId": "z"}, {"role": "assistant", "content": "Picasso."}]},
    }
    listed["chat"]["messages"][0].pop("parentId")
    listed["chat"]["messages"][0].pop("childrenIds")
    found = brought(feedback(*circle), listed)
    assert any("circle" in reason for reason in found.report.counts)
    assert [i.answer for i in found.interactions.values()] == ["Picasso."]


def test_history_of_years_ago_becomes_training_data(brought, store):
    years_ago = 1_600_000_000
    both = answer("Dali.", timestamp=years_ago), answer("Picasso.", id="b", timestamp=years_ago)
    rows = [
        feedback(ask("a", "b"), *both, id=id, about=id, rating=rating) | {"updated_at": years_ago}
        for id, rating in (("a", -1), ("b", 1))
    ]
    found = brought(*rows)
    assert {event.time for event in found.feedback} == {float(years_ago)}
    conversion = convert(store, FeedbackRules(), SelectionQuery(time.time()))
    assert conversion.rows["pair"] == 1


def test_what_was_said_of_an_answer_that_was_served_from_here_goes_to_its_row(brought, store):
    (imported,) = brought(chat(ask("z"), answer("Dali.", id="z") | {"model": "m0"})).interactions.values()
    row = replace(imported, id="chatcmpl-1", message="b", answer="Picasso.", version="champion")
    store.log.append(row)
    both = ask("a", "b"), answer("Dali.", modelIdx=0), answer("Miro.", id="b", originalContent="Picasso.")
    found = brought(feedback(*both, about="b", rating=-1, arena=True), chat(*both))
    assert set(found.interactions) == {"c/z", "chatcmpl-1", "c/a"}
    assert set(found.said) == {
        ("rating", "chatcmpl-1", "thumb", False, "u1"),
        ("correction", "chatcmpl-1", None, "Miro.", "u1"),
        ("choice", ("c/a", "chatcmpl-1"), "preference", "c/a", "u1"),
    }
    assert brought(feedback(about="b", id="f9")).said[-1][:2] == ("rating", "chatcmpl-1")


def test_an_edit_is_seen_against_the_answer_that_was_served(brought, store):
    (imported,) = brought(chat(ask("z"), answer("Dali.", id="z"))).interactions.values()
    store.log.append(replace(imported, id="chatcmpl-1", message="b", answer="Picasso.", version="champion"))
    found = brought(chat(ask("b"), answer("Miro.", id="b")))
    assert found.said == [("correction", "chatcmpl-1", None, "Miro.", "u1")]
    assert not brought(chat(ask("b"), answer("Picasso.", id="b"))).report.read


# --- any chat -----------------------------------------------------------------------------------

words = st.text("abc ,.!é<>&\"'\n", min_size=1, max_size=12).filter(str.strip)
answers = st.tuples(words, st.sampled_from([1, -1, None]), st.none() | words, st.booleans())
turns = st.lists(st.tuples(words, st.lists(answers, min_size=1, max_size=3)), min_size=1, max_size=3)


def talk(turns):
    """A chat of turns (a question, answers of text, rating, edit, failure) as both exports have it, and
    what it means: the answers, the thumbs and the corrections by id."""
    messages, rows, texts, thumbs, edits = {}, [], {}, {}, {}
    parent = None
    for t, (question, replies) in enumerate(turns):
        ids = [f"a{t}{i}" for i in range(len(replies))]
        if parent:
            messages[parent]["childrenIds"] = [f"q{t}"]
        messages[f"q{t}"] = message(f"q{t}", parent, ids, "user", question)
        for id, (text, rating, edit, failed) in zip(ids, replies, strict=True):
            more = {"annotation": {"rating": rating}} if rating else {}
            more |= {"error": True} if failed else {"originalContent": text} if edit else {}
            messages[id] = message(id, f"q{t}", [], "assistant", edit or text, **more)
            if rating:
                rows.append((id, rating))
            if not failed:
                texts[f"c/{id}"] = text.strip()
                if edit and edit.strip() != text.strip():
                    edits[f"c/{id}"] = edit.strip()
                if rating and not (rating == 1 and f"c/{id}" in edits):
                    thumbs[f"c/{id}"] = rating == 1
        parent = ids[-1]
    history = list(messages.values())
    rated = [feedback(*history, id=f"f{id}", about=id, rating=rating) for id, rating in rows]
    return [chat(*history)], rated, (texts, thumbs, edits)


def test_any_chat_is_read_as_it_was_meant_from_either_export_and_both(tmp_path_factory):
    @settings(max_examples=12, deadline=None)
    @given(turns)
    def law(some):
        chats, rated, expected = talk(some)
        texts, thumbs, edits = expected
        found = []
        for order in ([chats, rated], [rated, chats]):
            folder = tmp_path_factory.mktemp("talk")
            report = None
            with open_store(str(folder / "store")) as store:
                for rows in filter(None, [*order, *order]):
                    (folder / "rows.json").write_text(json.dumps(rows))
                    try:
                        report = import_events(
                            folder / "rows.json", "open-webui", store.log, ImportOptions(str)
                        )
                    except DataError:
                        report = None
                assert report is None or not report.read
                held = live([event for _, event in store.log.read(Feedback)]).values()
                found.append(
                    (
                        {i.id: i.answer for _, i in store.log.read(Interaction)},
                        {e.target: e.value for e in held if isinstance(e, Rating)},
                        {e.target: e.text for e in held if isinstance(e, Correction)},
                    )
                )
        assert found == [(texts, thumbs, edits)] * 2

    law()

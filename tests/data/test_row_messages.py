"""Conversations as people have them: turns, weights, tools, reasoning, parts, labels and nulls."""

import json
from collections import Counter

import pytest

from escultor.data.jsonl import kind_of, read_jsonl, write_jsonl
from escultor.datasets.rows import map_texts, parse_row, read_line, target_text, text_parts, write_line
from escultor.errors import DataError
from escultor.types import NO_EXTRAS, AnswerExtras, Message, Role, ToolCall

CALL = {"id": "c1", "type": "function", "function": {"name": "w", "arguments": '{"city": "Recife"}'}}
TOOL = {"type": "function", "function": {"name": "w"}}
CALLED = ToolCall("c1", "w", '{"city": "Recife"}')


def user(content, **more):
    return {"role": "user", "content": content, **more}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def read(tmp_path, *rows, kind=None):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_jsonl(path, kind or kind_of(path))


def only(tmp_path, row, kind=None):
    (item,) = read(tmp_path, row, kind=kind).items
    return item


# --- turns ------------------------------------------------------------------------------------


def test_every_answer_of_a_conversation_is_learnt_but_those_of_weight_0(tmp_path):
    turns = [user("a"), assistant("1"), user("b"), assistant("2", weight=0), user("c"), assistant("3")]
    contents = read(tmp_path, {"messages": [*turns, user("bye")]})
    (item,) = contents.items
    assert [(m.content, m.learnt) for m in item.prompt if m.role is Role.ASSISTANT] == [
        ("1", True),
        ("2", False),
    ]
    assert item.response == "3"
    assert contents.counts["turns of weight 0"] == 1
    assert contents.counts["messages after the last answer left out"] == 1


def test_the_prompt_ends_before_the_last_answer_that_is_learnt(tmp_path):
    contents = read(tmp_path, {"messages": [user("a"), assistant("1"), user("b"), assistant("2", weight=0)]})
    assert (len(contents.items[0].prompt), contents.items[0].response) == (1, "1")
    assert contents.counts["messages after the last answer left out"] == 2


@pytest.mark.parametrize("answer", [assistant("1", weight=0), assistant(" "), assistant(None)])
def test_a_conversation_without_an_answer_to_learn_is_counted(tmp_path, answer):
    with pytest.raises(DataError, match="every answer is empty, of weight 0 or bad: 1"):
        read(tmp_path, {"messages": [user("a"), answer]})


def test_an_empty_turn_is_context_and_counted(tmp_path):
    contents = read(tmp_path, {"messages": [user("a"), assistant(""), user("b"), assistant("2")]})
    assert not any(m.learnt for m in contents.items[0].prompt)
    assert contents.counts["empty turns not learnt"] == 1


def test_of_a_prompt_only_what_is_marked_is_learnt(tmp_path):
    prompt = [user("a"), assistant("1"), user("b"), assistant("2", weight=1), user("c")]
    item = only(tmp_path, {"prompt": prompt, "completion": "3"})
    assert [m.content for m in item.prompt if m.learnt] == ["2"]


def test_a_completion_of_several_messages_is_several_turns(tmp_path):
    steps = [assistant(None, tool_calls=[CALL]), {"role": "tool", "content": "31C", "tool_call_id": "c1"}]
    item = only(tmp_path, {"prompt": [user("w?")], "completion": [*steps, assistant("31 degrees")]})
    assert [m.learnt for m in item.prompt] == [False, True, False]
    assert item.response == "31 degrees"


def test_a_weight_between_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"messages\[1\].weight` is neither 0 nor 1"):
        read(tmp_path, {"messages": [user("a"), assistant("1", weight=0.5)]})


def test_a_weight_of_a_user_is_counted(tmp_path):
    contents = read(tmp_path, {"messages": [user("a", weight=1), assistant("1")]})
    assert contents.counts["weight of a message not used: user"] == 1


# --- what is kept beside the text -------------------------------------------------------------


def test_tools_calls_results_and_reasoning_are_kept(tmp_path):
    messages = [
        {"role": "developer", "content": "Be brief."},
        user("w?", name="ana"),
        assistant(None, tool_calls=[CALL], reasoning_content="ask"),
        {"role": "tool", "content": "31C", "tool_call_id": "c1"},
        assistant("31 degrees", reasoning="told"),
    ]
    item = only(tmp_path, {"messages": messages, "tools": [TOOL]})
    assert item.prompt == (
        Message(Role.DEVELOPER, "Be brief."),
        Message(Role.USER, "w?", name="ana"),
        Message(Role.ASSISTANT, "", reasoning="ask", tool_calls=(CALLED,), learnt=True),
        Message(Role.TOOL, "31C", tool_call_id="c1"),
    )
    assert (item.response, item.extras, json.loads(item.tools)) == (
        "31 degrees",
        AnswerExtras("told"),
        [TOOL],
    )


def test_a_call_alone_is_an_answer(tmp_path):
    item = only(
        tmp_path, {"messages": [user("go"), {"role": "assistant", "tool_calls": [CALL]}], "tools": []}
    )
    assert (item.response, item.extras.tool_calls, item.tools) == ("", (CALLED,), "")


def test_older_functions_are_calls_and_tools(tmp_path):
    call = {"role": "assistant", "content": None, "function_call": {"name": "w", "arguments": "{}"}}
    result = {"role": "function", "name": "w", "content": "31C"}
    row = {"messages": [user("w?"), call, result, assistant("31")], "functions": [{"name": "w"}]}
    item = only(tmp_path, row)
    assert item.prompt[1].tool_calls == (ToolCall("", "w", "{}"),)
    assert item.prompt[2] == Message(Role.TOOL, "31C", name="w")
    assert json.loads(item.tools) == [TOOL]


def test_sides_of_a_pair_may_differ_in_their_calls_alone(tmp_path):
    other = CALL | {"function": {"name": "w", "arguments": "{}"}}
    sides = {
        "chosen": [assistant(None, tool_calls=[CALL])],
        "rejected": [assistant(None, tool_calls=[other])],
    }
    pair = only(tmp_path, {"prompt": "w?", **sides, "tools": json.dumps([TOOL])})
    assert (pair.chosen, pair.rejected) == ("", "")
    assert pair.chosen_extras.tool_calls != pair.rejected_extras.tool_calls


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [user("a"), assistant("1", reasoning="r"), user("b"), assistant("2", thinking="t")]},
        {"messages": [user("a"), assistant("x", tool_calls=[CALL])], "tools": [TOOL], "weight": 2},
        {"messages": [user("a"), assistant("x", reasoning_content="r")], "label": 0},
        {"prompt": "a", "chosen": [assistant("", tool_calls=[CALL])], "rejected": "no", "tools": [TOOL]},
    ],
)
def test_an_item_comes_back_from_its_row(tmp_path, row):
    item = only(tmp_path, row)
    write_jsonl(tmp_path / "again.jsonl", [item])
    assert read_jsonl(tmp_path / "again.jsonl", kind_of(tmp_path / "again.jsonl")).items == (item,)


def test_what_an_answer_holds_beside_its_text_is_part_of_its_id(tmp_path):
    answers = ["x", [assistant("x", reasoning="r")], [assistant("x", tool_calls=[CALL])]]
    rows = [{"prompt": "a", "completion": answer} for answer in answers]
    items = read(tmp_path, *rows, rows[0] | {"tools": [TOOL]}).items
    assert len({item.id for item in items}) == 4
    assert items[0].id == "44859fe7d8b2ab1180e8db69b87078af"  # as before answers had more than text


# --- contents ---------------------------------------------------------------------------------


def test_parts_of_text_are_joined(tmp_path):
    parts = [{"type": "text", "text": "Hel", "image_url": None}, {"type": "input_text", "text": "lo"}]
    item = only(tmp_path, {"messages": [user(parts), assistant(["Hi"])]})
    assert (item.prompt[0].content, item.response) == ("Hello", "Hi")


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_a_row_with_a_part_that_is_no_text_is_left_out_and_counted(tmp_path, kind):
    rows = [{"messages": [user([{"type": kind, kind: {}}]), assistant("a cat")]}]
    contents = read(tmp_path, *rows, {"prompt": "a", "completion": "b"}, kind="example")
    assert contents.counts == {"kept": 1, f"content that is no text: {kind}": 1}


def test_a_refusal_is_what_was_said(tmp_path):
    assert (
        only(tmp_path, {"messages": [user("a"), assistant(None, refusal="I can't.")]}).response == "I can't."
    )


def test_keys_of_messages_that_are_not_used_are_counted(tmp_path):
    contents = read(tmp_path, {"messages": [user("a"), assistant("b", annotations=[])]})
    assert contents.counts == {"kept": 1, "key not used: messages.annotations": 1}


# --- labels and nulls -------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [(True, False), (1, 0), (1.0, 0.0)])
def test_a_labelled_conversation_is_a_verdict_on_its_last_answer(tmp_path, labels):
    messages = [user("a"), assistant("1"), user("b"), assistant("2")]
    contents = read(tmp_path, *({"messages": messages, "label": label} for label in labels))
    assert [item.desirable for item in contents.items] == [True, False]
    assert (contents.items[0].response, any(m.learnt for m in contents.items[0].prompt)) == ("2", False)


@pytest.mark.parametrize(
    "shape", [{"prompt": "a", "completion": "b"}, {"messages": [user("a"), assistant("b")]}]
)
def test_an_answer_labelled_false_is_never_an_example_to_imitate(tmp_path, shape):
    rows = [shape | {"label": False}, shape | {"label": True}, shape | {"label": None, "id": "none"}]
    contents = read(tmp_path, *rows, kind="example")
    assert len(contents.items) == 2
    assert contents.counts["label is false: not an answer to learn"] == 1


def test_null_keys_are_absent_keys(tmp_path):
    keys = ("messages", "text", "chosen", "rejected", "label", "id", "weight", "flip_rate", "origin", "tools")
    nulls = dict.fromkeys(keys)
    call = CALL | {"index": None, "function": CALL["function"] | {"strict": None}}
    turn = assistant("b", tool_calls=[call], name=None, weight=None, reasoning_content=None)
    contents = read(
        tmp_path, {**nulls, "prompt": "a", "completion": [turn]}, {"prompt": "a", "completion": "b"}
    )
    first, second = contents.items
    assert contents.counts == {"kept": 2}
    assert (first.extras, second.extras) == (AnswerExtras("", (CALLED,)), NO_EXTRAS)


def test_a_row_whose_answer_is_null_is_left_out_and_counted(tmp_path):
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": None}]
    assert read(tmp_path, *rows).counts == {"kept": 1, "empty completion": 1}


def test_nulls_in_the_schema_of_a_tool_are_absent(tmp_path):
    tool = {"type": "function", "function": {"name": "w", "parameters": {"city": {"enum": None}}}}
    item = only(tmp_path, {"messages": [user("a"), assistant("b")], "tools": [tool, {"function": None}]})
    assert json.loads(item.tools) == [
        {"type": "function", "function": {"name": "w", "parameters": {"city": {}}}}
    ]


def test_what_is_learnt_and_compared_of_a_row_are_all_its_turns_and_calls(tmp_path):
    talk = [user("a"), assistant("one two"), user("b"), assistant(None, tool_calls=[CALL])]
    item = only(tmp_path, {"messages": talk})
    assert target_text(item) == 'one two\nw {"city": "Recife"}'
    assert ("response", 'w {"city": "Recife"}') in text_parts(item)
    loud = map_texts(item, str.upper)
    assert (loud.prompt[1].content, loud.prompt[1].learnt) == ("ONE TWO", True)
    assert loud.extras.tool_calls == (ToolCall("c1", "w", '{"CITY": "RECIFE"}'),)


def test_a_row_of_curation_comes_back_from_its_line(tmp_path):
    talk = [user("a"), assistant("one", reasoning="r"), user("b"), assistant(None, tool_calls=[CALL])]
    data = {"messages": talk, "tools": [TOOL], "conversation": "c", "label": None, "labels": None}
    counts = Counter()
    row = parse_row("example", data | {"time": 1, "extra": 2}, "file", 1, counts)
    assert read_line("example", write_line(row)) == row
    assert (row.conversation, counts) == ("c", {"key not used: extra": 1})

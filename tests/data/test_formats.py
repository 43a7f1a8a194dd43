"""Formats of other programs: each is recognised and read as it is meant; what cannot be read is counted."""

import copy
import json
from functools import reduce
from pathlib import Path

import pytest

from escultor.data.containers.json_stream import json_values
from escultor.data.containers.rows_of_files import RowSource, source_of
from escultor.data.formats.mapping import mapped, parse_map, propose_map
from escultor.data.formats.openai_api import requests_by_id
from escultor.data.formats.reading import (
    FormatReport,
    check_report,
    format_named,
    read_items,
    recognise,
    with_inputs,
)
from escultor.data.formats.table import BY_NAME, FORMATS, fitting
from escultor.data.jsonl import read_jsonl
from escultor.errors import DataError, InputError
from escultor.types import Document, Example, Pair, UnpairedExample

HERE = Path(__file__).parent / "formats"
ASK, GOOD, BAD = 'Qual é a capital\n"do" Brasil? 😀', "Brasília,\tclaro: 1 < 2", "Rio, I think 😡"
SYSTEM, MORE, LAST = "Seja breve.", "E da Argentina?", "Buenos Aires."
U, A = ("user", ASK), ("assistant", GOOD)
TALK = (U, A, ("user", MORE), ("assistant", LAST))


def source(*rows):
    return RowSource("rows.jsonl", lambda: iter(list(enumerate(rows, 1))))


def said(item):
    """What an item holds, without its id and origin."""
    if isinstance(item, Document):
        return item.text
    prompt = tuple((str(m.role), m.content) for m in item.prompt)
    if isinstance(item, Pair):
        return prompt, item.chosen, item.rejected
    if isinstance(item, UnpairedExample):
        return prompt, item.response, item.desirable
    return prompt, item.response


def read(rows, format=None):
    report = FormatReport()
    found = recognise(rows) if format is None else format
    return [item for _, _, item, _ in read_items(rows, found, report)], report


def test_rows_without_their_answer_do_not_make_a_file_one_of_prompts():
    answered, unanswered = {"prompt": ASK, "completion": GOOD}, {"prompt": MORE, "completion": None}
    for rows in ([unanswered, answered], [unanswered] * 3 + [answered]):
        items, report = read(source(*rows))
        assert [said(item) for item in items] == [((U,), GOOD)]
        assert len(report.skipped["a prompt without an answer"]) == len(rows) - 1
    with pytest.raises(DataError, match="holds nothing to learn from"):
        recognise(source(unanswered, unanswered))


def shared(turns, names=("human", "gpt"), keys=("from", "value")):
    by_role = dict(zip(("user", "assistant"), names, strict=True))
    return [{keys[0]: by_role.get(role, role), keys[1]: text} for role, text in turns]


def chat(*turns):
    return [{"role": role, "content": text} for role, text in turns]


def shown(role, text):
    return {"author": {"role": role}, "content": {"content_type": "text", "parts": [text]}}


ONE = ((U,), GOOD)  # one question and its answer
WHOLE = (TALK[:3], LAST)
PAIR = ((U,), GOOD, BAD)
LIKED, DISLIKED = ((U,), GOOD, True), ((U,), BAD, False)
HH = f"\n\nHuman: {ASK}\n\nAssistant: "
NODE = {"message_tree_id": "t", "lang": "pt"}
FLAT = {"id": "e1", "instruction": ASK, "response_1": BAD, "response_2": GOOD}
SPELLINGS = [
    ("messages", {"messages": chat(*TALK), "source": "web"}, [WHOLE]),
    ("kto-messages", {"messages": chat(U, ("assistant", BAD)), "label": False}, [DISLIKED]),
    ("sharegpt", {"id": "x_0", "conversations": shared(TALK)}, [WHOLE]),
    ("sharegpt", {"conversations": shared(TALK, ("User", "ChatGPT"))}, [WHOLE]),
    ("sharegpt", {"conversation": shared(TALK, ("human", "bing"), ("role", "content"))}, [WHOLE]),
    ("sharegpt", {"system": SYSTEM, "conversations": shared((U, A))}, [((("system", SYSTEM), U), GOOD)]),
    ("sharegpt-kto", {"conversations": shared((U, A)), "kto_tag": True}, [LIKED]),
    (
        "sharegpt-preference",
        {
            "conversations": shared((U,)),
            "chosen": {"from": "gpt", "value": GOOD},
            "rejected": {"from": "gpt", "value": BAD},
        },
        [PAIR],
    ),
    (
        "gemini",
        {
            "contents": [
                {"role": "user", "parts": [{"text": ASK}]},
                {"role": "model", "parts": [{"text": GOOD}]},
            ]
        },
        [ONE],
    ),
    (
        "anthropic",
        {
            "system": SYSTEM,
            "messages": [*chat(U), {"role": "assistant", "content": [{"type": "text", "text": GOOD}]}],
        },
        [((("system", SYSTEM), U), GOOD)],
    ),
    ("transcript", {"text": f"{HH}{GOOD}"}, [ONE]),
    (
        "transcript",
        {"text": f"<|im_start|>user\n{ASK}<|im_end|>\n<|im_start|>assistant\n{GOOD}<|im_end|>\n"},
        [ONE],
    ),
    ("alpaca", {"instruction": ASK, "input": "", "output": GOOD, "text": "###"}, [ONE]),
    (
        "alpaca",
        {"instruction": "Traduza", "input": "gato", "output": "cat"},
        [((("user", "Traduza\n\ngato"),), "cat")],
    ),
    ("alpaca", {"instruction": MORE, "output": LAST, "history": [[ASK, GOOD]]}, [WHOLE]),
    ("alpaca-kto", {"instruction": ASK, "output": BAD, "kto_tag": False}, [DISLIKED]),
    ("messages-kto", {"messages": chat(U, ("assistant", BAD)), "kto_tag": False}, [DISLIKED]),
    ("messages-kto", {"messages": chat(U, A), "rating": "thumbs_up"}, [LIKED]),
    ("prompt-completion-kto", {"prompt": ASK, "completion": BAD, "is_correct": 0}, [DISLIKED]),
    ("question-answer-kto", {"question": ASK, "answer": BAD, "feedback": -1}, [DISLIKED]),
    ("kto", {"prompt": ASK, "completion": BAD, "label": "rejected"}, [DISLIKED]),
    ("swift-preference", {"messages": chat(U, A), "rejected_response": BAD}, [PAIR]),
    ("swift-preference", {"messages": chat(U, A), "rejected_messages": chat(U, ("assistant", BAD))}, [PAIR]),
    ("query-response-rejected-response", {"query": ASK, "response": GOOD, "rejected_response": BAD}, [PAIR]),
    ("sharegpt", {"dialog": [text for _, text in TALK]}, [WHOLE]),
    (
        "sharegpt",
        {"conversation": [{"human": ASK, "assistant": GOOD}, {"human": MORE, "assistant": LAST}]},
        [WHOLE],
    ),
    ("sharegpt", {"conversations": shared(TALK, ("human", "bot"), ("speaker", "text"))}, [WHOLE]),
    ("sharegpt", {"id": "x", "items": shared(TALK)}, [WHOLE]),
    ("alternating", {"id": "0", "data": [text for _, text in TALK]}, [WHOLE]),
    (
        "messages",
        {
            "messages": [
                {"author": {"role": role}, "content": {"content_type": "text", "parts": [text]}}
                for role, text in (U, A)
            ]
        },
        [ONE],
    ),
    ("transcript", {"text": f"### Human: {ASK}### Assistant: {GOOD}"}, [ONE]),
    (
        "transcript",
        {"text": f"<s>[INST] <<SYS>>\n{SYSTEM}\n<</SYS>>\n\n{ASK} [/INST] {GOOD} </s>"},
        [((("system", SYSTEM), U), GOOD)],
    ),
    (
        "transcript",
        {"text": f"Below is an instruction.\n\n### Instruction:\n{ASK}\n\n### Response:\n{GOOD}"},
        [ONE],
    ),
    ("transcript", {"text": f"<|user|>\n{ASK}</s>\n<|assistant|>\n{GOOD}</s>"}, [ONE]),
    (
        "transcript",
        {"text": f"<bos><start_of_turn>user\n{ASK}<end_of_turn>\n<start_of_turn>model\n{GOOD}<end_of_turn>"},
        [ONE],
    ),
    (
        "helpsteer3",
        {"context": chat(U), "response1": BAD, "response2": GOOD, "overall_preference": 2},
        [PAIR],
    ),
    (
        "distilabel",
        {"prompt": HH, "answers": [{"answer": BAD, "rank": 7}, {"answer": GOOD, "rank": 1}]},
        [PAIR],
    ),
    (
        "arena-texts",
        {
            "prompt": json.dumps([ASK]),
            "response_a": json.dumps([BAD]),
            "response_b": json.dumps([GOOD]),
            "winner_model_a": 0,
            "winner_model_b": 1,
        },
        [PAIR],
    ),
    ("alpaca-preference", {"instruction": ASK, "input": "", "chosen": GOOD, "rejected": BAD}, [PAIR]),
    ("dolly", {"instruction": ASK, "context": "", "response": GOOD, "category": "qa"}, [ONE]),
    ("question-answer", {"question": ASK, "answer": GOOD}, [ONE]),
    (
        "question-response",
        {"system_prompt": SYSTEM, "question": ASK, "response": GOOD},
        [((("system", SYSTEM), U), GOOD)],
    ),
    ("query-response", {"query": ASK, "response": GOOD}, [ONE]),
    ("inputs-targets", {"inputs": ASK, "targets": GOOD}, [ONE]),
    (
        "squad",
        {"question": "Onde?", "context": "Aqui.", "answers": {"text": ["Aqui"], "answer_start": [0]}},
        [((("user", "Aqui.\n\nOnde?"),), "Aqui")],
    ),
    ("prompt-completion", {"prompt": ASK, "completion": GOOD}, [ONE]),
    ("prompt-completion", {"prompt": ASK, "completion": GOOD, "conversation": "c1", "answer": "A"}, [ONE]),
    ("prompt-completion", {"prompt": f"{HH}", "completion": f"{GOOD}"}, [ONE]),
    ("kto", {"prompt": ASK, "completion": GOOD, "label": 1}, [LIKED]),
    ("kto", {"prompt": chat(U), "completion": chat(("assistant", BAD)), "label": "false"}, [DISLIKED]),
    ("preference", {"prompt": ASK, "chosen": GOOD, "rejected": BAD}, [PAIR]),
    (
        "ultrafeedback",
        {
            "prompt": ASK,
            "chosen": chat(U, A),
            "rejected": chat(U, ("assistant", BAD)),
            "messages": chat(U, A),
            "score_chosen": 8.0,
        },
        [PAIR],
    ),
    ("question-chosen", {"question": ASK, "chosen": GOOD, "rejected": BAD}, [PAIR]),
    (
        "instruction-chosen-response",
        {"instruction": ASK, "chosen_response": GOOD, "rejected_response": BAD},
        [PAIR],
    ),
    ("implicit-preference", {"chosen": chat(U, A), "rejected": chat(U, ("assistant", BAD))}, [PAIR]),
    ("implicit-preference", {"chosen": f"{HH}{GOOD}", "rejected": f"{HH}{BAD}"}, [PAIR]),
    (
        "implicit-preference",
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        [((("user", "The sky is"),), " blue.", " green.")],
    ),
    (
        "openai-preference",
        {
            "input": {"messages": chat(U), "tools": []},
            "preferred_output": chat(A),
            "non_preferred_output": chat(("assistant", BAD)),
        },
        [PAIR],
    ),
    (
        "safe-rlhf",
        {"prompt": ASK, "response_0": BAD, "response_1": GOOD, "better_response_id": 1},
        [PAIR],
    ),
    ("shp", {"history": ASK, "human_ref_A": GOOD, "human_ref_B": BAD, "labels": 1}, [PAIR]),
    (
        "arena",
        {"conversation_a": chat(U, ("assistant", BAD)), "conversation_b": chat(U, A), "winner": "model_b"},
        [PAIR],
    ),
    ("distilabel", {"instruction": ASK, "generations": [BAD, GOOD], "ratings": [1, 5]}, [PAIR]),
    (
        "distilabel",
        {
            "instruction": ASK,
            "completions": [{"response": GOOD, "overall_score": 8}, {"response": BAD, "overall_score": 2}],
        },
        [PAIR],
    ),
    (
        "argilla",
        {
            "fields": {k: v for k, v in FLAT.items() if k != "id"},
            "responses": {"ranking": [{"value": ["response_2", "response_1"], "user_id": "u"}]},
        },
        [PAIR],
    ),
    (
        "argilla",
        {
            "fields": {"prompt": ASK},
            "responses": [{"status": "submitted", "values": {"corrected-answer": {"value": GOOD}}}],
        },
        [ONE],
    ),
    (
        "argilla-flat",
        {**FLAT, "preference.responses": ["response_2"], "preference.responses.status": ["submitted"]},
        [PAIR],
    ),
    (
        "label-studio",
        {
            "id": 1,
            "data": {"prompt": ASK, "answer1": BAD, "answer2": GOOD},
            "annotations": [{"result": [{"type": "pairwise", "value": {"selected": "right"}}]}],
        },
        [PAIR],
    ),
    (
        "label-studio-min",
        {
            "id": 1,
            "prompt": ASK,
            "answer1": GOOD,
            "answer2": BAD,
            "pw": "left",
            "annotator": 1,
            "lead_time": 3.2,
        },
        [PAIR],
    ),
    (
        "chatgpt-export",
        {
            "current_node": "c",
            "mapping": {
                "a": {"message": None, "parent": None},
                "h": {"message": shown("system", ""), "parent": "a"},
                "b": {"message": shown("user", ASK), "parent": "h"},
                "other": {"message": shown("assistant", BAD), "parent": "b"},
                "c": {"message": shown("assistant", GOOD), "parent": "b"},
            },
        },
        [ONE],
    ),
    (
        "sharegpt",
        {"chat_messages": [{"sender": "human", "text": ASK}, {"sender": "assistant", "text": GOOD}]},
        [ONE],
    ),
    ("pergunta-resposta", {"pergunta": ASK, "resposta": GOOD}, [ONE]),
    *(
        ("sharegpt-preference", {key: chat(*p), "chosen": chosen, "rejected": rejected}, [PAIR])
        for key in ("messages", "conversation")
        for p, chosen, rejected in (
            ((U,), chat(A)[0], chat(("assistant", BAD))[0]),
            ((U, A), chat(U, A), chat(U, ("assistant", BAD))),
        )
    ),
    (
        "oasst-tree",
        {
            **NODE,
            "prompt": {
                "text": ASK,
                "role": "prompter",
                "replies": [
                    {"text": BAD, "role": "assistant", "rank": 1, "replies": []},
                    {"text": GOOD, "role": "assistant", "rank": 0, "replies": []},
                ],
            },
        },
        [ONE, PAIR],
    ),
    ("openai-stored", {"choices": [{"message": chat(A)[0]}], "messages": chat(U), "object": "x"}, [ONE]),
    ("text", {"text": GOOD}, [GOOD]),
]


@pytest.mark.parametrize(
    ("name", "row", "expected"), SPELLINGS, ids=[f"{n}-{i}" for i, (n, *_) in enumerate(SPELLINGS)]
)
def test_every_spelling_is_recognised_and_means_the_same(name, row, expected):
    row = json.loads(json.dumps(row))
    assert [format.name for format in fitting(row)] == [name]
    items, report = read(source(row))
    assert [said(item) for item in items] == expected
    assert (report.format, report.bad, +report.counts) == (name, 0, {})


def test_the_table_is_covered_and_every_row_of_it_says_what_becomes_of_it():
    told = {name for name, *_ in SPELLINGS} | {f.name for f in FORMATS if f.refused}
    asked = {f.name for f in FORMATS if f.convert.__qualname__.startswith(("asked", "preference"))}
    judged = {f.name for f in FORMATS if f.convert.__qualname__.startswith("judged")}
    assert {f.name for f in FORMATS} - told - asked - judged == {"oasst-messages", "openai-batch"}
    assert len({f.name for f in FORMATS}) == len(FORMATS)
    assert all(f.becomes or f.refused for f in FORMATS)


def test_a_vote_of_nobody_is_no_verdict_and_a_column_of_worse_answers_is_not_passed_over():
    rows = [{"prompt": ASK, "completion": GOOD, "vote": vote} for vote in (1, -1, 0, None)]
    items, report = read(source(*rows), BY_NAME["prompt-completion-kto"])
    assert [item.desirable for item in items] == [True, False]
    assert report.counts["without a verdict on its answer"] == 2
    with pytest.raises(DataError, match="names a worse answer"):
        recognise(source({"question": ASK, "answer": GOOD, "answer_rejected": BAD}))


def test_a_verdict_in_one_row_of_a_file_of_examples_is_not_passed_over(tmp_path):
    rows = [{"messages": chat(U, A)}, {"messages": chat(U, ("assistant", BAD)), "kto_tag": False}]
    (item,), report = read(source(*rows), BY_NAME["messages"])
    assert item.response == GOOD
    assert "has a verdict: `kto_tag`" in report.problems[0]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="has a verdict"):
        read_jsonl(tmp_path / "rows.jsonl", "example")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("is_bad", True), ("downvoted", 1), ("thumbs_down", "true"), ("human-label", 0)),
        *(("userRating", "ruim"), ("feedback", {"rating": -1}), ("upvoted", False), ("label", "errado")),
        *(("aprovado", "não"), ("avaliação", "ruim")),
    ],
)
def test_a_bad_verdict_under_any_name_is_never_imitated(key, value):
    (item,), _ = read(source({"messages": chat(U, ("assistant", BAD)), key: value}))
    assert (item.response, item.desirable) == (BAD, False)
    rows = [{"messages": chat(U, A), "disliked": no, "liked": False} for no in (False, True)]
    assert [item.desirable for item in read(source(*rows), BY_NAME["messages-kto"])[0]][1:] == [False]
    items, report = read(source({"messages": chat(U, A)}, {"messages": chat(U, A), "is_bad": True}))
    assert (len(items), report.counts["`is_bad` is true: not an answer to learn"]) == (1, 1)


def test_an_answer_within_a_conversation_that_is_said_to_be_bad_is_context():
    bad = {"role": "assistant", "content": BAD, "rating": "bad"}
    (item,), report = read(source({"messages": [*chat(U), bad, *chat(*TALK[2:])]}))
    assert (item.response, [m.learnt for m in item.prompt]) == (LAST, [False] * 3)
    assert report.counts["turns not learnt for what is said of them"] == 1
    partial = chat(U, A)
    partial[1]["train_detail"] = [{"begin_offset": 0, "end_offset": 3, "train": False}]
    _, report = read(source({"messages": partial}, {"messages": chat(U, A)}))
    assert "marks parts of a turn" in report.problems[0]


def _places(value, path=()):
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from _places(each, (*path, key))


@pytest.mark.parametrize(("name", "row"), [each[:2] for each in SPELLINGS])
def test_a_value_of_another_type_is_a_fault_of_its_row_and_not_the_end_of_an_import(name, row):
    for *path, last in _places(row):
        for value in (None, 1, True, "x", [], [1], {}, {"a": [None]}):
            changed = copy.deepcopy(row)
            reduce(lambda inner, key: inner[key], path, changed)[last] = value
            report = FormatReport()
            list(read_items(source(changed), BY_NAME[name], report))
            assert report.rows <= 1 + report.bad + sum(report.counts.values()) + report.kept.total()
            fitting(changed)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("exclude", True), ("train", False), ("do_not_train", 1), ("split", "test"), ("consent", "none")),
        *(("isHelpful", False), ("success", "False"), ("status", "failed"), ("finish_reason", "length")),
    ],
)
def test_what_a_row_says_is_not_to_be_learnt_is_left_out_and_counted(tmp_path, key, value):
    rows = [{"messages": chat(U, A)}, {"messages": chat(U, ("assistant", BAD)), key: value}]
    (item,), report = read(source(*rows))
    (reason,) = (reason for reason in report.counts if reason.startswith(f"not to be learnt: `{key}` is"))
    assert (item.response, report.skipped[reason]) == (GOOD, [2])
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_jsonl(tmp_path / "rows.jsonl", "example").counts[reason] == 1
    friends = {"error": "TypeError: x", "status": "published", "split": "train", "upvotes": 3, "passed": None}
    assert len(read(source({"messages": chat(U, A)} | friends))[0]) == 1


def test_a_mark_that_can_be_read_both_ways_is_refused_and_the_others_are_acted_on():
    def talk(key, *marks):
        return {
            "messages": [each | ({key: marks[i // 2]} if i % 2 else {}) for i, each in enumerate(chat(*TALK))]
        }

    for key in ("weight", "train", "loss", "loss_weight", "loss_mask", "trainable"):
        (item,), report = read(source(talk(key, 0, 1)))
        assert [m.learnt for m in item.prompt] == [False] * 3
        assert report.counts["turns of weight 0"] == 1
    _, report = read(source(talk("mask", 0, 1)))
    assert "can be read both ways" in report.problems[0]


@pytest.mark.parametrize("path", sorted(HERE.iterdir()), ids=lambda p: p.name)
def test_every_fixture_of_rows_tells_its_format(path):
    names = {"openai-chat": "messages", "trl-kto": "kto", "trl-preference": "preference"}
    names |= {"trl-completion": "prompt-completion"}
    name = names.get(path.stem, path.stem)
    if name in BY_NAME and path.stem.startswith(("openai", "sharegpt", "trl")):
        assert recognise(source_of(path)).name == name


# --- conversations ----------------------------------------------------------------------------


def learnt(item):
    return [m.learnt for m in item.prompt if str(m.role) == "assistant"]


@pytest.mark.parametrize("key", ["weight", "train", "loss", "training"])
def test_a_turn_that_is_not_to_be_learnt_is_not(key):
    turns = shared(TALK)
    turns[1][key] = False
    ((item,), _) = read(source({"conversations": turns}))
    assert learnt(item) == [False]
    ((item,), _) = read(source({"conversations": shared(TALK)}))
    assert learnt(item) == [True]


def test_tools_are_kept_in_sharegpt_and_in_anthropics_blocks():
    call = {"from": "function_call", "value": '{"name": "w", "arguments": {"city": "Recife"}}'}
    seen, answer = {"from": "observation", "value": "31C"}, {"from": "gpt", "value": "31 °C."}
    row = {"conversations": [*shared((U,)), call, seen, answer], "tools": '[{"name": "w", "parameters": {}}]'}
    ((one,), _) = read(source(row))
    blocks = [
        {"role": "user", "content": ASK},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t1", "name": "w", "input": {"city": "Recife"}}],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "31C"}]}
            ],
        },
        {"role": "assistant", "content": "31 °C."},
    ]
    ((two,), report) = read(source({"messages": blocks, "tools": [{"name": "w", "input_schema": {}}]}))
    assert report.format == "anthropic"
    for item in (one, two):
        assert [(str(m.role), m.content) for m in item.prompt[1:]] == [("assistant", ""), ("tool", "31C")]
        (made,) = item.prompt[1].tool_calls
        assert (made.name, json.loads(made.arguments)) == ("w", {"city": "Recife"})
        assert json.loads(item.tools)[0]["function"]["name"] == "w"
    assert two.prompt[2].tool_call_id == "t1"


def test_pictures_and_empty_conversations_leave_their_row_out_by_reason():
    picture = {"role": "user", "content": [{"type": "image", "source": {}}]}
    rows = source({"messages": [picture, *chat(A)]}, {"messages": []}, {"messages": chat(U, A)})
    items, report = read(rows)
    assert len(items) == 1
    assert report.counts == {"content that is no text: 'image'": 1, "empty conversation": 1}


def test_the_trees_of_a_table_of_messages():
    def message(id, parent, role, text, rank=None, **more):
        return {
            **NODE,
            "message_id": id,
            "parent_id": parent,
            "role": role,
            "text": text,
            "rank": rank,
            **more,
        }

    rows = source(
        message("q", None, "prompter", ASK),
        message("b", "q", "assistant", BAD, 1),
        message("d", "q", "assistant", "gone", 0, deleted=True),
        message("g", "q", "assistant", GOOD, 0),
        message("m", "g", "prompter", MORE),
        message("l", "m", "assistant", LAST, 0),
        message("x", "nowhere", "assistant", "lost") | {"message_tree_id": "u"},
    )
    items, report = read(rows)
    assert report.format == "oasst-messages"
    assert [said(item) for item in items] == [WHOLE, PAIR]
    assert report.bad == 1


# --- records of OpenAI's API ------------------------------------------------------------------


def test_the_output_of_a_batch_is_joined_with_its_input():
    done = {"status_code": 200, "body": {"choices": [{"message": chat(A)[0], "finish_reason": "stop"}]}}
    rows = source(
        {"custom_id": "r1", "response": done, "error": None},
        {"custom_id": "r2", "response": {"status_code": 500}, "error": None},
        {"custom_id": "r3", "response": done, "error": None},
    )
    bodies = requests_by_id([(1, {"custom_id": "r1", "method": "POST", "body": {"messages": chat(U)}})])
    items, report = read(rows, with_inputs(recognise(rows), bodies))
    assert [said(item) for item in items] == [ONE]
    assert report.counts == {"the request failed": 1, "broken: the request of the answer is not known": 1}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": ASK}, "prompts without answers"),
        ({"prompt": ASK, "completions": ["a"], "labels": [True]}, "process reward model"),
        ({"choices": [], "id": "c"}, "/v1/chat/completions"),
        ({"custom_id": "r", "method": "POST", "url": "/v1", "body": {}}, "prompts without answers"),
        ({"messages": chat(U), "reference_answer": "3"}, "prompts without answers"),
        ({"role": "user", "content": ASK}, "single messages"),
    ],
)
def test_what_nothing_can_be_learnt_from_is_refused_with_the_reason(row, said):
    rows = source(row)
    with pytest.raises(DataError, match=said):
        check_report("rows", read(rows)[1])


# --- choosing a format ------------------------------------------------------------------------


def test_two_formats_that_fit_are_named_and_not_guessed():
    row = {"instruction": "a", "output": "b", "question": "c", "answer": "d"}
    with pytest.raises(DataError, match=r"--format alpaca or .*--format question-answer"):
        recognise(source(row))
    items, _ = read(source(row), format_named("alpaca"))
    assert said(items[0]) == ((("user", "a"),), "b")
    with pytest.raises(InputError, match="alpaca"):
        format_named("alpacca")


def test_an_unknown_format_is_refused_with_a_map_that_is_likely():
    row = {"uid": "4", "pregunta": ASK, "respuesta": GOOD, "created_at": "2026-01-01"}
    with pytest.raises(DataError, match="--map prompt=pregunta,completion=respuesta"):
        recognise(source(row))
    assert propose_map([{"turnos": chat(U, A)}]) == "messages=turnos"
    assert propose_map([{"prompt": chat(U), "answer": "42"}]) == "prompt=prompt,completion=answer"
    assert propose_map([{"segments": [{"text": "a", "label": True}]}]) is None
    items, _ = read(source(row), mapped(parse_map("prompt=pregunta,completion=respuesta")))
    assert [said(item) for item in items] == [ONE]
    nested = {"data": {"q": ASK}, "good": GOOD, "bad": BAD}
    items, _ = read(source(nested), mapped(parse_map("prompt=data.q, chosen=good, rejected=bad")))
    assert [said(item) for item in items] == [PAIR]


@pytest.mark.parametrize("text", ["prompt", "prompt=a", "prompt=a,prompt=b", "promt=a,completion=b", "text="])
def test_a_map_that_makes_no_row_is_refused(text):
    with pytest.raises(InputError):
        parse_map(text)


# --- broken rows ------------------------------------------------------------------------------


def many(good, bad):
    rows = [{"prompt": f"p{i}", "completion": "c"} for i in range(good)]
    return source(*rows, *({"prompt": i, "completion": "c"} for i in range(bad)))


def test_one_broken_row_never_refuses_the_rest_and_many_do_unless_allowed():
    for good, bad, fits in ((1, 1, True), (100, 5, True), (10, 2, False)):
        items, report = read(many(good, bad))
        assert (len(items), report.bad) == (good, bad)
        if fits:
            check_report("rows", report)
        else:
            with pytest.raises(
                DataError, match=r"2 of 12 rows are broken[\s\S]*rows.jsonl:11: [\s\S]*--max-bad"
            ):
                check_report("rows", report)
            check_report("rows", report, max_bad=0.5)


def test_a_label_that_is_no_verdict_is_refused_and_never_imitated():
    rows = source(*({"prompt": "p", "response": "r", "label": each} for each in ("science", "art")))
    items, report = read(rows)
    assert not items
    assert report.counts == {"broken: `label` is of the wrong type": 2}


def test_a_file_of_ours_may_mix_shapes():
    text = json.dumps({"messages": chat(U, A)}) + "\n" + json.dumps({"prompt": "p", "completion": "c"})
    rows = RowSource("mixed", lambda: json_values([text], "mixed"))
    items, report = read(rows)
    assert [type(item) for item in items] == [Example, Example]
    assert report.bad == 0

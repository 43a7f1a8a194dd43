"""A conversation is one row that teaches each of its answers; tools, calls and reasoning are written by the
model's own template, and so are learnt."""

from collections import Counter
from dataclasses import replace

import pytest
import tiny

from escultor.batching.preflight import preflight
from escultor.batching.rows import SERVED, example_rows, pair_rows, unpaired_rows
from escultor.batching.teacher import nll_by_row
from escultor.data.jsonl_rows import build
from escultor.datasets.rows import map_texts
from escultor.errors import ModelError
from escultor.model.cost import TrainingCost
from escultor.text.chat import ChatTemplate
from escultor.text.served_ids import read_ids, write_ids
from escultor.types import Message, Role

# In Qwen's manner: tools before the conversation, calls as markup, reasoning of the last answer alone.
TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\n' + (tools | tojson) + '<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.reasoning_content and loop.last %}"
    "{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}{% endif %}{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}{{ '\n<tool_call>' + c.function.name + (c.function.arguments | tojson) "
    "+ '</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOOL = {"type": "function", "function": {"name": "red", "parameters": {}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "red", "arguments": '{"big": "sun"}'}}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


TALK = [
    user("red dog"),
    assistant("the cat"),
    user("big"),
    assistant("wrong", weight=0),
    user("sun"),
    assistant("small"),
    user("and"),
    assistant("dog cat"),
]


@pytest.fixture(scope="module")
def chat():
    return ChatTemplate(tiny.chatml_tokenizer())


@pytest.fixture(scope="module")
def tools_chat():
    tokenizer = tiny.chatml_tokenizer(TOOLS)
    tokenizer.add_tokens(["<think>", "</think>", "<tool_call>", "</tool_call>"])
    return ChatTemplate(tokenizer)


def item(row, kind="example"):
    return build(kind, row, Counter(), "test")


def learnt(chat, rows):
    return [
        chat.tokenizer.decode(labelled.tolist())
        for row in rows
        for turns in row.sequences
        for _, labelled in turns
    ]


def test_each_answer_of_a_conversation_is_learnt_with_its_end_in_one_row(chat):
    counts = Counter()
    (row,) = example_rows([item({"messages": TALK})], chat, 300, counts)
    assert learnt(chat, [row]) == ["the cat<|im_end|>", "small<|im_end|>", "dog cat<|im_end|>"]
    own = chat.tokenizer.apply_chat_template(TALK, tokenize=True, return_dict=False)
    assert row.ids.tolist() == own[: row.length]
    assert counts == {"examples": 1, "turns learnt": 3}


def test_a_conversation_is_as_likely_as_its_answers_each_after_its_prompt(chat):
    rows = example_rows([item({"messages": TALK})], chat, 300, Counter())
    turns = [
        item({"prompt": TALK[:i], "completion": TALK[i]["content"]})
        for i, message in enumerate(TALK)
        if message["role"] == "assistant" and message.get("weight") != 0
    ]
    model = tiny.llama().model
    apart = nll_by_row(model, example_rows(turns, chat, 300, Counter()), "float32")
    assert nll_by_row(model, rows, "float32").sum() == pytest.approx(apart.sum(), rel=1e-6)


def test_a_long_conversation_is_cut_after_the_last_turn_that_fits(chat):
    counts = Counter()
    (whole,) = example_rows([item({"messages": TALK})], chat, 300, Counter())
    (row,) = example_rows([item({"messages": TALK})], chat, whole.length - 1, counts)
    assert learnt(chat, [row]) == ["the cat<|im_end|>", "small<|im_end|>"]
    assert counts["turns cut off: longer than max_length"] == 1


def test_where_the_template_strips_earlier_turns_each_is_learnt_as_it_was_generated(tools_chat):
    talk = [user("red"), assistant("cat", reasoning="big"), user("sun"), assistant("dog", reasoning="small")]
    rows = example_rows([item({"messages": talk})], tools_chat, 300, Counter())
    assert len({row.id for row in rows}) == 2
    assert learnt(tools_chat, rows) == [
        "<think>\nbig\n</think>\n\ncat<|im_end|>",
        "<think>\nsmall\n</think>\n\ndog<|im_end|>",
    ]


def test_calls_and_tools_are_in_the_tokens_of_the_template(tools_chat):
    result = {"role": "tool", "content": "31", "tool_call_id": "c1"}
    talk = [user("red"), assistant("", tool_calls=[CALL]), result, assistant("cat")]
    (row,) = example_rows([item({"messages": talk, "tools": [TOOL]})], tools_chat, 200, Counter())
    assert learnt(tools_chat, [row]) == [
        '\n<tool_call>red{"big": "sun"}</tool_call><|im_end|>',
        "cat<|im_end|>",
    ]
    assert '"name": "red"' in tools_chat.tokenizer.decode(row.ids.tolist()[: row.start])
    markup = tools_chat.tokenizer.convert_tokens_to_ids("<tool_call>")
    assert markup in row.ids.tolist()[row.start :]


def test_sides_and_verdicts_may_be_calls(tools_chat):
    called = [assistant("", tool_calls=[CALL])]
    pair = item({"prompt": "red", "chosen": called, "rejected": "no", "tools": [TOOL]}, "pair")
    (row,) = pair_rows([pair], tools_chat, 200, Counter())
    shown = '\n<tool_call>red{"big": "sun"}</tool_call><|im_end|>'
    assert learnt(tools_chat, [row]) == [shown, "no<|im_end|>"]
    verdicts = [{"prompt": p, "completion": called, "label": True, "tools": [TOOL]} for p in ("red", "dog")]
    rows = unpaired_rows([item(each, "unpaired") for each in verdicts], tools_chat, 200, Counter())
    assert learnt(tools_chat, rows) == [shown, shown]


def test_the_preview_marks_every_turn_that_is_learnt(chat):
    rows = example_rows([item({"messages": TALK})], chat, 300, Counter())
    tokenizer = chat.tokenizer
    model = tiny.llama().model
    model.resize_token_embeddings(len(tokenizer))
    report = preflight(rows, {}, chat, model, TrainingCost(*[0] * 9))
    assert (report.rows, report.branches, report.ended) == (1, 3, 3)
    (branch,) = report.first[0].branches
    assert len(branch) == rows[0].length
    labelled = [i for i, span in enumerate(branch) if span.labelled]
    assert labelled == rows[0].labels.tolist()


def test_an_error_of_the_template_names_the_row():
    strict = ChatTemplate(tiny.tokenizer_like("gemma"))
    rows = [
        {"prompt": "red", "completion": "cat"},
        {"id": "mine", "messages": [{"role": "system", "content": "a"}, *TALK]},
    ]
    with pytest.raises(ModelError, match="mine"):
        example_rows([item(row) for row in rows], strict, 300, Counter())
    plain = [rows[0], {"id": "mine", "prompt": [{"role": "system", "content": "a"}], "completion": "b"}]
    with pytest.raises(ModelError, match="mine"):
        example_rows([item(row) for row in plain], strict, 300, Counter())


def test_rows_are_the_same_whether_rendered_together_or_alone(chat):
    items = [item({"messages": TALK[: 2 * n]}) for n in (1, 3, 4)]
    together = example_rows(items, chat, 300, Counter())
    alone = [row for each in items for row in example_rows([each], chat, 300, Counter())]
    assert [row.ids.tolist() for row in together] == [row.ids.tolist() for row in alone]


# --- the token ids that were served -----------------------------------------------------------


def served(chat, text, ids):
    answer = assistant(text, token_ids=write_ids(chat.vocabulary_hash, ids))
    return item({"prompt": "red", "completion": [answer]})


def test_an_answer_is_learnt_in_the_token_ids_that_were_served(chat):
    letters = [id for letter in "the cat" for id in chat.text(letter)] + chat.turn_end
    assert letters != chat.example((), "the cat").response
    counts = Counter()
    (row,) = example_rows([served(chat, "the cat", letters)], chat, 300, counts)
    assert row.ids[row.start :].tolist() == letters
    assert row.ids[: row.start].tolist() == chat.prompt((Message(Role.USER, "red"),))
    assert counts[SERVED] == 1


@pytest.mark.parametrize("fault", ["another text", "no end", "another vocabulary", "no ids"])
def test_token_ids_that_are_not_those_of_the_text_are_not_learnt(chat, fault):
    letters = [id for letter in "the cat" for id in chat.text(letter)]
    example = served(chat, "the cat", letters if fault == "no end" else letters + chat.turn_end)
    if fault == "another text":
        example = map_texts(replace(example, response="the dog"), str)
        changed = map_texts(served(chat, "the cat", letters), lambda text: text.replace("cat", "[NAME]"))
        assert changed.extras.token_ids == ""  # what was masked in the text is not kept as ids
    if fault in ("another vocabulary", "no ids"):
        text = "other:AAAA" if fault == "no ids" else example.extras.token_ids.replace(":", "0:")
        example = replace(example, extras=replace(example.extras, token_ids=text))
    (row,) = example_rows([example], chat, 300, counts := Counter())
    assert row.ids[row.start :].tolist() == chat.example((), example.response).response
    assert SERVED not in counts


@pytest.mark.parametrize("ids", [[], [0], [1, 70000, 2**32 - 1]])
def test_token_ids_come_back_from_their_text(ids):
    assert read_ids(write_ids("v", ids), "v") == ids
    assert read_ids("v:%%%", "v") == read_ids("v:AAA=", "v") == read_ids("", "v") == []

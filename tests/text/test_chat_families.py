"""Conversations in the manner of public model families, token for token; `docs/models.md` is their table."""

import json
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from chat_families import FAMILIES, Family

from escultor.batching.rows import example_rows
from escultor.errors import ModelError
from escultor.text.chat import ChatTemplate
from escultor.text.served_ids import write_ids
from escultor.text.streaming import TextStream
from escultor.text.tool_calls import calls_in
from escultor.types import AnswerExtras, Consent, Example, Message, Origin, Role, ToolCall

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
U, A, S = Role.USER, Role.ASSISTANT, Role.SYSTEM
ASK = (Message(U, "What is 2+2?"),)
ANSWER, REASON = "2+2 equals 4.", "Okay."
THOUGHT = f"<think>\n{REASON}\n</think>\n\n{ANSWER}"
PAST = (Message(U, "Hello world."), Message(A, "Hi there."))
SYSTEM = Message(S, "Be brief.")
TALKS = {
    "one question": ASK,
    "several turns": (*PAST, *ASK),
    "a system message": (SYSTEM, *ASK),
    "a system message and several turns": (SYSTEM, *PAST, *ASK),
    "blanks": (Message(U, "  red dog\n\n"),),
    "marks, line ends, compositions": (Message(U, "naïve 👩‍👩‍👧\r\ncafé\u2028x e\u0301"),),
    "earlier thinking": (PAST[0], Message(A, f"<think>\n{REASON}\n</think>\n\nHi there."), *ASK),
}
CALL = ToolCall("call00001", "weather", '{"city": "Paris"}')
CALLED = Message(A, "", tool_calls=(CALL,))
RESULT = Message(Role.TOOL, "sunny", tool_call_id="call00001", name="weather")
TOOLS = (
    '[{"type": "function", "function": {"name": "weather", "description": "The weather of a city.", '
    '"parameters": '
    '{"type": "object", "properties": {"city": {"type": "string", "description": "a city"}}}}}]'
)


@cache
def chat_of(family: Family) -> ChatTemplate:
    return ChatTemplate(family.make())


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def chat(family):
    return chat_of(family)


def theirs(chat, messages, generation, tools="", as_text=False):
    """What `apply_chat_template` gives, in the form that OpenAI's clients and TRL's rows have."""
    turns = []
    for m in messages:
        turn = {"role": str(m.role), "content": m.content}
        if m.reasoning:
            turn["reasoning_content"] = m.reasoning
        if m.tool_calls:
            calls = [{"name": c.name, "arguments": json.loads(c.arguments)} for c in m.tool_calls]
            if "call.function.arguments + " in chat.tokenizer.chat_template:  # takes JSON text alone
                calls = [{"name": c.name, "arguments": c.arguments} for c in m.tool_calls]
            turn["tool_calls"] = [
                {"id": c.id, "type": "function", "function": f}
                for c, f in zip(m.tool_calls, calls, strict=True)
            ]
        turns.append(turn | ({"tool_call_id": m.tool_call_id, "name": m.name} if m.role == Role.TOOL else {}))
    given = {"tools": json.loads(tools)} if tools else {}
    return chat.tokenizer.apply_chat_template(
        turns, add_generation_prompt=generation, tokenize=not as_text, return_dict=False, **given
    )


def control(chat, ids):
    return [id for id in ids if id in chat.control]


def text_of(chat, ids):
    """The text of ids, with the blanks that SentencePiece decoders take away at its beginning."""
    return chat.tokenizer.decode([*chat.text("|"), *ids]).removeprefix("|")


# --- prompts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("talk", TALKS)
def test_a_prompt_has_the_ids_of_apply_chat_template(family, chat, talk):
    messages = TALKS[talk]
    if not family.takes_system and messages[0] == SYSTEM:
        with pytest.raises(ModelError, match="refuses these messages"):
            chat.prompt(messages)
    elif family.template is not None:
        assert chat.prompt(messages) == theirs(chat, messages, True)


def test_a_prompt_with_tools_has_the_ids_of_apply_chat_template(family, chat):
    messages = (*ASK, CALLED, RESULT)
    if family.takes_tools:
        assert chat.prompt(ASK, TOOLS) == theirs(chat, ASK, True, TOOLS)
        assert chat.prompt(messages, TOOLS) == theirs(chat, messages, True, TOOLS)
    elif family.template is not None:
        with pytest.raises(ModelError, match=r"drops messages|refuses these messages"):
            chat.prompt(messages)


# --- answers ----------------------------------------------------------------------------------


def test_learnt_is_what_the_model_has_to_write_and_nothing_else(family, chat):
    for messages in (ASK, *([(*PAST, *ASK)] if family.template else [])):
        row = chat.example(messages, ANSWER)
        assert row.prompt == chat.prompt(messages)
        expected = family.answer if len(messages) == 1 or family.template else " " + family.answer
        assert text_of(chat, row.response).strip(" ") == expected.format(ANSWER).strip(" ")


def test_prompt_and_answer_have_the_ids_of_the_whole_rendering_where_it_begins_with_the_prompt(family, chat):
    if family.template is None:
        return
    for name, messages in TALKS.items():
        if not family.takes_system and messages[0] == SYSTEM:
            continue
        row, answered = chat.example(messages, ANSWER), (*messages, Message(A, ANSWER))
        whole = theirs(chat, answered, False)
        begins = theirs(chat, answered, False, as_text=True).startswith(
            theirs(chat, messages, True, as_text=True)
        )
        if begins and not any("merge" in note for note in row.notes):
            shorter = len(row.prompt + row.response) - (chat.eos not in whole[-3:])  # an end of our own
            assert whole[:shorter] == (row.prompt + row.response)[:shorter], name


def test_reasoning_is_learnt_with_the_tokens_of_its_markup(family, chat):
    if family.template is None:
        return
    given = [chat.example(ASK, answer) for answer in (Message(A, ANSWER, reasoning=REASON), THOUGHT)]
    if family.thought is None:
        assert all("reasoning not learnt" in row.notes[0] for row in given)
        assert {text_of(chat, row.response).lstrip() for row in given} == {family.answer.format(ANSWER)}
        return
    expected = family.thought.format(ANSWER) if family.thought else family.answer.format(THOUGHT)
    for row in given:
        if family.name != "Magistral" or row is given[0]:  # whose tags are not those of the text
            assert text_of(chat, row.response).strip(" ") == expected.strip(" ")
        assert row.notes == ()
    tags = {id for tag in ("<think>", "</think>", "[THINK]") if (id := token(chat, tag)) in chat.control}
    assert not tags or tags & set(given[0].response)


def token(chat, name):
    return chat.tokenizer.convert_tokens_to_ids(name)


def test_a_call_of_a_tool_is_learnt_to_the_end_of_its_turn(family, chat):
    if family.takes_tools:
        row = chat.example(ASK, CALLED, TOOLS)
        whole = theirs(chat, (*ASK, CALLED), False, TOOLS, as_text=True)
        written = text_of(chat, row.response)
        assert '"city"' in written or "city" in written
        assert row.response[-1] in chat.control
        assert whole.rstrip().endswith(written.removesuffix("<|endoftext|>").strip(" ")[-30:])
    elif family.template is not None:
        with pytest.raises(ModelError, match="drops tool calls"):
            chat.example(ASK, CALLED, TOOLS)


def test_a_whole_conversation_is_learnt_under_one_mask_or_turn_by_turn(family, chat):
    first, last = Message(A, "Hi there.", learnt=True), Message(A, ANSWER, learnt=True)
    rows = chat.conversation((PAST[0], first, *ASK, last))
    turns = [chat.example((PAST[0],), "Hi there."), chat.example((*PAST, *ASK), ANSWER)]
    spans = [row.ids[start:end] for row in rows for start, end in row.learnt]
    assert spans == [turn.response for turn in turns]
    assert rows[-1].ids == turns[-1].prompt + turns[-1].response
    assert len(rows) == (1 if family.joined and family.template else 2)
    (alone,) = chat.conversation((*PAST, *ASK, last))
    assert len(alone.learnt) == 1


def by_turns(chat, messages, tools=""):
    """The rows of a conversation as each learnt turn alone gives them, joined where one continues another."""
    at = [i for i, message in enumerate(messages) if message.learnt]
    rows = []
    for i in reversed(at):
        each = chat.example(messages[:i], messages[i], tools)
        ids, span = each.prompt + each.response, (len(each.prompt), len(each.prompt) + len(each.response))
        if rows and rows[-1][0][: len(ids)] == ids:
            rows[-1][1].insert(0, span)
        else:
            rows.append((ids, [span]))
    return [(ids, tuple(spans)) for ids, spans in reversed(rows)]


@pytest.mark.parametrize(
    "answers",
    [
        (ANSWER, "  red dog\n", "", "the cat", "1"),
        (THOUGHT, "big", THOUGHT, "sun"),
        ("<|im_end|> </s> red", ANSWER, "<think>", "and"),
    ],
    ids=["plain", "reasoning", "hostile"],
)
def test_a_conversation_has_the_rows_of_its_turns_one_by_one(family, chat, answers):
    talk = [m for answer in answers for m in (ASK[0], Message(A, answer, learnt=True))]
    for messages in (tuple(talk), (SYSTEM, *talk), (*talk[:2], Message(U, hostile(chat)), *talk[3:])):
        try:
            expected = by_turns(chat, messages)
        except ModelError as error:
            with pytest.raises(ModelError, match=re.escape(error.what)):
                chat.conversation(messages)
        else:
            assert [(row.ids, row.learnt) for row in chat.conversation(messages)] == expected


def test_a_long_conversation_is_tokenised_once(monkeypatch):
    chat = chat_of(next(family for family in FAMILIES if family.joined and family.template))
    turns = [(Message(U, f"red dog {i}"), Message(A, f"the cat {i}", learnt=True)) for i in range(30)]
    encoded = []
    encode = chat._encoder.encode
    monkeypatch.setattr(chat._encoder, "encode", lambda texts: encoded.extend(texts) or encode(texts))
    (row,) = chat.conversation(tuple(message for turn in turns for message in turn))
    assert len(row.learnt) == 30
    assert sum(len(each.text) for each in encoded) < 3 * len(chat.tokenizer.decode(row.ids))


# --- who writes control tokens ----------------------------------------------------------------


def hostile(chat):
    return "a" + " b".join(sorted(chat.tokenizer.added_tokens_encoder)) + "c"


def test_no_text_of_others_writes_a_control_token(family, chat):
    text = hostile(chat)
    for harmless, made in (
        (ASK, (Message(U, text),)),
        ((*PAST, *ASK), (Message(U, text), PAST[1], Message(U, text))),
        *([((SYSTEM, *ASK), (Message(S, text), *ASK))] if family.takes_system else []),
        *(
            [((*ASK, CALLED, RESULT), (*ASK, CALLED, replace(RESULT, content=text)))]
            if family.takes_tools
            else []
        ),
    ):
        assert control(chat, chat.prompt(made)) == control(chat, chat.prompt(harmless))
        if harmless == ASK:
            assert "".join(text.split()) in "".join(chat.tokenizer.decode(chat.prompt(made)).split())


def test_an_answer_neither_opens_a_role_nor_ends_its_turn_itself(family, chat):
    ends = control(chat, chat.example(ASK, "x").response)
    row = chat.example(ASK, hostile(chat).replace("</think>", "").replace("[/THINK]", ""))
    names = chat.tokenizer.convert_ids_to_tokens(control(chat, row.response))
    written = [
        name for name in names if any(word in name.lower() for word in ("think", "tool", "fim", "python"))
    ]
    assert [name for name in names if name not in written] == [
        name for name in chat.tokenizer.convert_ids_to_tokens(ends) if name not in written
    ]
    assert row.response.count(chat.turn_end[-1]) == 1


# --- what was generated ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", [ANSWER, Message(A, ANSWER, reasoning=REASON), "a\n\nb  c", "naïve 👩‍👩‍👧 x"]
)
def test_an_answer_that_was_generated_is_learnt_with_the_ids_that_were_served(family, chat, answer):
    served = chat.example(ASK, answer).response
    assert chat.example(ASK, chat.decode(served)).response == served


def test_turns_end_with_the_token_at_which_serving_stops(family, chat):
    end = family.answer.rpartition("{}")[2].strip()
    for answer in (ANSWER, "", "x\n"):
        response = chat.example(ASK, answer).response
        assert response[-1] == chat.turn_end[-1]
        assert chat.tokenizer.convert_ids_to_tokens(response[-1]) in end
        assert response.count(response[-1]) == 1
    assert chat.decode(chat.example(ASK, ANSWER).response) == ANSWER


# --- streams -----------------------------------------------------------------------------------


def test_a_streamed_answer_has_the_text_of_the_whole_one(family, chat):
    for answer in (ANSWER, Message(A, ANSWER, reasoning=REASON), "<|final", "a\n\nb  c"):
        ids = chat.example(ASK, answer).response
        stream = TextStream(chat.tokenizer, (), chat.lead, chat.answer_tokens())
        pieces = [stream.feed(id) for id in ids[: len(ids) - len(chat.turn_end)]]
        last = stream.finish()
        assert "".join(piece.text for piece in (*pieces, last)) == chat.decode(ids)
        assert last.tokens == len(pieces)


def test_headers_of_channels_are_not_shown_and_reasoning_stays_apart():
    (oss,) = (family for family in FAMILIES if family.name == "gpt-oss")
    chat = chat_of(oss)
    assert chat.decode(chat.example(ASK, Message(A, ANSWER, reasoning=REASON)).response) == THOUGHT
    assert chat.decode(chat.example(ASK, "final").response) == "final"


CALLS = json.dumps([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}])


@pytest.mark.parametrize(
    "written",
    [
        '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"x": "a"}<|call|>',
        ' to=functions.f<|channel|>commentary json<|message|>{"x": "a"}<|call|>',
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.f "
        '<|constrain|>json<|message|>{"x": "a"}<|call|>',
    ],
)
def test_calls_on_a_channel_are_calls_and_the_ids_that_were_served_are_learnt(written):
    (oss,) = (family for family in FAMILIES if family.name == "gpt-oss")
    chat = chat_of(oss)
    ids = chat.tokenizer.encode(written, add_special_tokens=False)
    stream = TextStream(chat.tokenizer, (), chat.lead, chat.answer_tokens())
    text = "".join(stream.feed(id).text for id in ids[:-1]) + stream.finish().text
    assert calls_in(text, CALLS) == [("f", '{"x": "a"}')]
    assert ("<think>\nHm.\n</think>" in text) is ("Hm." in written)
    call = Message(A, "", tool_calls=(ToolCall("1", "f", '{"x": "a"}'),))
    rendered = chat.example(ASK, call, CALLS)
    assert (
        chat.tokenizer.decode(rendered.response)
        == ' to=functions.f<|channel|>commentary json<|message|>{"x": "a"}<|call|>'
    )
    served = AnswerExtras(tool_calls=call.tool_calls, token_ids=write_ids(chat.vocabulary_hash, ids))
    origin = Origin((), "r", Consent.TRAIN)
    example = Example("x", ASK, "", origin, tools=CALLS, extras=served)
    (row,) = example_rows([example], chat, 1000, Counter())
    assert row.ids[row.start :].tolist() == ids


# --- the document ------------------------------------------------------------------------------


def table() -> list[str]:
    """The lines of the table of families and checks, all of which the tests above make."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for family in FAMILIES:
        thought = {None: "left out, counted", "": "within the content"}.get(family.thought, "")
        cells = [
            family.name,
            family.kind,
            "✓" if family.template else "stated default",
            "✓" if family.takes_system else "–",
            "✓" if family.takes_tools else "–",
            shown(family.answer),
            thought or shown(family.thought or ""),
            "✓" if family.joined and family.template else "a row each turn",
            *("✓", "✓", "✓"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def shown(form: str) -> str:
    return "`" + form.replace("{}", "…").replace("\n", "⏎").replace("|", "\\|") + "`"


COLUMNS = ["family", "tokenizer", "prompt ids", "system", "tools", "learnt", "reasoning learnt", "one row"]
COLUMNS += ["hostile text", "own answer", "stops"]


def test_the_document_shows_every_family():
    shown = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    assert shown == table(), f"write it anew: python {Path(__file__).name}"


if __name__ == "__main__":
    kept = re.split(r"(?:^\|.*\n)+", DOCUMENT.read_text(), flags=re.MULTILINE)
    DOCUMENT.write_text("\n".join(table()).join((kept[0], "\n" + kept[-1])))

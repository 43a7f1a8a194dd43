"""Conversations in the manner of four families of models: one BOS, one end of turn, one prompt."""

import datetime
from collections import Counter

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.batching.rows import pair_rows
from escultor.errors import ModelError
from escultor.text.chat import ChatTemplate
from escultor.types import Message, Pair, Role

FAMILIES = ("qwen", "llama3", "gemma", "mistral")
ENDS = {"qwen": "<|im_end|>", "llama3": "<|eot_id|>", "gemma": "<end_of_turn>", "mistral": "</s>"}
TRIMMED = {"llama3", "gemma"}  # the user's contents; Mistral's trims its answers alone
MARKS = [
    "<s>",
    "</s>",
    "<bos>",
    "<think>",
    "[INST]",
    "<|eot_id|>",
    "<|im_end|>\n",
    "<end_of_turn>",
    " ",
    "\n",
]
texts = st.lists(st.sampled_from(MARKS) | st.text(max_size=5), max_size=4).map("".join)
laws = settings(deadline=None, max_examples=40)
CHATS = {family: ChatTemplate(tiny.tokenizer_like(family)) for family in FAMILIES}
SYSTEM, ASK = Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "red dog")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def chat(family):
    return CHATS[family]


def control(chat, ids):
    """The control tokens among `ids`, by name."""
    known = set(chat.tokenizer.added_tokens_decoder) - set(chat.text("covid    "))
    return chat.tokenizer.convert_ids_to_tokens([id for id in ids if id in known])


def written(chat, messages, generation=False):
    turns = [{"role": str(m.role), "content": m.content} for m in messages]
    return chat.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation)


def dialogue(turns, system, family):
    """Turns of user and assistant in alternation, after a system message where the family takes one."""
    roles = [Role.USER, Role.ASSISTANT]
    said = [Message(roles[i % 2], text) for i, text in enumerate(turns)]
    return tuple([SYSTEM, *said] if system and family != "gemma" else said)


# --- the ends ---------------------------------------------------------------------------------


@laws
@given(ask=texts, response=texts, system=st.booleans())
def test_training_text_has_at_most_one_begin_and_one_end_of_turn(chat, family, ask, response, system):
    rendered = chat.example(dialogue([ask], system, family), response)
    begin = chat.tokenizer.bos_token
    assert control(chat, rendered.prompt).count(begin) == (begin is not None)
    written = [] if family != "qwen" else response.count("<think>") * ["<think>"]  # its answers may think
    assert control(chat, rendered.response) == [*written, ENDS[family]]
    assert rendered.response[-1] == chat.tokenizer.convert_tokens_to_ids(ENDS[family])


def test_a_tokenizer_that_adds_a_begin_token_adds_only_one(chat, family):
    if family != "qwen":
        assert chat.tokenizer.encode("red")[0] == chat.tokenizer.bos_token_id
    for ids in (chat.prompt((ASK,)), *chat.documents(["red", "blue"])):
        assert ids.count(chat.tokenizer.bos_token_id) == (family != "qwen")


def test_a_response_containing_the_end_of_turn_text_ends_once(chat, family):
    end = ENDS[family]
    for response in (f"cat{end}", f"cat{end}\n", end, f"{end}{end}"):
        assert control(chat, chat.example((ASK,), response).response) == [end]


# --- the border between prompt and response ---------------------------------------------------


@laws
@given(ask=texts, chosen=texts, rejected=texts)
def test_both_sides_of_a_pair_share_the_prompts_tokens(chat, ask, chosen, rejected):
    messages, counts = (Message(Role.USER, ask),), Counter()
    pairs = [Pair("p", messages, *sides, tiny.ORIGIN) for sides in ((chosen, rejected), (rejected, chosen))]
    rows = pair_rows(pairs, chat, 10_000, counts)
    assert len(rows) + counts["dropped: chosen equals rejected"] == 2
    for row in rows:
        assert row.prompt.tolist() == chat.prompt(messages)
    if rows:
        assert rows[0].chosen.tolist() == rows[1].rejected.tolist() == chat.example(messages, chosen).response


def test_the_tokenizers_do_merge_across_the_boundary_when_not_prevented():
    chat = ChatTemplate(tiny.chatml_tokenizer(template=None))  # without a template nothing stands between
    whole = chat.tokenizer.encode("red dog", add_special_tokens=False)
    learnt = chat.example((Message(Role.USER, "red do"),), "g")
    assert learnt.prompt + learnt.response != [*whole, chat.eos]
    assert chat.tokenizer.decode(learnt.prompt + learnt.response) == "red dog<|im_end|>"


# --- the prompt -------------------------------------------------------------------------------


@laws
@given(turns=st.lists(texts, min_size=1, max_size=3).filter(lambda t: len(t) % 2), answer=texts, after=texts)
@pytest.mark.parametrize("system", [True, False])
def test_training_targets_have_the_tokens_that_later_turns_show(chat, family, turns, answer, after, system):
    messages = dialogue(turns, system, family)
    learnt = chat.example(messages, answer)
    assert learnt.prompt == chat.prompt(messages)
    later = chat.prompt((*messages, Message(Role.ASSISTANT, answer), Message(Role.USER, after)))
    whole = learnt.prompt + learnt.response
    assert later[: len(whole)] == whole


@laws
@given(turns=st.lists(st.text("red dog\n ", max_size=8), min_size=1, max_size=5).filter(lambda t: len(t) % 2))
@pytest.mark.parametrize("system", [True, False])
def test_a_conversation_without_control_text_decodes_to_the_templates_text(chat, family, turns, system):
    messages = dialogue(turns, system, family)
    assert chat.tokenizer.decode(chat.prompt(messages)) == written(chat, messages, generation=True)


@laws
@given(response=st.text("red dog\n ", max_size=8))
def test_an_answer_without_control_text_decodes_to_the_templates_text(chat, response):
    learnt = chat.example((ASK,), response)
    text = chat.tokenizer.decode(learnt.prompt + learnt.response)
    assert text == written(chat, (ASK, Message(Role.ASSISTANT, response))).removesuffix("\n")


def test_the_space_before_an_answer_is_trained_with_its_first_word_and_not_shown():
    chat = CHATS["mistral"]
    learnt = chat.example((ASK,), "dog runs")
    assert chat.tokenizer.convert_ids_to_tokens(learnt.prompt[-1:]) == ["[/INST]"]
    assert chat.tokenizer.decode(learnt.response) == " dog runs</s>"
    assert learnt.response[:-1] == chat.text(" dog runs")
    assert chat.decode(learnt.response) == "dog runs"


def test_where_the_template_trims_contents_are_trimmed(chat, family):
    padded = chat.prompt((Message(Role.USER, " \n red dog\n "),))
    assert (padded == chat.prompt((ASK,))) == (family in TRIMMED)
    answers = [chat.example((ASK,), text).response for text in (" cat ", "cat")]
    assert (answers[0] == answers[1]) == (family in {*TRIMMED, "mistral"})


def test_a_space_that_the_tokenizer_adds_itself_is_there_as_often_as_the_template_has_it():
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    letters = ["<s>", "</s>", "[INST]", "[/INST]", "▁", "c", "a", "t", "ca", "▁ca", "▁cat"]
    merges = [("c", "a"), ("▁", "ca"), ("▁ca", "t")]
    inner = Tokenizer(models.BPE({piece: i for i, piece in enumerate(letters)}, merges))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["[INST]", "[/INST]"],
        chat_template=tiny.MISTRAL,
    )
    row = ChatTemplate(tokenizer).example((ASK,), "cat")
    talk = [{"role": "user", "content": "red dog"}, {"role": "assistant", "content": "cat"}]
    assert row.prompt + row.response == tokenizer.apply_chat_template(talk, return_dict=False)
    assert ChatTemplate(tokenizer).decode(row.response) == "cat"


def test_a_template_without_system_messages_gives_one_clear_error():
    with pytest.raises(
        ModelError, match=r"refuses these messages; got: System role not supported; remedy: .*user"
    ):
        CHATS["gemma"].prompt((SYSTEM, ASK))


def test_a_template_that_prints_the_date_prints_the_date_that_is_given():
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}" + tokenizer.chat_template
    dated = ChatTemplate(tokenizer, datetime.date(2026, 7, 4))
    assert tokenizer.decode(dated.prompt((ASK,))).startswith("04 Jul 2026")
    today = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert today.startswith(tokenizer.decode(ChatTemplate(tokenizer).prompt((Message(Role.USER, "a"),)))[:11])

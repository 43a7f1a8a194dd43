"""No text writes a control token, whatever the tokenizer."""

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.errors import DataError
from escultor.text.chat import ChatTemplate
from escultor.text.plain import PlainText, control_ids
from escultor.types import Message, Role

laws = settings(deadline=None, max_examples=80)


def metaspace(inner, **names):
    """A tokenizer in the manner of sentencepiece around a model."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(inner)
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", **names)
    made.add_tokens([AddedToken("<think>", special=False)])
    return made


def unigram():
    from tokenizers import models

    # `</s>` and `<think>` are pieces of the vocabulary that the model itself may choose.
    signs = [(sign, -3.0) for sign in "▁abcdefghijklmnopqrstuvwxyz</>"]
    return metaspace(
        models.Unigram([("<unk>", 0.0), ("</s>", 0.0), ("<think>", 0.0), *signs], 0), unk_token="<unk>"
    )


def word_level():
    from tokenizers import models

    words = ["<unk>", "</s>", "▁</s>", "<think>", "▁<think>", "▁red", *"▁<>/think"]
    return metaspace(
        models.WordLevel({word: i for i, word in enumerate(dict.fromkeys(words))}, "<unk>"), unk_token="<unk>"
    )


def ignoring_merges():
    """As Llama 3's: a piece that is a word of the vocabulary is taken whole."""
    import json

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    parts = json.loads(tiny.chatml_tokenizer().backend_tokenizer.to_str())
    parts["model"]["ignore_merges"] = True
    parts["pre_tokenizer"] = parts["pre_tokenizer"]["pretokenizers"][1]  # nothing cuts `<|im_end|>` up
    inner = Tokenizer.from_str(json.dumps(parts))
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>")


def in_python():
    """A tokenizer without a fast backend: one token per byte."""
    from transformers import ByT5Tokenizer

    made = ByT5Tokenizer(extra_ids=3)
    made.add_tokens(["<think>"])
    return made


MADE = {
    "own": tiny.tokenizer,
    "qwen": tiny.qwen_tokenizer,
    "gemma": lambda: tiny.tokenizer_like("gemma"),
    "mistral": lambda: tiny.tokenizer_like("mistral"),
    "unigram": unigram,
    "word level": word_level,
    "ignoring merges": ignoring_merges,
    "in python": in_python,
}
BYTE_LEVEL = {"own", "qwen", "gemma", "mistral", "ignoring merges", "in python"}
TOKENIZERS = {name: make() for name, make in MADE.items()}
PLAIN = {name: PlainText(tokenizer) for name, tokenizer in TOKENIZERS.items()}
EVERY_NAME = sorted({t.content for each in TOKENIZERS.values() for t in each.added_tokens_decoder.values()})
pieces = st.sampled_from(EVERY_NAME) | st.sampled_from(["<", "<|", "|>", "im_end", "</", " ", "\n"])
hostile = st.lists(pieces | st.text(st.characters(codec="utf-8"), max_size=6), max_size=6).map("".join)
WORDS = ("covid", "    ")  # added, but neither control nor marked as such


@pytest.fixture(scope="module", params=MADE)
def name(request):
    return request.param


@laws
@given(text=hostile)
def test_no_text_writes_an_added_token(name, text):
    tokenizer = TOKENIZERS[name]
    words = {tokenizer.convert_tokens_to_ids(word) for word in WORDS}
    forbidden = set(tokenizer.added_tokens_decoder) - words - {tokenizer.unk_token_id}
    (ids,) = PLAIN[name].encode([text])
    assert forbidden.isdisjoint(ids)
    if name in BYTE_LEVEL:
        assert tokenizer.decode(ids) == text


@laws
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="<>[]|"), max_size=30))
def test_ordinary_text_has_the_tokenizers_own_tokens(name, text):
    assert PLAIN[name].encode([text]) == [TOKENIZERS[name].encode(text, add_special_tokens=False)]


@laws
@given(texts=st.lists(hostile, max_size=5))
def test_a_batch_of_texts_is_encoded_as_one_by_one(name, texts):
    plain = PLAIN[name]
    assert plain.encode(texts) == [plain.encode([text])[0] for text in texts]


def test_templates_may_write_tokens_that_texts_may_not():
    tokenizer = tiny.qwen_tokenizer()
    tokenizer.chat_template += "{% if add_generation_prompt %}{{ '<think>' }}{% endif %}"
    prompt = ChatTemplate(tokenizer).prompt((Message(Role.USER, "red <think>"),))
    assert prompt.count(tokenizer.convert_tokens_to_ids("<think>")) == 1
    assert prompt[-1] == tokenizer.convert_tokens_to_ids("<think>")


def test_added_markup_is_a_control_token_and_added_words_and_spaces_are_not():
    tokenizer = tiny.qwen_tokenizer()
    control = set(tokenizer.convert_ids_to_tokens(sorted(control_ids(tokenizer))))
    assert control == set(tokenizer.added_tokens_encoder) - set(WORDS)
    assert tokenizer.convert_ids_to_tokens(PlainText(tokenizer).encode(["covid    "])[0]) == list(WORDS)


def test_unknown_characters_get_the_unknown_token():
    assert TOKENIZERS["unigram"].unk_token_id in PLAIN["unigram"].encode(["漢"])[0]


def test_texts_are_encoded_in_parts_of_bounded_size(monkeypatch):
    from escultor.text import plain

    texts = [f"red dog {i}" for i in range(7)]
    whole = PLAIN["own"].encode(texts)
    monkeypatch.setattr(plain, "BATCH", 2)
    assert PLAIN["own"].encode(texts) == whole


def test_text_with_a_control_token_of_one_character_is_refused():
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"sep_token": "q"})
    with pytest.raises(DataError, match=r"only be written with a control token; got: \['q'\]"):
        PlainText(tokenizer).encode(["a q"])
    assert PlainText(tokenizer).encode(["red"]) == PLAIN["own"].encode(["red"])


def test_encoding_leaves_the_tokenizer_as_it_was():
    tokenizer = tiny.qwen_tokenizer()
    before = tokenizer.backend_tokenizer.to_str()
    PlainText(tokenizer).encode(["<think>"])
    assert tokenizer.backend_tokenizer.to_str() == before
    assert tokenizer.encode("<think>") == [tokenizer.convert_tokens_to_ids("<think>")]

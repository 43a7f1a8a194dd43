import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.text.tokenizer import CHAT_TEMPLATE, SPECIAL, tokenizer_hash, train_tokenizer

unicode_text = st.text(st.characters(codec="utf-8"), max_size=60)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@settings(deadline=None, max_examples=200)
@given(text=unicode_text)
def test_any_text_comes_back_byte_for_byte(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\x00",
        "\r\n\t",
        "naïve café",
        "Ⅷ ½ ٣",
        "𝔘\u0301",
        "한국어 中文",
        "\ufeff",
        "👩‍👩‍👧",
        "\ue0000\ue001",
    ],
)
def test_rare_characters_come_back(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_vocabulary_has_the_size_asked_for_and_the_control_tokens_first(tokenizer):
    assert len(tokenizer) == tiny.VOCABULARY
    assert tokenizer.convert_ids_to_tokens(range(len(SPECIAL))) == list(SPECIAL)
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)


def test_names_are_cut_at_case_changes_and_digits_in_threes(tokenizer):
    def pieces(text):
        return [text[a:b] for _, (a, b) in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]

    assert pieces("JSONDecodeError(12345)") == ["JSON", "Decode", "Error", "(", "123", "45", ")"]


def test_training_is_repeatable():
    one, two = (train_tokenizer(iter(tiny.TEXTS[:20]), 280, 64) for _ in range(2))
    assert tokenizer_hash(one) == tokenizer_hash(two)
    assert one.chat_template == CHAT_TEMPLATE
    assert one.model_max_length == 64


# --- identity ---------------------------------------------------------------------------------


def test_the_hash_survives_saving(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_hash(AutoTokenizer.from_pretrained(tmp_path)) == tokenizer_hash(tokenizer)


def test_the_hash_is_of_the_tokenizer_and_not_of_its_last_call():
    tokenizer = tiny.tokenizer()
    before = tokenizer_hash(tokenizer)
    tokenizer(["red", "green blue"], padding=True, truncation=True, max_length=2)
    assert tokenizer_hash(tokenizer) == before
    assert tokenizer.backend_tokenizer.padding is not None  # the object itself is left as it was


def test_the_hash_differs_where_a_merge_a_token_or_the_template_differs():
    base = tiny.tokenizer()
    other_text = train_tokenizer(["zig zag zog " * 9], tiny.VOCABULARY, 256)
    template, token = tiny.tokenizer(), tiny.tokenizer()
    template.chat_template = CHAT_TEMPLATE + " "
    token.add_tokens(["new"])
    swapped = tiny.tokenizer()
    swapped.pad_token = swapped.eos_token
    made = [base, other_text, template, token, swapped]
    assert len({tokenizer_hash(each) for each in made}) == len(made)


def test_two_tokenizers_of_equal_size_with_two_merges_swapped_differ():
    import json

    from tokenizers import Tokenizer

    one, two = tiny.tokenizer(), tiny.tokenizer()
    inner = json.loads(two.backend_tokenizer.to_str())
    merges = inner["model"]["merges"]
    merges[0], merges[1] = merges[1], merges[0]
    two._tokenizer = Tokenizer.from_str(json.dumps(inner))
    assert len(one) == len(two)
    assert tokenizer_hash(one) != tokenizer_hash(two)

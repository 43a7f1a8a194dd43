"""What a model makes of a text: laws of attention and probability, and a picture that no token can break."""

import math
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from escultor.config import Pretrain
from escultor.errors import DataError, InputError
from escultor.model.heatmap import attention_svg, safe_text
from escultor.model.inspect import displayed_tokens, inspect_text
from escultor.model.load import init_llama
from escultor.model.loaded import Loaded
from escultor.model.segments import NAME
from escultor.text.tokenizer import BEGIN, train_tokenizer

TEXT = "the model reads the text and the text reads the model"
HOSTILE = ("<script>alert(1)</script>", "\"'&<>", "\x00\x1b\x7f\x85", "\ud800\ufffe", "]]>", "-->", "␣", "")


@pytest.fixture(scope="module")
def loaded():
    torch.manual_seed(0)
    tokenizer = train_tokenizer([TEXT, "an event loop waits"] * 4, 320, 64)
    shape = Pretrain(
        hidden_size=32, layers=2, heads=4, kv_heads=2, intermediate_size=64, context=64, max_length=64
    )
    return Loaded(init_llama(shape, tokenizer), tokenizer)


# --- attention


@pytest.mark.parametrize("layer", [None, 0, 1])
@pytest.mark.parametrize("head", [None, 0, 3])
def test_attention_rows_sum_to_one_and_see_no_later_token(loaded, layer, head):
    seen = inspect_text(loaded, TEXT, layer=layer, head=head)
    weights = torch.tensor(seen.attention, dtype=torch.float64)
    assert weights.shape == (len(seen.tokens),) * 2
    torch.testing.assert_close(
        weights.sum(-1), torch.ones(len(weights), dtype=torch.float64), atol=1e-6, rtol=0
    )
    assert bool((weights.triu(1) == 0).all())
    assert bool((weights >= 0).all())
    assert (seen.layer, seen.head, seen.layers, seen.heads) == (1 if layer is None else layer, head, 2, 4)


def test_the_mean_over_heads_is_the_mean_of_the_heads(loaded):
    heads = [torch.tensor(inspect_text(loaded, TEXT, head=h).attention) for h in range(4)]
    torch.testing.assert_close(
        torch.stack(heads).mean(0), torch.tensor(inspect_text(loaded, TEXT).attention), atol=1e-6, rtol=0
    )


def test_the_model_is_left_as_it_was(loaded):
    loaded.model.train()
    inspect_text(loaded, TEXT)
    assert loaded.model.training
    assert loaded.model.config._attn_implementation == NAME
    with pytest.raises(InputError):
        inspect_text(loaded, TEXT, layer=2)
    assert loaded.model.config._attn_implementation == NAME


# --- probabilities


def test_surprise_is_minus_the_log_probability_in_bits(loaded):
    seen = inspect_text(loaded, TEXT)
    ids = torch.tensor([[p.id for p in seen.positions]])
    loaded.model.eval()
    with torch.no_grad():
        logits = loaded.model(input_ids=ids).logits[0]
    wanted = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none") / math.log(2)
    assert seen.tokens[0] == BEGIN
    assert seen.positions[0].surprise_bits is None
    got = torch.tensor([p.surprise_bits for p in seen.positions[1:]])
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


def test_soft_label_sums_to_one_and_stands_beside_the_hard_one(loaded):
    seen = inspect_text(loaded, TEXT, top=7)
    for at, position in enumerate(seen.positions):
        chances = [e.probability for e in position.soft]
        assert len(chances) == 7
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) + position.rest == pytest.approx(1, abs=1e-9)
        last = at == len(seen.positions) - 1
        assert position.hard_is_guess == last
        assert position.hard.id == (position.soft[0].id if last else seen.positions[at + 1].id)
        if not last:
            bits = seen.positions[at + 1].surprise_bits
            assert -math.log2(position.hard.probability) == pytest.approx(bits, abs=1e-6)


def test_a_model_that_knows_nothing_has_the_entropy_of_its_vocabulary(loaded):
    tokenizer, model = loaded.tokenizer, loaded.model
    blank = type(model)(model.config)
    torch.nn.init.zeros_(blank.get_output_embeddings().weight)
    seen = inspect_text(Loaded(blank, tokenizer), TEXT, top=10**6)
    bits = math.log2(model.config.vocab_size)
    for position in seen.positions:
        assert position.entropy_bits == pytest.approx(bits, abs=1e-6)
        assert len(position.soft) == model.config.vocab_size
        assert position.rest == pytest.approx(0, abs=1e-9)
    assert all(p.surprise_bits == pytest.approx(bits, abs=1e-5) for p in seen.positions[1:])


# --- tokens, and what is refused


def test_tokens_are_readable_and_parts_of_characters_are_bytes(loaded):
    ids = loaded.tokenizer.encode("a \n\t\x01é€", add_special_tokens=False)
    shown = "".join(displayed_tokens(loaded.tokenizer, ids))
    assert shown == "a␣↵⇥␁⟨C3⟩⟨A9⟩⟨E2⟩⟨82⟩⟨AC⟩"
    assert "␣the" in inspect_text(loaded, TEXT).tokens


def test_control_tokens_in_the_text_are_text(loaded):
    seen = inspect_text(loaded, f"a{BEGIN}b")
    assert [p.id for p in seen.positions].count(loaded.tokenizer.bos_token_id) == 1


@pytest.mark.parametrize(
    ("text", "asked", "error", "words"),
    [
        ("", {}, DataError, "no text"),
        ("word " * 80, {}, DataError, "at most 64 tokens"),
        (TEXT, {"layer": 2}, InputError, "no such layer; got: 2; allowed: 0 to 1"),
        (TEXT, {"head": -1}, InputError, "no such head"),
        (TEXT, {"top": 0}, InputError, "top 0"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_words(loaded, text, asked, error, words):
    with pytest.raises(error, match=words):
        inspect_text(loaded, text, **asked)


# --- the picture


def causal(T):
    return [[1 / (i + 1) if j <= i else 0.0 for j in range(T)] for i in range(T)]


def test_hostile_tokens_stay_text_in_well_formed_xml():
    svg = attention_svg(HOSTILE, causal(len(HOSTILE)), title=HOSTILE[0])
    root = ElementTree.fromstring(svg.encode("utf-8"))
    names = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert names == {"svg", "style", "rect", "text", "title"}
    assert any("<script>alert(1)</script> attends to" in (e.text or "") for e in root.iter())


def test_every_seen_cell_has_a_tooltip_and_unseen_ones_are_left_out():
    root = ElementTree.fromstring(attention_svg(["a", "b", "c"], causal(3)))
    tips = [e.text for e in root.iter("{http://www.w3.org/2000/svg}title") if "attends to" in (e.text or "")]
    assert len(tips) == 6
    assert "b attends to a: 0.5000" in tips


def test_the_picture_grows_with_its_cells_and_stays_on_a_page():
    sizes = {T: len(attention_svg(["token"] * T, causal(T))) for T in (3, 16, 64)}
    assert sizes[64] < 600_000
    assert sizes[64] / sizes[16] < 20
    for T in (3, 16, 64, 128):
        root = ElementTree.fromstring(attention_svg(["token"] * T, causal(T)))
        assert 250 <= int(root.attrib["width"]) <= 2000


@pytest.mark.parametrize(
    ("tokens", "weights"),
    [([], []), (["a"] * 129, causal(129)), (["a"], [[1.0, 0.0]]), (["a"], [[1.5]]), (["a"], [[math.nan]])],
)
def test_weights_that_are_none_are_refused(tokens, weights):
    with pytest.raises(DataError):
        attention_svg(tokens, weights)


def test_a_map_of_a_real_inspection(loaded):
    seen = inspect_text(loaded, TEXT)
    root = ElementTree.fromstring(attention_svg(seen.tokens, seen.attention))
    assert root.attrib["role"] == "img"


def test_safe_text_leaves_ordinary_text_alone():
    assert safe_text("naïve €uro 東京\n") == "naïve €uro 東京\n"

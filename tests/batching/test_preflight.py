"""What is said of rows before a run, against counts by hand; and what is refused."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.batching.preflight import NAMED, preflight
from escultor.batching.rows import NllRow, PairRow, document_rows, example_rows, pair_rows
from escultor.errors import DataError, ModelError
from escultor.model.cost import TrainingCost
from escultor.text.chat import ChatTemplate
from escultor.types import Document, Message, Pair, Role

COST = TrainingCost(1, 1, 1, 1, 1, 1, 1.0, 1.0, 1.0)
ASK = (Message(Role.USER, "red dog"),)
OWN, CHAT = tiny.llama(), ChatTemplate(tiny.tokenizer())


def look(rows, counts=(), chat=CHAT, loaded=OWN, **how):
    return preflight(rows, dict(counts), chat, loaded.model, COST, **how)


def examples(*said, chat=CHAT):
    items = [tiny.example(i, prompt, response) for i, (prompt, response) in enumerate(said)]
    return example_rows(items, chat, 200, Counter())


def row(id, ids, start):
    return NllRow(id, np.asarray(ids, dtype=np.int32), start)


def test_sound_rows_are_counted_and_nothing_is_warned_of():
    rows = examples(("red", "cat runs"), ("blue", "dog sleeps here"))
    found = look(rows, {"examples": 2})
    assert found.warnings == ()
    assert (found.rows, found.branches, found.ended, found.unended) == (2, 2, 2, ())
    assert found.tokens == sum(len(each.ids) for each in rows)
    assert found.labelled == sum(len(each.ids) - each.start for each in rows)
    assert found.vocabulary.largest == max(int(each.ids.max()) for each in rows)
    assert (found.vocabulary.tokenizer, found.vocabulary.embedding) == (300, 300)
    assert found.counts == {"examples": 2}
    found.raise_faults(documents=False)


def test_the_first_rows_are_spelt_out_with_what_is_learnt():
    rows = examples(("red", "cat"), ("blue", "dog"), ("one", "bird"))
    found = look(rows, show=2)
    assert [shown.id for shown in found.first] == ["example0", "example1"]
    (spans,) = found.first[0].branches
    assert [span.labelled for span in spans] == [at >= rows[0].start for at in range(rows[0].length)]
    assert "".join(s.text for s in spans if s.labelled) == "cat<|end|>"
    assert "".join(s.text for s in spans if not s.labelled) == "<|begin|><|user|>red<|end|><|assistant|>"


def test_a_pair_has_two_branches_after_one_prompt():
    rows = pair_rows([Pair("p", ASK, "cat", "dog runs", tiny.ORIGIN)], CHAT, 200, Counter())
    found = look(rows)
    (shown,) = found.first
    learnt = ["".join(s.text for s in branch if s.labelled) for branch in shown.branches]
    assert learnt == ["cat<|end|>", "dog␣runs<|end|>"]
    assert (found.rows, found.branches, found.ended) == (1, 2, 2)
    assert found.labelled == len(rows[0].chosen) + len(rows[0].rejected)
    assert found.tokens == rows[0].length


def test_a_third_kind_of_row_needs_no_more_than_its_sequences():
    class Judged:
        id, length = "j", 3
        sequences = (((np.array([5, 6], np.int32), np.array([CHAT.eos], np.int32)),),)

    assert look([Judged()]).ended == 1


def test_weighted_prompts_are_learnt_too():
    rows = [replace(each, prompt_weight=0.5) for each in examples(("red", "cat"))]
    assert look(rows).labelled == rows[0].length - 1


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(["red", "blue"]), st.sampled_from(["cat", "dog"])), min_size=1))
def test_repeated_rows_are_counted_by_their_tokens_and_kept(said):
    found = look(examples(*said))
    assert found.duplicates == len(said) - len(set(said))
    assert any("repeat an earlier one" in text for text in found.warnings) == (found.duplicates > 0)
    assert found.rows == len(said)


def test_where_the_prompt_ends_makes_a_row_another():
    assert look([row("a", [5, 6, 7, CHAT.eos], 1), row("b", [5, 6, 7, CHAT.eos], 2)]).duplicates == 0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(2, 700), min_size=1, max_size=60))
def test_the_lengths_are_those_of_the_rows(lengths):
    found = look([row(str(i), [6] * n, 1) for i, n in enumerate(lengths)]).lengths
    assert (found.min, found.max) == (min(lengths), max(lengths))
    assert found.p50 in lengths
    assert found.p95 in lengths
    assert found.p50 <= found.p95
    assert sum(n for _, n in found.bins) == len(lengths)
    for most, n in found.bins:
        assert n == sum(most / 2 < length <= most for length in lengths)


# --- oddities ---------------------------------------------------------------------------------


def test_rows_without_an_end_are_counted_and_named():
    rows = [row(f"r{i}", [5, 6, 7], 1) for i in range(9)] + examples(("red", "cat"))
    found = look(rows)
    assert (found.ended, found.branches) == (1, 10)
    assert found.unended == tuple(f"r{i}" for i in range(NAMED))
    assert any("9 rows do not end the turn" in text and "r0" in text for text in found.warnings)
    found.raise_faults(documents=False)


@pytest.mark.parametrize("family", ["qwen", "gemma", "mistral"])
def test_an_end_of_turn_written_in_letters_is_noticed(family):
    chat = ChatTemplate(tiny.tokenizer_like(family))
    mark, eos = (chat.tokenizer.decode([id]) for id in (chat.turn_end[-1], chat.eos))
    said = [
        ("red", f"cat{mark}"),
        ("red", f"cat{mark}\n"),
        ("red", f"cat runs{eos}"),
        ("red", mark),
        ("a", "cat>"),
    ]
    found = look(examples(*said, chat=chat), chat=chat)
    (text,) = [text for text in found.warnings if "as text" in text]
    assert text.startswith("4 rows")
    assert "example4" not in text
    assert found.ended == 5  # the real end follows all the same


def test_a_second_begin_token_is_noticed():
    assert not any("begins a text" in text for text in look(examples(("red", "cat"))).warnings)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    twice = ChatTemplate(tokenizer)
    assert any(
        "begins a text more" in text
        for text in look(examples(("red", "cat"), chat=twice), chat=twice).warnings
    )


def test_a_begin_token_that_also_begins_each_turn_is_no_second_one():
    tokenizer = tiny.chatml_tokenizer()
    tokenizer.bos_token = "<|im_start|>"
    chat = ChatTemplate(tokenizer)
    found = look(examples(("red", "cat"), chat=chat), chat=chat)
    assert not any("begins a text" in text for text in found.warnings)


def test_what_was_dropped_or_cut_is_a_warning():
    counts = {"documents": 3, "documents cut into windows": 2, "dropped: empty prompt": 0}
    assert look(examples(("red", "cat")), counts).warnings == ("documents cut into windows: 2",)
    counts = {"examples": 2, "first tokens not learnt: empty prompt": 1}
    assert look(examples(("red", "cat")), counts).warnings == ("first tokens not learnt: empty prompt: 1",)


def test_a_config_that_stops_or_pads_elsewhere_is_noticed():
    other = tiny.llama()
    other.model.config.eos_token_id = other.model.generation_config.eos_token_id = 5
    other.model.config.pad_token_id = 4
    stops, pads = look(examples(("red", "cat")), loaded=other).warnings
    assert "stops at [5], its turns end with 2" in stops
    assert "pads with 4, the tokenizer with 0" in pads
    other.model.generation_config.eos_token_id = [5, 2]
    assert len(look(examples(("red", "cat")), loaded=other).warnings) == 1


# --- faults -----------------------------------------------------------------------------------


def test_an_id_beyond_the_embedding_is_refused():
    found = look([row("a", [5, 300, CHAT.eos], 1)])
    assert [span.text for span in found.first[0].branches[0]][1] == "⟨#300⟩"
    with pytest.raises(
        ModelError, match=r"do not belong together; got: 300 tokens, ids up to 300 .* below 300"
    ):
        found.raise_faults(documents=False)


def test_a_tokenizer_longer_than_the_embedding_is_refused():
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["<think>"])
    with pytest.raises(ModelError, match="got: 301 tokens"):
        look(examples(("red", "cat")), chat=ChatTemplate(tokenizer)).raise_faults(documents=False)


def test_rows_of_which_nothing_is_learnt_are_refused():
    with pytest.raises(DataError, match="nothing in the data is labelled"):
        look([row("a", [5, 6], 2)]).raise_faults(documents=True)


def test_data_that_never_ends_a_turn_is_refused_but_for_documents():
    found = look([row("a", [5, 6], 1), row("b", [5, 7], 1)])
    with pytest.raises(DataError, match=r"no row ends its turn .*such as a, b"):
        found.raise_faults(documents=False)
    found.raise_faults(documents=True)


def test_windows_of_documents_need_not_end():
    text = "".join(f" cat {i}" for i in range(50))
    rows = document_rows([Document("d", text, tiny.ORIGIN)], CHAT, 16, Counter())
    found = look(rows, documents=True)
    assert found.ended == 1
    assert found.warnings == ()


def test_one_side_without_its_end_is_enough_to_be_named():
    end = np.array([CHAT.eos], np.int32)
    some = np.array([7, 8], np.int32)
    found = look([PairRow("p", some, end, some)])
    assert (found.ended, found.unended) == (1, ("p",))

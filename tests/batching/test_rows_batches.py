from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.batching.batches import (
    FORWARD_TOKENS,
    best_fit,
    epoch_order,
    first_fit,
    group_by_length,
    nll_batch,
    pair_batch,
)
from escultor.batching.rows import NllRow, PairRow, document_rows, example_rows, pair_rows
from escultor.model.forward import logp_at_labels
from escultor.text.chat import ChatTemplate
from escultor.train.streams import PackedStream, RowStream
from escultor.types import Document, Message, Pair, Role

lengths = st.lists(st.integers(2, 40), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def model():
    return tiny.llama().model.eval()


@pytest.fixture(scope="module")
def chat():
    return ChatTemplate(tiny.tokenizer())


def outcome(model, batches):
    """Loss and gradient over some batches, divided by the whole weight."""
    model.zero_grad()
    weight = sum(float(batch.weight.sum()) for batch in batches)
    loss = torch.zeros(())
    for batch in batches:
        loss = loss - (logp_at_labels(model, batch.packed) * batch.weight).sum() / weight
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])


def assert_same(one, other):
    assert one[0] == pytest.approx(other[0], abs=1e-6)
    torch.testing.assert_close(one[1], other[1], atol=1e-6, rtol=0)


def read_back(batch):
    """The labelled tokens of every row, from the tensors alone."""
    packed = batch.packed
    return [packed.target[packed.sequence == s].tolist() for s in range(packed.sequences)]


# --- the loss does not know how rows were cut -------------------------------------------------


@pytest.mark.parametrize("capacity", [1, 40, 64, 512])
def test_loss_and_gradient_do_not_depend_on_the_packing_capacity(model, capacity):
    rows = tiny.nll_rows()
    alone = outcome(model, [nll_batch([row], 1) for row in rows])
    assert_same(outcome(model, [nll_batch(rows, capacity)]), alone)


def test_loss_and_gradient_do_not_depend_on_the_order(model):
    rows = tiny.nll_rows()
    assert_same(outcome(model, [nll_batch(rows[::-1], 64)]), outcome(model, [nll_batch(rows, 64)]))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_loss_and_gradient_do_not_depend_on_the_micro_batches(model, size):
    rows = tiny.nll_rows()
    parts = [nll_batch(rows[at : at + size]) for at in range(0, len(rows), size)]
    assert_same(outcome(model, parts), outcome(model, [nll_batch(rows)]))


def test_loss_and_gradient_do_not_depend_on_what_is_not_labelled(model):
    rows = [replace(row, start=max(2, row.start)) for row in tiny.nll_rows()]
    batch = nll_batch(rows, 64)
    unlabelled = set(range(batch.packed.ids.numel())) - set((batch.packed.source + 1).tolist())
    changed = batch.packed.ids.clone().flatten()
    padding = batch.packed.segment.flatten() == 0
    changed[padding] = 7
    assert set(torch.nonzero(padding).flatten().tolist()) <= unlabelled
    other = replace(batch, packed=replace(batch.packed, ids=changed.view_as(batch.packed.ids)))
    assert_same(outcome(model, [other]), outcome(model, [batch]))


@pytest.mark.parametrize("capacity", [1, 64, 512])
def test_a_pairs_log_probs_are_those_of_its_two_sequences(model, capacity):
    rows = tiny.pair_rows()
    batch = pair_batch(rows, capacity)
    logp = logp_at_labels(model, batch.packed).detach()
    for row, chosen, rejected in zip(rows, batch.chosen.tolist(), batch.rejected.tolist(), strict=True):
        for side, ids in ((chosen, row.chosen), (rejected, row.rejected)):
            whole = NllRow("alone", np.concatenate([row.prompt, ids]), len(row.prompt))
            alone = logp_at_labels(model, nll_batch([whole], 1).packed).detach()
            torch.testing.assert_close(logp[batch.packed.sequence == side], alone, atol=1e-5, rtol=0)
            assert batch.packed.target[batch.packed.sequence == side].tolist() == ids.tolist()


def test_a_pairs_gradient_is_that_of_its_two_sequences(model):
    rows = tiny.pair_rows()
    whole = [
        NllRow("alone", np.concatenate([row.prompt, ids]), len(row.prompt))
        for row in rows
        for ids in (row.chosen, row.rejected)
    ]
    packed = pair_batch(rows).packed
    shared = replace(nll_batch(whole), packed=packed, weight=torch.ones(len(packed.target)))
    assert_same(outcome(model, [shared]), outcome(model, [nll_batch(whole)]))


# --- what is labelled -------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [1, 50, 512])
def test_labels_are_the_tokens_from_start_on_but_those_in_gaps(capacity):
    rows = tiny.nll_rows()
    batch = nll_batch(rows, capacity)
    inside = [{i for start, end in row.gaps for i in range(start, end)} for row in rows]
    assert any(inside)
    assert read_back(batch) == [
        [int(row.ids[i]) for i in range(row.start, row.length) if i not in gap]
        for row, gap in zip(rows, inside, strict=True)
    ]
    flat = batch.packed.ids.flatten()
    assert flat[batch.packed.source + 1].tolist() == batch.packed.target.tolist()
    assert batch.packed.tokens == sum(row.length for row in rows)


def test_a_token_is_predicted_from_its_own_row_and_never_the_first():
    for batch in (nll_batch(tiny.nll_rows(start=1), 64), pair_batch(tiny.pair_rows(), 64)):
        packed = batch.packed
        segment, position = packed.segment.flatten(), packed.position.flatten()
        assert (segment[packed.source] > 0).all()
        assert (packed.source >= 0).all()
        own = torch.unique(torch.stack([packed.sequence, segment[packed.source]]), dim=1)
        assert own.shape[1] == packed.sequences  # every sequence stays inside one segment
        assert (position[packed.source] >= 0).all()


def test_only_the_response_is_labelled_its_end_token_included(chat):
    (row,) = example_rows([tiny.example(0, "red dog", "blue cat")], chat, 64, Counter())
    prompt = chat.prompt((Message(Role.USER, "red dog"),))
    assert row.ids[: row.start].tolist() == prompt
    assert row.ids[row.start :].tolist() == [*chat.text("blue cat"), chat.eos]


def test_the_first_token_is_never_labelled():
    plain = ChatTemplate(tiny.chatml_tokenizer(template=None))
    (row,) = example_rows([tiny.example(0, "", "cat")], plain, 64, Counter())
    assert row.start == 1
    assert all(
        row.start == 1
        for row in document_rows([Document("d", "cat " * 50, tiny.ORIGIN)], plain, 16, Counter())
    )


def test_both_sides_of_a_pair_end_alike(chat):
    pair = Pair("p", (Message(Role.USER, "red"),), "cat", "dog", tiny.ORIGIN, 2.0, 0.1)
    (row,) = pair_rows([pair], chat, 64, Counter())
    assert row.chosen.tolist() == [*chat.text("cat"), chat.eos]
    assert row.rejected.tolist() == [*chat.text("dog"), chat.eos]
    assert (row.weight, row.flip_rate) == (2.0, 0.1)


def test_a_rows_weight_is_that_of_each_of_its_tokens():
    batch = nll_batch(tiny.nll_rows())
    for s, row in enumerate(tiny.nll_rows()):
        assert set(batch.weight[batch.packed.sequence == s].tolist()) == {row.weight}


# --- nothing dropped in silence ---------------------------------------------------------------


def test_long_examples_and_pairs_are_dropped_and_counted(chat):
    counts = Counter()
    some = [tiny.example(0, "red", "cat"), tiny.example(1, "red", "cat " * 50)]
    assert [row.id for row in example_rows(some, chat, 32, counts)] == ["example0"]
    assert counts == {"examples": 2, "dropped: longer than max_length": 1}
    counts = Counter()
    ask = (Message(Role.USER, "red"),)
    sides = [("cat", "dog"), ("cat", "dog " * 50), ("cat " * 50, "dog"), ("cat", "cat")]
    pairs = [Pair(f"p{i}", ask, *each, tiny.ORIGIN) for i, each in enumerate(sides)]
    assert [row.id for row in pair_rows(pairs, chat, 32, counts)] == ["p0"]
    assert counts == {"pairs": 4, "dropped: longer than max_length": 2, "dropped: chosen equals rejected": 1}


def test_an_example_without_a_prompt_says_what_is_not_learnt_of_it():
    plain, counts = ChatTemplate(tiny.chatml_tokenizer(template=None)), Counter()
    some = [tiny.example(0, "", "cat dog"), tiny.example(1, "", "")]
    (row,) = example_rows(some, plain, 32, counts)
    assert counts == {
        "examples": 2,
        "first tokens not learnt: empty prompt": 1,
        "dropped: empty prompt and response": 1,
    }
    assert len(nll_batch([row]).packed.target) == row.length - 1


def test_a_pair_whose_prompt_has_no_token_is_dropped_and_counted():
    # Nothing stands before its first token, from which that could be predicted.
    plain = ChatTemplate(tiny.chatml_tokenizer(template=None))
    counts = Counter()
    pair = Pair("p", (Message(Role.USER, ""),), "cat", "dog", tiny.ORIGIN)
    assert pair_rows([pair], plain, 32, counts) == []
    assert counts["dropped: empty prompt"] == 1


@settings(deadline=None, max_examples=50)
@given(words=st.integers(0, 60), most=st.integers(2, 20))
def test_every_token_of_a_document_is_in_one_window_or_counted(chat, words, most):
    counts = Counter()
    (whole,) = chat.documents(["cat " * words])
    rows = document_rows([Document("d", "cat " * words, tiny.ORIGIN)], chat, most, counts)
    left_out = counts["dropped: windows of a single token"]
    assert sum(row.length for row in rows) + left_out == len(whole)
    assert np.concatenate([row.ids for row in rows]).tolist() == whole[: len(whole) - left_out]
    assert counts["documents cut into windows"] == (len(whole) > most)
    assert max(row.length for row in rows) <= most
    assert len({row.id for row in rows}) == len(rows)


# --- which row goes where ---------------------------------------------------------------------


@given(lengths, st.integers(40, 90))
def test_layouts_hold_every_segment_once_and_no_row_is_overfull(some, capacity):
    for layout in (first_fit(some, capacity), best_fit(some, capacity, seed=1)):
        assert sorted(i for row in layout for i in row) == list(range(len(some)))
        assert all(sum(some[i] for i in row) <= capacity for row in layout)
    assert best_fit(some, capacity, 1) == best_fit(some, capacity, 1)


@given(st.lists(st.integers(1, FORWARD_TOKENS + 10), max_size=60), st.none() | st.integers(1, 5))
def test_length_groups_hold_every_index_once_within_their_bounds(lengths, max_rows):
    groups = group_by_length(lengths, max_rows)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert all(len(group) <= (max_rows or len(lengths)) for group in groups)
    assert all(sum(lengths[i] for i in group) <= FORWARD_TOKENS or len(group) == 1 for group in groups)


def test_an_epochs_order_is_a_permutation_named_by_seed_and_epoch():
    assert sorted(epoch_order(50, 1, 0, True)) == list(range(50))
    assert epoch_order(50, 1, 0, True).tolist() == epoch_order(50, 1, 0, True).tolist()
    assert epoch_order(50, 1, 0, True).tolist() != epoch_order(50, 1, 1, True).tolist()
    assert epoch_order(50, 1, 0, True).tolist() != epoch_order(50, 2, 0, True).tolist()
    assert epoch_order(5, 1, 3, False).tolist() == [0, 1, 2, 3, 4]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20), st.integers(1, 8), st.integers(1, 3), st.none() | st.integers(1, 3))
def test_every_epoch_visits_each_row_once(count, batch_size, epochs, micro):
    rows = tiny.nll_rows(count)
    own = tiny.settings(batch_size=batch_size, epochs=epochs, micro_batch_size=micro)
    stream = RowStream(rows, own, lambda chosen: [row.id for row in chosen])
    steps = [[id for part in stream.micro_batches(step) for id in part] for step in range(stream.steps)]
    assert all(len(step) == batch_size for step in steps[:-1])
    seen = Counter(id for step in steps for id in step)
    assert seen == {row.id: epochs for row in rows}
    if count % batch_size == 0:
        per_epoch = count // batch_size
        for at in range(0, len(steps), per_epoch):
            seen = [id for step in steps[at : at + per_epoch] for id in step]
            assert sorted(seen) == sorted(row.id for row in rows)
    for step in reversed(range(stream.steps)):  # the same step is the same batch, whatever came before
        assert [id for part in stream.micro_batches(step) for id in part] == steps[step]


def test_max_steps_and_parts_of_epochs_end_a_stream():
    rows = tiny.nll_rows(10)
    assert RowStream(rows, tiny.settings(epochs=2, max_steps=3), nll_batch).steps == 3
    half = RowStream(rows, tiny.settings(epochs=0.5), lambda chosen: [row.id for row in chosen])
    assert sum(len(part) for step in range(half.steps) for part in half.micro_batches(step)) == 5


def test_packed_documents_are_visited_once_an_epoch():
    rows = [replace(row, id=f"d{i}") for i, row in enumerate(tiny.nll_rows(40, start=1))]
    stream = PackedStream(rows, tiny.settings(max_length=64, batch_size=3, epochs=2, micro_batch_size=2))
    batches = [batch for step in range(stream.steps) for batch in stream.micro_batches(step)]
    assert Counter(id for batch in batches for id in batch.rows) == {row.id: 2 for row in rows}
    assert all(batch.packed.ids.shape[1] == 64 for batch in batches)
    assert sum(len(batch.packed.target) for batch in batches) == 2 * sum(row.length - 1 for row in rows)


def test_pair_rows_of_equal_tokens_have_one_key():
    (row,) = tiny.pair_rows(1)
    assert replace(row, id="other", weight=9.0).key == row.key
    assert PairRow("p", row.prompt, row.rejected, row.chosen).key != row.key

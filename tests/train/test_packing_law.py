"""The loss and gradient of a step are those of its rows each alone, however they are packed, padded,
ordered and cut into micro-batches; the library's default call on packed documents has other ones."""

import math
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.batching.batches import best_fit, nll_batch, pair_batch
from escultor.batching.rows import NllRow, PairRow
from escultor.batching.teacher import with_teacher
from escultor.config import Distillation, Dpo
from escultor.model.forward import logp_at_labels
from escultor.train.methods import METHODS
from escultor.train.objectives.dpo import PreferencePairs, dpo
from escultor.train.objectives.nll import nll
from escultor.train.objectives.sequence_logps import SequenceLogps

RTOL = 1e-5
laws = settings(deadline=None, max_examples=40)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = tiny.llama().model
    for parameter in made.parameters():  # of order 1 as in a trained model, so that a leak would show
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    return made


@pytest.fixture(scope="module")
def teacher():
    return tiny.llama(seed=1).model


kd_objective = METHODS["distill"].objective(Distillation(dtype="float32"))


def outcome(model, batches, loss):
    """Loss and gradient of a step as the loop takes it: sums over micro-batches, divided once. And what
    its parts measure: gradients may cancel, their rounding does not."""
    parts, whole, size = [], 0.0, 0.0
    for batch in batches:
        model.zero_grad()
        part = loss(model, batch)
        part.total.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        whole, size = whole + gradient, size + gradient.norm().item()
        parts.append((part.total.item(), part.weight))
    weight = math.fsum(w for _, w in parts)
    return math.fsum(total for total, _ in parts) / weight, whole / weight, size / weight


def assert_same(one, other):
    assert one[0] == pytest.approx(other[0], rel=RTOL)
    assert (one[1] - other[1]).norm() <= RTOL * other[2]


def nll_loss(model, batch):
    return nll(logp_at_labels(model, batch.packed), batch.weight)


def dpo_loss(model, batch):
    packed = batch.packed
    reference_logp = torch.full(packed.target.shape, -5.0)
    logps = SequenceLogps(logp_at_labels(model, packed), reference_logp, packed.sequence, packed.sequences)
    return dpo(logps, PreferencePairs(batch.chosen, batch.rejected, batch.weight), 0.1)


def ids(least=1, most=30):
    return st.integers(least, most).flatmap(
        lambda n: st.integers(0, 2**32 - 1).map(
            lambda seed: np.random.default_rng(seed).integers(6, tiny.VOCABULARY, n).astype(np.int32)
        )
    )


weights = st.sampled_from([0.25, 1.0, 3.0])


@st.composite
def _nll_row(draw):
    """A row of one learnt turn or more."""
    tokens = draw(ids(2))
    bounds = sorted(draw(st.sets(st.integers(1, len(tokens) - 1), min_size=1, max_size=5)))
    gaps = tuple(zip(bounds[1::2], bounds[2::2], strict=False))
    return NllRow("r", tokens, bounds[0], draw(weights), gaps=gaps)


nll_rows = st.lists(_nll_row(), min_size=1, max_size=7)
pairs = st.builds(PairRow, st.just("p"), ids(), ids(), ids(), weights)
pair_rows = st.lists(pairs.filter(lambda row: row.chosen[0] != row.rejected[0]), min_size=1, max_size=5)


def cut(rows, sizes):
    """Rows in groups of the sizes given, taken in turn."""
    at, groups = 0, []
    while at < len(rows):
        size = sizes[len(groups) % len(sizes)]
        groups.append(rows[at : at + size])
        at += size
    return groups


cuts = st.lists(st.integers(1, 4), min_size=1, max_size=3)


@laws
@given(rows=nll_rows, data=st.data(), capacity=st.integers(1, 120), sizes=cuts)
def test_a_step_of_examples_is_that_of_each_alone(model, rows, data, capacity, sizes):
    alone = outcome(model, [nll_batch([row], 1) for row in rows], nll_loss)
    shuffled = data.draw(st.permutations(rows))
    assert_same(outcome(model, [nll_batch(part, capacity) for part in cut(shuffled, sizes)], nll_loss), alone)


def turns_of(row):
    """A row for each learnt turn of a row, with the tokens up to its end."""
    starts, ends = (row.start, *(end for _, end in row.gaps)), (*(start for start, _ in row.gaps), row.length)
    return [NllRow("r", row.ids[:end], start, row.weight) for start, end in zip(starts, ends, strict=True)]


@laws
@given(rows=nll_rows, capacity=st.integers(1, 120))
def test_a_conversation_under_one_mask_is_the_sum_of_its_turns(model, rows, capacity):
    apart = outcome(model, [nll_batch([turn], 1) for row in rows for turn in turns_of(row)], nll_loss)
    assert_same(outcome(model, [nll_batch(rows, capacity)], nll_loss), apart)


@laws
@given(rows=pair_rows, data=st.data(), capacity=st.integers(1, 120), sizes=cuts)
def test_a_step_of_pairs_is_that_of_each_alone(model, rows, data, capacity, sizes):
    alone = outcome(model, [pair_batch([row], 1) for row in rows], dpo_loss)
    shuffled = data.draw(st.permutations(rows))
    assert_same(
        outcome(model, [pair_batch(part, capacity) for part in cut(shuffled, sizes)], dpo_loss), alone
    )


@laws
@given(rows=nll_rows, data=st.data(), capacity=st.integers(1, 120), sizes=cuts)
def test_a_step_of_distillation_is_that_of_each_alone(model, teacher, rows, data, capacity, sizes):
    def loss(model, batch):
        return kd_objective.loss(model, with_teacher(teacher, batch, "float32"), 0.0)

    alone = outcome(model, [nll_batch([row], 1) for row in rows], loss)
    shuffled = data.draw(st.permutations(rows))
    assert_same(outcome(model, [nll_batch(part, capacity) for part in cut(shuffled, sizes)], loss), alone)


@settings(deadline=None, max_examples=10)
@given(rows=nll_rows, factor=st.sampled_from([0.01, 3.0, 1000.0]), twice=st.integers(0, 6))
def test_a_row_of_weight_2_is_the_row_twice_and_weights_all_alike_change_nothing(model, rows, factor, twice):
    at = twice % len(rows)
    plain = outcome(model, [nll_batch(rows)], nll_loss)
    scaled = [replace(row, weight=factor * row.weight) for row in rows]
    assert_same(outcome(model, [nll_batch(scaled)], nll_loss), plain)
    heavy = [replace(row, weight=2 * row.weight) if i == at else row for i, row in enumerate(rows)]
    repeated = outcome(model, [nll_batch([*rows, rows[at]])], nll_loss)
    assert_same(outcome(model, [nll_batch(heavy)], nll_loss), repeated)


@pytest.mark.parametrize("normalised", [False, True])
def test_so_is_a_pair_of_weight_2_with_an_nll_term_and_per_token(model, normalised):
    rows = tiny.pair_rows(5)
    own = Dpo(nll_weight=0.5, length_normalised=normalised)
    objective = METHODS["dpo"].objective(own)

    def loss(model, batch):
        said = torch.full(batch.packed.target.shape, -5.0)
        return objective.loss(model, replace(batch, reference_logp=said), 0.0)

    heavy = [replace(row, weight=2 * row.weight) if i == 1 else row for i, row in enumerate(rows)]
    expected = outcome(model, [pair_batch([row], 1) for row in [*rows, rows[1]]], loss)
    assert_same(outcome(model, [pair_batch(part, 64) for part in cut(heavy, [2, 1])], loss), expected)


@laws
@given(rows=nll_rows, seed=st.integers(0, 5), capacity=st.integers(30, 120))
def test_documents_packed_by_best_fit_are_as_each_alone(model, rows, seed, capacity):
    rows = [replace(row, start=1, weight=1.0) for row in rows]
    layout = best_fit([row.length for row in rows], capacity, seed)
    alone = outcome(model, [nll_batch([row], 1) for row in rows], nll_loss)
    assert_same(outcome(model, [nll_batch(rows, capacity, layout)], nll_loss), alone)


def test_the_librarys_default_call_learns_from_other_documents_and_ours_does_not(model):
    rows = tiny.nll_rows(6, start=1)
    rows = [replace(row, weight=1.0) for row in rows]
    alone = outcome(model, [nll_batch([row], 1) for row in rows], nll_loss)
    whole = torch.from_numpy(np.concatenate([row.ids for row in rows]))[None].long()
    labels = whole.clone()
    labels[0, np.cumsum([0, *(row.length for row in rows[:-1])])] = -100  # the first token of each
    positions = torch.cat([torch.arange(row.length) for row in rows])[None]

    def packed_by_positions(**how):
        model.zero_grad()
        loss = model(input_ids=whole, labels=labels, position_ids=positions, **how).loss
        loss.backward()
        return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])

    for how in ({}, {"attention_mask": torch.ones_like(whole)}):
        leaky = packed_by_positions(**how)
        assert abs(leaky[0] - alone[0]) > 1e-3 * alone[0]
        assert (leaky[1] - alone[1]).norm() > 0.01 * alone[1].norm()
    assert_same(packed_by_positions(use_cache=False), alone)  # the one call form that is right
    assert_same(outcome(model, [nll_batch(rows, 512)], nll_loss), alone)

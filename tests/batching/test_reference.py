"""What a reference said is found again by tokens and weights, and by nothing else."""

import sqlite3
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from forked import FORKED

from escultor.batching import reference
from escultor.batching.batches import pair_batch
from escultor.batching.reference import FILE, ReferenceLogp
from escultor.errors import StoreError
from escultor.model.forward import logp_at_labels
from escultor.model.loaded import model_hash


@pytest.fixture
def model():
    return tiny.llama().model


def asked(model, rows, folder, dtype="float32"):
    """A cache that was told to prepare these rows."""
    cache = ReferenceLogp(model, dtype, folder)
    cache.prepare(rows)
    return cache


def counted(model, rows, folder, dtype="float32"):
    cache = asked(model, rows, folder, dtype)
    return cache.computed, cache.reused


def test_the_values_are_the_models_own_per_token(model, tmp_path):
    rows = tiny.pair_rows()
    expected = logp_at_labels(model.eval(), pair_batch(rows).packed).detach()
    for _ in range(2):  # computed, then read
        torch.testing.assert_close(asked(model, rows, tmp_path).get(rows), expected, atol=1e-6, rtol=0)


def test_both_branches_can_be_had_apart(model):
    rows = tiny.pair_rows()
    cache = asked(model, rows, None)
    first, second = cache.get_branches(rows)
    parts = cache.get(rows).split([n for row in rows for n in (len(row.chosen), len(row.rejected))])
    assert torch.equal(first, torch.cat(parts[0::2]))
    assert torch.equal(second, torch.cat(parts[1::2]))


def test_a_second_run_computes_nothing_whatever_its_rows_weigh(model, tmp_path):
    rows = tiny.pair_rows()
    assert counted(model, rows, tmp_path) == (5, 0)
    again = [replace(row, id=f"new{i}", weight=9.0, flip_rate=0.3) for i, row in enumerate(reversed(rows))]
    assert counted(tiny.llama().model, again, tmp_path) == (0, 5)  # other objects, the same weights


def test_one_token_changed_computes_that_row_alone(model, tmp_path):
    rows = tiny.pair_rows()
    asked(model, rows, tmp_path)
    changed = rows[2].chosen.copy()
    changed[-1] += 1
    assert counted(model, [*rows[:2], replace(rows[2], chosen=changed), *rows[3:]], tmp_path) == (1, 4)


@pytest.mark.parametrize("cut", ["chosen", "rejected", "prompt"])
def test_a_row_cut_short_is_another_row(model, tmp_path, cut):
    # Truncation changed in a run's settings changes the tokens, and so the key.
    row = max(tiny.pair_rows(), key=lambda r: min(len(r.prompt), len(r.chosen), len(r.rejected)))
    asked(model, [row], tmp_path)
    shorter = replace(row, **{cut: getattr(row, cut)[:-1]})
    cache = asked(model, [shorter], tmp_path)
    assert (cache.computed, cache.reused) == (1, 0)
    expected = logp_at_labels(model.eval(), pair_batch([shorter]).packed).detach()
    torch.testing.assert_close(cache.get([shorter]), expected, atol=1e-6, rtol=0)


def test_a_token_moved_across_a_border_is_another_row():
    row = replace(
        tiny.pair_rows()[0], prompt=np.arange(4, dtype=np.int32), chosen=np.arange(3, dtype=np.int32)
    )
    moved = replace(row, prompt=np.arange(3, dtype=np.int32), chosen=np.asarray([3, 0, 1, 2], dtype=np.int32))
    assert moved.key != row.key


def test_one_weight_changed_computes_all(model, tmp_path):
    rows = tiny.pair_rows()
    asked(model, rows, tmp_path)
    with torch.no_grad():
        model.model.norm.weight[0] += 1e-3
    assert counted(model, rows, tmp_path) == (5, 0)


def test_the_precision_and_the_shape_are_part_of_the_reference(model):
    other = tiny.llama().model
    other.config.rms_norm_eps *= 10
    names = {model_hash(model, "float32"), model_hash(model, "bfloat16"), model_hash(other, "float32")}
    assert len(names) == 3


def test_training_the_policy_does_not_change_what_the_reference_said(model, tmp_path):
    rows = tiny.pair_rows()
    cache = asked(model, rows, tmp_path)
    before = cache.get(rows)
    with torch.no_grad():
        model.model.norm.weight.mul_(2)
    assert torch.equal(cache.get(rows), before)


def test_what_was_not_prepared_is_not_made_up_by_the_model_in_training(model, tmp_path):
    rows = tiny.pair_rows()
    cache = asked(model, rows[:4], tmp_path)
    with pytest.raises(StoreError, match="1 of 5 rows missing"):
        cache.get(rows)


def test_a_value_of_the_wrong_length_is_computed_again(model, tmp_path):
    rows = tiny.pair_rows(1)
    expected = asked(model, rows, tmp_path).get(rows)
    with sqlite3.connect(tmp_path / FILE) as file:
        file.execute("update logp set value = x'00000000'")
    assert torch.equal(asked(model, rows, tmp_path).get(rows), expected)


def test_a_damaged_file_is_refused_with_the_remedy(model, tmp_path):
    (tmp_path / FILE).write_bytes(b"this is no database" * 99)
    with pytest.raises(StoreError, match="delete the file"):
        ReferenceLogp(model, "float32", tmp_path)


def test_a_file_too_large_forgets_the_references_not_used_for_longest(model, tmp_path, monkeypatch):
    rows = tiny.pair_rows(40)
    asked(model, rows, tmp_path)
    monkeypatch.setattr(reference, "MAX_BYTES", 1)
    assert counted(tiny.llama(seed=1).model, rows, tmp_path) == (40, 0)
    assert counted(tiny.llama(seed=1).model, rows, tmp_path) == (0, 40)
    assert counted(model, rows, tmp_path) == (40, 0)


def _prepare(folder, first):
    torch.set_num_threads(1)
    rows = tiny.pair_rows(30)
    asked(tiny.llama().model, rows[first : first + 20], folder)


def test_two_processes_may_write_at_once(model, tmp_path):
    both = [FORKED.Process(target=_prepare, args=(tmp_path, first)) for first in (0, 10)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert counted(model, tiny.pair_rows(30), tmp_path) == (0, 30)

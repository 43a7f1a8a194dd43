"""Columns on disk give what arrays in memory give, however few of their numbers are looked at at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from escultor.datasets.disk import columns
from escultor.datasets.disk.columns import Column, count_codes, first_rows, lowest, partition_by_key, sortable
from escultor.datasets.similarity.duplicates import (
    candidate_pairs,
    candidates_by_partition,
    equal_pairs,
    merge_clusters,
    resolve_roots,
)
from escultor.text.shingles import mix64

SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True, scope="module")
def few_at_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "WINDOW_ROWS", 16)
        yield


def hashes(draw, rows, values):
    """(rows,) of so many different ones, some of them often."""
    return mix64(
        np.minimum(draw.integers(values, size=rows), draw.integers(values, size=rows)).astype(np.uint64)
    )


def test_a_column_is_read_in_windows_and_by_number(tmp_path):
    values = np.random.default_rng(0).integers(1 << 60, size=100)
    values.tofile(tmp_path / "x.bin")
    column = Column(tmp_path / "x.bin", values.dtype, len(values))
    assert np.array_equal(column[16:100], values[16:])
    assert len(column[50:50]) == 0
    for numbers in (np.arange(100), np.asarray([0, 15, 16, 99]), np.asarray([47]), np.empty(0, np.int64)):
        assert np.array_equal(column.take(numbers), values[numbers])


@given(SEEDS, st.integers(0, 300), st.integers(1, 60))
def test_rows_with_equal_keys_are_in_one_part_and_every_row_in_one(seed, rows, values):
    draw = np.random.default_rng(seed)
    keys, mask = hashes(draw, rows, values), draw.random(rows) < 0.8
    owner: dict[int, int] = {}
    numbers, part = [], 0
    for goes_on, records in partition_by_key([keys], mask, None):
        part += not goes_on
        assert len(records) <= 32
        assert all(owner.setdefault(int(key), part) == part for key in records[:, 0])
        assert np.array_equal(keys[records[:, 1].astype(int)], records[:, 0])
        numbers += records[:, 1].tolist()
    assert sorted(numbers) == np.flatnonzero(mask).tolist()


@given(SEEDS, st.integers(0, 300), st.integers(1, 60))
def test_the_first_of_equal_rows_is_told_for_each_of_the_others(seed, rows, values):
    draw = np.random.default_rng(seed)
    keys = [hashes(draw, rows, values), hashes(draw, rows, 2)]
    mask = draw.random(rows) < 0.8
    known: dict[tuple[int, int], int] = {}
    wanted = set()
    for at in np.flatnonzero(mask).tolist():
        earlier = known.setdefault((int(keys[0][at]), int(keys[1][at])), at)
        if earlier < at:
            wanted.add((earlier, at))
    found = [tuple(pair) for pairs in equal_pairs(keys, mask, None) for pair in pairs.tolist()]
    assert len(found) == len(set(found))
    assert set(found) == wanted


@given(SEEDS, st.integers(0, 400), st.integers(1, 40))
def test_candidates_are_the_same_whole_and_in_parts(seed, rows, values):
    draw = np.random.default_rng(seed)
    keys, mask = hashes(draw, rows, values), draw.random(rows) < 0.9
    numbers = np.flatnonzero(mask)
    wanted = {tuple(pair) for pair in candidate_pairs(keys[numbers], numbers).tolist()}
    found = [tuple(pair) for pairs in candidates_by_partition(keys, mask, None) for pair in pairs.tolist()]
    assert len(found) == len(set(found))
    assert set(found) == wanted


@given(SEEDS, st.integers(1, 200), st.integers(1, 4))
def test_the_rows_with_the_least_keys_are_those_that_a_sort_puts_first(seed, rows, groups):
    draw = np.random.default_rng(seed)
    group = draw.integers(groups, size=rows)
    score = draw.choice([-2.5, -0.0, 0.0, 1e-9, 0.5, 7.0], rows)
    tie = draw.integers(5, size=rows).astype(np.uint64)
    mask = draw.random(rows) < 0.8
    known, own = np.unique(group[mask], return_inverse=True)
    number = np.zeros(rows, dtype=np.int64)
    number[mask] = own
    wanted = np.asarray([draw.integers(0, 1 + (own == g).sum()) for g in range(len(known))], dtype=np.int64)

    def keyed(at):
        return number[at][mask[at]], np.stack([sortable(-score[at][mask[at]]), tie[at][mask[at]]])

    chosen = lowest(keyed, mask, 2, wanted) if len(known) else np.zeros(rows, dtype=bool)
    for g, count in enumerate(wanted):
        there = np.flatnonzero(mask & (number == g))
        order = there[np.lexsort((tie[there], -score[there]))]
        assert set(np.flatnonzero(chosen & mask & (number == g))) == set(order[:count])
    assert not (chosen & ~mask).any()


@given(SEEDS, st.integers(2, 120), st.integers(0, 200))
def test_tied_rows_get_the_least_number_of_their_cluster(seed, rows, count):
    draw = np.random.default_rng(seed)
    pairs = np.sort(draw.integers(rows, size=(count, 2)), axis=1)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    root = np.arange(rows, dtype=np.uint32)
    for some in np.array_split(pairs, 5):
        merge_clusters(root, some)
    resolve_roots(root)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(rows, rows))
    component = connected_components(graph, directed=False)[1]
    least_of = [int(np.flatnonzero(component == own)[0]) for own in component]
    assert root.tolist() == least_of


def test_a_long_chain_is_followed_to_its_end():
    root = np.maximum(np.arange(100_000) - 1, 0).astype(np.uint32)
    resolve_roots(root)
    assert not root.any()


def test_masks_are_counted_and_begun():
    mask = np.arange(100) % 3 == 1
    assert first_rows(mask, 4).tolist() == [1, 4, 7, 10]
    assert first_rows(mask, 1000).tolist() == np.flatnonzero(mask).tolist()
    codes = np.arange(100) % 5
    assert count_codes(codes, mask, 6).tolist() == [*np.bincount(codes[mask]), 0]

"""Text metrics against naive definitions and by their laws."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escultor.errors import DataError
from escultor.skills import metrics

TEXT = st.lists(st.sampled_from(["a", "b", "c", "D", "é", ","]), max_size=12).map(" ".join)
SETS = st.lists(st.sampled_from("abcdef"), max_size=8)


def naive_lcs(one, two):
    best = [[0] * (len(two) + 1) for _ in range(len(one) + 1)]
    for i, x in enumerate(one):
        for j, y in enumerate(two):
            best[i + 1][j + 1] = best[i][j] + 1 if x == y else max(best[i][j + 1], best[i + 1][j])
    return best[-1][-1]


def naive_f1(overlap, ours, theirs):
    if ours == theirs == 0:
        return 1.0
    if overlap == 0:
        return 0.0
    precision, recall = overlap / ours, overlap / theirs
    return 2 * precision * recall / (precision + recall)


def test_rouge_l_is_the_papers_example():
    # Lin 2004, §3: S2 and S3 against S1, both precision and recall over four words.
    assert metrics.rouge_l("police kill the gunman", "police killed the gunman") == 0.75
    assert metrics.rouge_l("the gunman kill police", "police killed the gunman") == 0.5


@given(TEXT, TEXT)
def test_rouge_l_is_f1_of_a_naive_common_subsequence(one, two):
    ours, theirs = metrics.words(one), metrics.words(two)
    expected = naive_f1(naive_lcs(ours, theirs), len(ours), len(theirs))
    assert metrics.rouge_l(one, two) == pytest.approx(expected)
    assert metrics.rouge_l(one, two) == metrics.rouge_l(two, one)


@given(st.text(max_size=30))
def test_every_text_agrees_with_itself(text):
    assert metrics.rouge_l(text, text) == 1.0
    assert metrics.exact_match(text, text) == 1.0


def test_rouge_l_ignores_case_and_punctuation():
    assert metrics.rouge_l("Reads, a FILE!", "reads a file") == 1.0


def test_exact_match_forgives_white_space_and_composition_only():
    assert metrics.exact_match(" caf\u00e9\n au lait", "cafe\u0301 au  lait ") == 1.0
    assert metrics.exact_match("Café", "café") == 0.0


@given(SETS, SETS)
def test_set_f1_is_f1_of_the_overlap(one, two):
    ours, theirs = set(one), set(two)
    expected = naive_f1(len(ours & theirs), len(ours), len(theirs))
    assert metrics.set_f1(one, two) == pytest.approx(expected)
    assert metrics.set_f1(tuple(reversed(one)), two) == metrics.set_f1(one, two)


def test_set_f1_refuses_a_string_as_a_set_of_letters():
    with pytest.raises(DataError, match="no set of strings"):
        metrics.set_f1("abc", ["abc"])


def test_bits_per_byte_of_a_uniform_byte_model_is_eight():
    assert metrics.bits_per_byte(100 * math.log(256), 100) == pytest.approx(8.0)


@pytest.mark.parametrize(("nats", "n"), [(1.0, 0), (math.nan, 3), (math.inf, 3)])
def test_bits_per_byte_refuses_what_has_no_value(nats, n):
    with pytest.raises(DataError):
        metrics.bits_per_byte(nats, n)

"""Text metrics against naive definitions and by their laws."""

import math
import re
import string

import pytest
import sacrebleu
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


PROSE = st.text(alphabet="abc Ab.,é\n", max_size=40)


@given(PROSE, PROSE)
def test_chrf_is_what_sacrebleu_says(one, two):
    theirs = sacrebleu.sentence_chrf(one, [two]).score / 100
    assert metrics.chrf(one, two) == pytest.approx(theirs, abs=1e-9)


@given(PROSE, PROSE)
def test_token_f1_is_what_the_squad_script_says(one, two):
    theirs = compute_f1(two, one)
    assert metrics.token_f1(one, two) == pytest.approx(float(theirs))


def compute_f1(gold: str, said: str) -> float:
    """SQuAD's definition, in its own steps: normalise, count common tokens, harmonic mean."""
    left, right = (
        re.sub(r"\b(a|an|the)\b", " ", "".join(c for c in t.lower() if c not in string.punctuation)).split()
        for t in (gold, said)
    )
    common = sum(min(left.count(w), right.count(w)) for w in set(left))
    return naive_f1(common, len(right), len(left))


@pytest.mark.parametrize(
    ("said", "gold", "right"),
    [
        ("So 3 + 4 = 7. The answer is 18.", "#### 18", 1.0),
        ("$1,234.50 in all", "1234.5", 1.0),
        ("#### 5\nthat is 2 more than 3", "5", 1.0),
        ("-3", "3", 0.0),
        ("no number", "0", 0.0),
        ("18", "no number", 0.0),
        ("10%", "10", 1.0),
        ("v1.2.3", "0.3", 1.0),  # a last number of its own: the rule is stated, not clever
    ],
)
def test_numbers_are_compared_and_not_their_spelling(said, gold, right):
    assert metrics.numeric_answer(said, gold) == right


def test_what_is_contained_is_whole_words():
    assert metrics.contains("The capital is Paris, of course.", "paris") == 1.0
    assert metrics.contains("New York City", "york city") == 1.0
    assert metrics.contains("Parisian cafés", "Paris") == 0.0
    assert metrics.contains("anything", "") == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can\u2019t help with that.",
        "As an AI, this is nothing I do.",
        "I must decline.",
        "I cannot.",
    ],
)
def test_refusals_are_seen(answer):
    assert metrics.refused(answer)


@pytest.mark.parametrize(
    "answer", ["", "Sure: mix two cups.", "To kill a process, use kill.", "x" * 200 + " I cannot say."]
)
def test_answers_are_no_refusals(answer):
    assert not metrics.refused(answer)

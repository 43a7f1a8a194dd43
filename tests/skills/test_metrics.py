"""Text metrics against naive definitions and by their laws."""

import json
import math
import re
import string
import unicodedata
from collections import defaultdict
from pathlib import Path

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
        ("So 3 + 4 = 7. The answer is 18.", "#### 18", True),
        ("$1,234.50 in all", "1234.5", True),
        ("1.234,50 €", "1234.5", True),
        ("#### 5\nthat is 2 more than 3", "5", True),
        ("18, so #### none", "18", True),  # a mark without a number is passed over
        (r"\\boxed{18}, not 5", "18", True),
        ("A resposta é 18, para 3 pessoas", "18", True),
        ("-3", "3", False),
        ("\u22123", "-3", True),
        ("- 3", "-3", True),
        ("- 3 apples", "3", True),  # the bullet of a list
        ("#### -$5", "-5", True),
        ("no number", "0", False),
        ("18", "no number", False),
        ("10%", "10", True),
        ("v1.2.3", "0.3", False),
        ("2024-05", "5", False),
        ("3-5 people", "5", True),
        ("3,5", "3.5", True),
        ("1,0", "10", False),
        ("0,125", "0.125", True),
        ("12,34,567", "1234567", True),
        ("1 234 567,5", "1234567.5", True),
        ("1'000", "1000", True),
        ("1/2", "0.5", True),
        ("1½", "1.5", True),
        (r"\frac{3}{4}", "0.75", True),
        ("1.5e-3", "0.0015", True),
        ("3 × 10⁴", "30000", True),
        ("2.5 million", "2500000", True),
        ("\u0661\u0668", "18", True),
        ("答案是18个", "18", True),
        ("2 ½ cups", "2.5", True),
        ("\u20137", "-7", True),
        ("3\u20135 people", "5", True),
        ("The answer is minus 7", "-7", True),
        ("10 minus 7", "-7", False),
        ("10^-3", "0.001", True),
        (r"\boxed{-\frac{1}{2}}", "-0.5", True),
        ("10 ± 2", "10", True),
        ("1,5 Mrd. €", "1500000000", True),
        ("3 lakh", "300000", True),
        ("12万円", "120000", True),
        ("3千克", "3", True),  # kilograms
        ("10² is", "10", False),
        ("10² is", "100", True),
        ("2^10", "1024", True),
        ("9^999", "0", False),
        ("1/0", "0", False),
        ("1e999999999", "1", False),
        ("9" * 5000, "9", False),
    ],
)
def test_numbers_are_compared_and_not_their_spelling(said, gold, right):
    assert metrics.numeric_answer(said, gold) == right


@pytest.mark.parametrize(
    ("said", "gold", "asked", "right"),
    [
        ("1,234", "1234", {}, True),
        ("1,234", "1,2340", {"decimal": ","}, True),
        ("1.234", "1234", {"decimal": ","}, True),
        ("3.14", "3.14159", {"tolerance": 0.01}, True),
        ("3.14", "3.16", {"tolerance": 0.01}, False),
        ("101", "100", {"tolerance": "1%"}, True),
        ("102", "100", {"tolerance": "1%"}, False),
        ("18 m", "18 km", {}, True),
        ("18 m", "18 km", {"units": True}, False),
        ("18 KM", "18 km", {"units": True}, True),
        ("18 km", "18", {"units": True}, True),
    ],
)
def test_decimals_tolerance_and_units_are_as_asked(said, gold, asked, right):
    assert metrics.numeric_answer(said, gold, **asked) == right


@given(st.integers(-(10**7), 10**7), st.sampled_from(",'_ \u202f"))
def test_thousands_are_read_whatever_stands_between_them(number, mark):
    written = f"{number:,}".replace(",", mark)
    assert metrics.numeric_answer(f"That makes: {written}.", str(number))


@pytest.mark.parametrize("piece", ["1", "1,", "- ", "1 000 ", "\\boxed{", "answer is ", "1/", "2^"])
def test_numbers_are_read_in_linear_time(piece):
    metrics.final_number(piece * 20_000)  # with backtracking this would not end


@given(st.text(alphabet="abcçéñ 1ﬁ東ก็½", max_size=20), st.text(alphabet="abcçéñ 1ﬁ東ก็½", max_size=20))
def test_the_composition_of_characters_changes_no_metric(one, two):
    for measure in (
        *(metrics.exact_match, metrics.contains, metrics.includes, metrics.token_f1),
        *(metrics.rouge_l, metrics.chrf, metrics.numeric_answer),
    ):
        values = {
            measure(unicodedata.normalize(left, one), unicodedata.normalize(right, two))
            for left in ("NFC", "NFD")
            for right in ("NFC", "NFD")
        }
        assert len(values) == 1, measure.__name__


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("\ufb01n", "fin"),
        ("It\u2019s", "It's"),
        ("x\u200b", "x"),
        ("\uff11\uff18", "18"),
        ("\u00a0x", "x"),
    ],
)
def test_texts_that_read_the_same_match(one, two):
    assert metrics.exact_match(one, two) == 1.0


def test_what_would_read_otherwise_does_not_match():
    assert metrics.exact_match("10\u00b2", "102") == 0.0
    assert metrics.exact_match("1\u00bd", "11/2") == 0.0


def test_case_and_punctuation_are_ignored_where_asked():
    assert metrics.exact_match("«paris».", "Paris") == 0.0
    assert metrics.exact_match("«paris».", "Paris", ignore_case=True, ignore_punctuation=True) == 1.0
    assert metrics.exact_match("STRASSE", "Straße", ignore_case=True) == 1.0


def test_words_of_scripts_without_blanks_are_their_characters():
    assert metrics.words("東京は café ไทย") == ["東", "京", "は", "café", "ไ", "ท", "ย"]
    assert metrics.words("हिन्दी") == ["हिन्दी"]
    assert metrics.token_f1("東京は大", "東京は大きい") == pytest.approx(0.8)
    assert metrics.rouge_l("東京は大", "東京は大きい") == pytest.approx(0.8)
    assert metrics.token_f1("“Paris”—France", "paris france") == 1.0


def test_what_is_contained_is_whole_words():
    assert metrics.contains("The capital is Paris, of course.", "paris") == 1.0
    assert metrics.contains("New York City", "york city") == 1.0
    assert metrics.contains("Parisian cafés", "Paris") == 0.0
    assert metrics.contains("anything", "") == 0.0


@pytest.mark.parametrize(
    ("said", "word", "is_there"),
    [
        ("C++ is", "C++", True),
        ("C is", "C++", False),
        ("C# is good", "C", False),
        ("don't", "don", False),
        ("Maria's", "Maria", True),
        ("l'eau", "eau", True),
        ("It is 3.14.", "3", False),
        ("It is 3.", "3", True),
        ("-5", "5", False),
        ("10-5", "5", True),
        ("$5", "5", True),
        ("東京は大きい", "東京", True),
        ("İstanbul", "istanbul", True),
        ("...", "?!", False),
    ],
)
def test_words_end_where_readers_end_them(said, word, is_there):
    assert metrics.contains(said, word) == is_there


def test_what_is_included_may_stand_inside_words():
    assert metrics.includes("Parisian cafés", "PARIS") == 1.0
    assert metrics.includes("Paris", "Parisian") == 0.0
    assert metrics.includes("anything", "") == 0.0


def test_refusals_are_seen_in_five_languages():
    # Labelled answers. Of the last 60, written after the phrases, 28 of 30 refusals were seen and 3 of 30
    # others taken for one, before these were mended too.
    lines = (Path(__file__).parent / "refusals.jsonl").read_text(encoding="utf-8").splitlines()
    labelled = [json.loads(line) for line in lines]
    right = defaultdict(list)
    for row in labelled:
        right[row["language"], row["refuses"]].append(metrics.refused(row["answer"]) == row["refuses"])
    shares = {key: sum(values) / len(values) for key, values in right.items()}
    assert {language for language, _ in shares} == {"en", "pt", "es", "fr", "de"}
    assert min(shares.values()) >= 0.9, shares


@pytest.mark.parametrize("answer", ["", "Sure: mix two cups.", "x" * 200 + " I cannot say."])
def test_answers_are_no_refusals(answer):
    assert not metrics.refused(answer)

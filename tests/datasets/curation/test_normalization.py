import math

import numpy as np
import pytest
from curate_rows import text
from hypothesis import given
from hypothesis import strategies as st

from escultor.datasets.similarity.duplicates import are_similar, band_hashes, bands_for
from escultor.text.normalization import contradict, word_count, words_of, words_with_symbols
from escultor.text.shingles import jaccard, ngram_hashes, shingle_set, shingles, text_hash

texts = st.text(max_size=60)


def by_hand(words: str) -> set[bytes]:
    data = words.encode() or b"\0"
    padded = data + b"\0" * 7
    return {padded[i : i + 8] for i in range(len(data))}


@given(st.lists(texts, min_size=1, max_size=5))
def test_windows_of_many_rows_are_those_of_each(said):
    flat, starts = shingles([(("text", each),) for each in said])
    for i, each in enumerate(said):
        own = np.unique(flat[starts[i] : starts[i + 1]])
        assert (own == shingle_set([("text", each)])).all()
        assert len(own) == len(by_hand(" ".join(words_of(each))))


@given(texts, texts)
def test_the_similarity_is_that_of_sets_of_windows(a, b):
    one, other = by_hand(" ".join(words_of(a))), by_hand(" ".join(words_of(b)))
    found = jaccard(shingle_set([("x", a)]), shingle_set([("x", b)]))
    assert math.isclose(found, len(one & other) / len(one | other))


def test_a_text_in_another_role_is_another_text():
    assert jaccard(shingle_set([("good", text(1))]), shingle_set([("bad", text(1))])) == 0


@given(
    st.lists(st.lists(st.sampled_from(["a", "bb", "ccc", "é"]), max_size=8), max_size=5), st.integers(1, 4)
)
def test_runs_of_words_are_told_apart_by_their_words_alone(said, count):
    found, owner = ngram_hashes(said, count)
    wanted = [
        (tuple(words[i : i + count]), at)
        for at, words in enumerate(said)
        for i in range(len(words) - count + 1)
    ]
    assert owner.tolist() == [at for _, at in wanted]
    known: dict[tuple[str, ...], int] = {}
    for value, (run, _) in zip(found.tolist(), wanted, strict=True):
        assert known.setdefault(run, value) == value
    assert len(set(known.values())) == len(known)


def test_a_whole_text_is_one_run():
    words = words_of(text(1, 5))
    assert text_hash(words) == ngram_hashes([["before", *words, "after"]], 5)[0][1]


def test_bands_find_a_pair_at_the_threshold_with_the_stated_odds():
    for threshold in (0.5, 0.75, 0.9):
        bands, width = bands_for(threshold, 120)
        assert bands * width <= 120
        assert 1 - (1 - threshold**width) ** bands >= 0.97
        assert 1 - (1 - threshold ** (width + 1)) ** (120 // (width + 1)) < 0.97


def test_bands_meet_about_as_often_as_the_formula_says():
    # 300 pairs, Jaccard about 0.6 each; odds of meeting in a band of 2 are J².
    bands, width = 40, 2
    met, wanted = 0.0, 0.0
    for i in range(100):
        words = text(i, 40).split()
        pair = [(("t", " ".join(words)),), (("t", " ".join(words[:30] + text(f"o{i}", 10).split())),)]
        j = jaccard(*(shingle_set(parts) for parts in pair))
        found = band_hashes(pair, bands, width)
        met += float((found[0] == found[1]).mean())
        wanted += j**width
    assert abs(met - wanted) / 100 < 0.03  # 4,000 draws: three standard errors are 0.024


def test_words_of_scripts_without_blanks_are_characters_with_their_marks():
    assert words_of("我喜欢吃苹果。Yes, x2!") == ["我", "喜", "欢", "吃", "苹", "果", "yes", "x2"]
    assert words_of("ก็ที่ ភាសា") == ["ก็", "ที่", "ភា", "សា"]
    assert words_of("हिन्दी भाषा, avó e avô") == ["हिन्दी", "भाषा", "avó", "e", "avô"]
    assert words_of("한국어 문장") == ["한국어", "문장"]
    assert words_of("１２ and ٣") == ["12", "and", "3"]
    assert word_count("the quick fox") == 3
    assert word_count("我喜欢吃苹果 and tea") == 5


APART = [
    ("rows where age >= 18", "rows where age <= 18"),
    ("what is 17 + 25", "what is 17 * 25"),
    ("what is 17 + 25", "what is 17 + 26"),
    ("solve x = -5 now", "solve x = 5 now"),
    ("it costs €5 today", "it costs $5 today"),
    ("what a day 😀", "what a day 😡"),
    ("if ok: go", "if !ok: go"),
    ("it is allowed", "it is not allowed"),
    ("it is allowed", "it isn't allowed"),
    ("git push now", "git push --force now"),
    ("written in C", "written in C++"),
    ("return True", "return False"),
    ("10² apples", "102 apples"),
    ("pode entrar", "não pode entrar"),
    ("3.5 kg", "35 kg"),
    ("a ≤ b", "a ≥ b"),
]
TOGETHER = [
    ("17+25 = 42.", "17 + 25 = 42"),
    ("a well-known fact!", "a well known fact"),
    ("see the table", "see the table (page 3)"),
    ("thank you", "thank you 😀"),
    ("−5 and ５", "-5 and 5"),
    ('"Quoted", he said.', "«Quoted» he said"),
]


@pytest.mark.parametrize(("one", "other"), APART)
def test_what_says_something_else_in_symbols_is_no_duplicate(one, other):
    frame = text("frame", 80)
    rows = [(("text", f"{frame} {said} {frame}"),) for said in (one, other)]
    assert not are_similar(rows, np.array([[0, 1]]), 0.75)[0]
    assert contradict(rows[1], rows[0])


@pytest.mark.parametrize(("one", "other"), TOGETHER)
def test_what_differs_in_form_alone_contradicts_nothing(one, other):
    assert not contradict([("text", one)], [("text", other)])
    assert not contradict([("text", other)], [("text", one)])


@given(texts, texts)
def test_contradiction_is_mutual_and_no_text_contradicts_itself(a, b):
    assert contradict([("x", a)], [("x", b)]) == contradict([("x", b)], [("x", a)])
    assert not contradict([("x", a)], [("x", a)])
    assert len(words_with_symbols(a)) >= len(words_of(a))

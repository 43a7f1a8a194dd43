import math

import numpy as np
from curate_rows import text
from hypothesis import given
from hypothesis import strategies as st

from escultor.datasets.similarity.duplicates import band_hashes, bands_for
from escultor.datasets.similarity.normalization import words_of
from escultor.datasets.similarity.shingles import jaccard, ngram_hashes, shingle_set, shingles, text_hash

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

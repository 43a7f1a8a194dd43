"""Questions that are one under many ids share a cluster; those that differ in what they ask do not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escultor.text.near_duplicates import shared_clusters


def clusters(texts, answers=None, names=None):
    questions = [[("user", text)] for text in texts]
    return shared_clusters(
        questions, answers or ["it"] * len(texts), names or [f"i{n}" for n in range(len(texts))]
    )


WAYS = (
    "What is the capital city of the Republic of France in Europe?",
    "what is the capital city of the republic of France, in Europe",
    "What  is the capital city of the Republic of France in Europe ?\n",
    "Please: what is the capital city of the Republic of France in Europe?",
    "What is the capitol city of the Republic of France in Europe?",
    "\uff37\uff48\uff41\uff54 is the capital city of the Republic of France in Europe?",
)


def test_one_question_in_many_spellings_is_one_cluster():
    assert set(clusters(WAYS * 10)) == {"i0"}
    assert set(clusters(WAYS[:3], answers=["a", "b", "c"])) == {"i0"}  # the very same words


@pytest.mark.parametrize(
    "texts",
    [
        [f"RND {n}" for n in range(100)],
        [f"How do I reset device number {n} of the series {chr(65 + n % 26)}?" for n in range(160)],
        ["What is 7 + 5?", "What is 7 - 5?", "What is 7 * 5?", "what is -7 + 5?", "?", "!", "😀"],
        [f"What is {a} + {b}?" for a in range(8) for b in range(8)],
        ["What is the capital of France?", "What is the capital of Spain?", "What is the capital of Peru?"],
        [f"Is this review kind, and would its author say so to a friend? Answer yes or no: {a} {b}"
         for a in ("cats", "dogs", "a bird", "the tree", "a house") for b in ("doze", "run", "sing", "eat")],
    ],
)  # fmt: skip
def test_questions_that_differ_in_a_number_or_in_what_is_put_into_a_template_are_their_own(texts):
    assert clusters(texts) == [f"i{n}" for n in range(len(texts))]


def test_near_equal_questions_with_other_answers_are_their_own_and_given_clusters_stay_joined():
    assert clusters(WAYS[::4], answers=["Paris", "Lyon"]) == ["i0", "i1"]
    assert clusters(["cat", "dog", "CAT!", "bird"], names=["a", "b", "c", "b"]) == ["a", "b", "a", "b"]


@given(st.lists(st.text(max_size=12), min_size=1, max_size=12), st.randoms())
def test_repeating_a_question_adds_no_cluster(texts, random):
    once = clusters(texts)
    extra = [random.choice(texts) for _ in range(10)]
    names = [f"i{n}" for n in range(len(texts))] + [f"x{n}" for n in range(10)]
    assert clusters([*texts, *extra], names=names)[: len(texts)] == once
    assert set(clusters([*texts, *extra], names=names)) == set(once)


def test_many_questions_are_clustered_in_little_more_than_linear_time():
    words = np.random.default_rng(0).integers(0, 5000, (20_000, 12))
    texts = [" ".join(f"w{w}" for w in row) for row in words]
    found = clusters([*texts, *texts[:500]])
    assert found[20_000:] == found[:500]
    assert len(set(found)) == 20_000


@pytest.mark.parametrize(
    "draw",
    [
        lambda n: "What is 2 + 2?" + "\u0301" * n,
        lambda n: "What\u200c" * (n % 2) + "\u200b" * n + "What is 2 + 2?"[4 * (n % 2) :],
        lambda n: "What is 2 + 2?" + chr(0xFE00 + n % 16) + chr(0xE0100 + n),
        lambda n: "peace or a cope" if n % 2 else "реасе оr а соре",
        lambda n: "oval avocado" if n % 2 else "οναl αvοcαdο",
        lambda n: "so\u00adft" * (n % 2) + "soft" * (1 - n % 2),
    ],
)
def test_questions_that_look_the_same_are_one(draw):
    assert len(set(clusters([draw(n) for n in range(60)], answers=list(range(60))))) == 1


def test_a_question_with_a_word_of_no_meaning_at_its_end_is_one_where_its_answer_is():
    texts = [
        f"What is the name of the capital city of France today, my friend {chr(97 + n)}x?" for n in range(25)
    ]
    questions, names = [[("user", text)] for text in texts], [f"i{n}" for n in range(25)]
    assert len(set(shared_clusters(questions, [("Paris",)] * 25, names, framed=False))) == 1
    assert len(set(shared_clusters(questions, [("Paris",)] * 25, names))) == 25  # the frame is an instruction

"""What counts as a change: meaning, however little of it; white space and punctuation are none."""

import pytest
from feedback_records import correction, interaction, items_of
from hypothesis import given
from hypothesis import strategies as st

from escultor.feedback.edits import edit_distance

SAID = (
    "The assembly met in 1798 at Versailles, and it did not dissolve. It cost 12.5 kg of salt; see f(x) - 3."
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1798", "1789"),
        ("Versailles", "Verseilles"),
        ("did not", "did"),
        ("12.5", "125"),
        ("kg", "g"),
        ("- 3", "+ 3"),
        ("f(x)", "f(y)"),
        ("f(x)", "fx"),
        ("12.5 kg", "$12.5"),
        ("It cost", "it cost"),
        ("in 1798", "in 17 98"),
        ("12.5", "-12.5"),
        ("salt;", "salt 😀"),
    ],
)
def test_digits_names_negations_units_signs_and_code_count(old, new):
    assert 0 < edit_distance(SAID.replace(old, new), SAID) < 0.2


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("Yes, it is so.", "Yes it is  so"),
        ('Yes: "it is" so!', "Yes – it is so."),
        ("* one\n* two", "- one\n- two"),
        ("今日は、晴れです。", "今日は晴れです"),
        ("¿Qué hora es?", "Qué hora es"),
        ("e\u0301te\u0301", "été"),
        ("a\u200bb", "ab"),
        ("", "anything"),
        (" \n", "anything"),
    ],
)
def test_white_space_and_punctuation_between_words_are_nothing(text, before):
    assert edit_distance(text, before) == 0.0


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("```\nif a:\n    b()\n```", "```\nif a:\nb()\n```"),
        ("age >= 18", "age <= 18"),
        ("a - b", "a * b"),
        ("17 - 25", "17 25"),
        ("!ready", "ready"),
        (".5", "5"),
        ("10:30", "1030"),
    ],
)
def test_code_comparisons_and_marks_inside_of_words_count(text, before):
    assert edit_distance(text, before) > 0


@given(st.text(), st.text())
def test_a_distance_is_a_share_and_nothing_is_far_from_itself(text, before):
    assert 0.0 <= edit_distance(text, before) <= 1.0
    assert edit_distance(text, text) == 0.0


def test_one_digit_in_a_long_answer_is_a_correction():
    answer = "The French Revolution began in 1798, when the Estates-General met. " * 40
    served, mended = [interaction("a", answer=answer)], answer.replace("1798", "1789", 1)
    examples, pairs, *_ = items_of(served, [correction("a", mended)])
    assert [e.response for e in examples] == [p.chosen for p in pairs] == [mended]

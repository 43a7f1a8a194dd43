"""The steps that look at one row."""

import pytest
from curate_rows import row, text

from escultor.config.curation import Curation
from escultor.datasets.curation.contamination import decontaminate, index_texts
from escultor.datasets.curation.filters import damage, language, length, repetition
from escultor.datasets.curation.labels import STYLES, band_of, style_of
from escultor.datasets.rows import Dropped, full_text, parse_row, read_line, target_text, write_line

PLAIN = Curation()


def test_a_row_comes_back_from_its_line():
    kinds = {
        "document": {"text": "é\nx"},
        "example": {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        "pair": {"prompt": "a", "chosen": "b", "rejected": "c", "flip_rate": 0.1},
        "unpaired": {"prompt": "a", "completion": "b", "label": False, "weight": 2.0},
    }
    about = {"labels": {"domain": "law"}, "figures": {"x": 1.5}, "subject": "s1", "time": 3.0}
    for kind, data in kinds.items():
        made = parse_row(kind, data | about, "file", 7)
        assert read_line(kind, write_line(made)) == made
        assert made.subject == "s1"


def test_language_keeps_what_is_wanted_and_what_is_too_short_to_tell():
    english = row("The quick brown fox jumps over the lazy dog while the children are playing in the garden.")
    german = row(
        "Der schnelle braune Fuchs springt über den faulen Hund, während die Kinder im Garten spielen."
    )
    assert language(english, PLAIN, None).labels["language"] == "en"
    assert language(german, PLAIN, None).labels["language"] == "de"
    only = Curation.model_validate({"language": {"keep": ["en", "fr"]}})
    reason = "language de, and language.keep is en, fr: add de to keep it, or empty it"
    assert language(german, only, None) == Dropped(reason)
    both = Curation.model_validate({"language": {"keep": ["en", "de"]}})
    assert language(german, both, None).labels["language"] == "de"
    assert language(row("Ja, gut."), PLAIN, None).labels["language"] == "und"


def test_length_and_repetition():
    tight = Curation.model_validate({"length": {"min_words": 3, "max_words": 50}})
    assert length(row({"prompt": "a b c d", "completion": "e"}), tight, None) == Dropped("too short")
    assert length(row(text(1, 60)), tight, None) == Dropped("too long")
    assert length(row(text(1, 40)), tight, None) == row(text(1, 40))
    assert repetition(row("again and again it goes " * 10), PLAIN, None) == Dropped("words repeated")
    lines = "\n".join([text(1, 4)] * 3 + [text(2, 30)])
    assert repetition(row(lines), PLAIN, None) == Dropped("lines repeated")
    assert repetition(row(text(3, 200)), PLAIN, None) == row(text(3, 200))


@pytest.mark.parametrize("said", ["a café, “quoted” — naïve", "Größe: 5 €", "Ação e reação", "日本語 text"])
def test_text_read_in_the_wrong_encoding_is_mended(said):
    wrong = said.encode().decode("cp1252", "replace")
    mended = damage(row(wrong), PLAIN, None)
    if "\ufffd" in wrong:  # a byte that Windows-1252 does not know: lost
        assert mended == Dropped("characters lost")
    else:
        assert full_text(mended.item) == said
        assert mended.notes == ("encoding mended",)
    assert damage(row(said), PLAIN, None) == row(said)


def test_control_characters_go_and_markup_is_left_out():
    assert full_text(damage(row("a\x00b\x1b[31mc\td\ne"), PLAIN, None).item) == "ab[31mc\td\ne"
    assert damage(row("<div><p>Hello</p><br/></div>&nbsp;"), PLAIN, None) == Dropped("mostly markup")
    prose = "If a < b and c > d then " + text(1) + " See <p> elements."
    assert damage(row(prose), PLAIN, None) == row(prose)


def test_what_is_examined_does_not_get_in():
    question, short = text("suite", 20), "What is the tallest tower in Lisbon?"
    suite = index_texts([question, short, "yes"], 13)
    inside = row(f"{text(1)} {' '.join(question.upper().split()[3:16])} {text(2)}")
    assert decontaminate(inside, PLAIN, suite) == Dropped("shares 13 words with an evaluation item")
    twelve = row(f"{text(1)} {' '.join(question.split()[3:15])} {text(2)}")
    assert decontaminate(twelve, PLAIN, suite) == twelve
    asked = row({"prompt": short.lower(), "completion": text(3)})
    assert decontaminate(asked, PLAIN, suite) == Dropped("is an evaluation item")
    answered = row({"prompt": text(4), "completion": "yes"})
    assert decontaminate(answered, PLAIN, suite) == answered


SAID = {
    "structured": '{"a": [1, 2]}',
    "code": "def f(x):\n    return x",
    "math": "3 + 4 = 7, and 7 * 2 = 14.",
    "dialogue": "Ana: Good morning to you.\nRui: And to you, my dear friend.",
    "list": "Take these:\n- one apple\n- two pears\n- three plums",
    "brief": "It is Lisbon.",
    "instruction": "Open the window and let the cold air of the morning into the room before noon.",
    "prose": "The window was open and the cold air of the morning came into the room before noon.",
}


def test_each_style_has_its_rule():
    assert tuple(SAID) == STYLES
    assert {style: style_of(said) for style, said in SAID.items()} == {style: style for style in SAID}
    assert style_of("") == "brief"
    assert band_of(16) != band_of(17)


def test_labels_are_those_given_then_those_the_answer_says():
    trinity = '{"summary": "x", "meta": {"domain": "law"}, "purpose": "explain"}'
    made = row({"prompt": "a", "completion": trinity})
    assert (made.labels["domain"], made.labels["purpose"]) == ("law", "explain")
    given = row({"prompt": "a", "completion": trinity, "labels": {"domain": "art"}})
    assert given.labels["domain"] == "art"
    assert target_text(given.item) == trinity
    assert row(text(1)).labels["domain"] == "unlabelled"

"""Where no text may be kept: figures and lengths stay, no word does, and nothing is learnt of what stands
in its place."""

from dataclasses import replace

import pytest
from feedback_records import NOW, correction, interaction, items_of, thumb
from hypothesis import given
from hypothesis import strategies as st

from escultor.store.redaction import redact_record
from escultor.types import Consent, Correction, Message, Remark, Role

TEXTS = st.text(min_size=1)


def keyed(hash: str) -> str:
    return f"keyed {hash}"


@given(TEXTS, TEXTS)
def test_of_an_answer_everything_is_kept_but_its_text(question, answer):
    full = replace(interaction("a"), messages=(Message(Role.SYSTEM, question),), answer=answer)
    bare = redact_record(full, keyed)
    assert bare.messages == (Message(Role.SYSTEM, f"[{len(question)} characters]"),)
    assert bare.answer == f"[{len(answer)} characters]"
    assert (bare.prompt_hash, bare.consent) == (f"keyed {full.prompt_hash}", Consent.NONE)
    same = {
        "messages": full.messages,
        "answer": answer,
        "prompt_hash": full.prompt_hash,
        "consent": full.consent,
    }
    assert replace(bare, **same) == full


def test_of_feedback_no_text_is_kept_and_events_without_text_are_unchanged():
    about = "id", 1.0, "answer", "person"
    assert redact_record(Remark(*about, "too long"), keyed).text == "[8 characters]"
    assert redact_record(Correction(*about, "a better answer"), keyed).text == ""
    assert redact_record(thumb("a", False), keyed) == thumb("a", False)


@pytest.mark.parametrize("answer", ["short", "The result is forty two, since six times seven is forty two."])
def test_nothing_is_learnt_from_a_correction_that_was_kept_without_its_text(answer):
    served = [interaction("a", answer=answer, retain_until=NOW + 1)]
    mended = correction("a", answer + " And more of the same, so that it says something else.")
    examples, pairs, *_ = items_of(served, [mended])
    assert examples or pairs  # with its words it is
    *items, counts = items_of(served, [redact_record(mended, keyed)])
    assert items == [[], [], []]
    assert counts["left out: correction that changes nothing but white space and punctuation"] == 1

"""`rate`: by the keyboard, blind, one choice at a time; and its report."""

import pytest
from cli_rows import SMALL

from escultor.store import open_store
from escultor.store.blobs import tree_hash
from escultor.types import Choice, Feedback, SourceKind

SUITE = "name: pets\nmetrics: [f1]\ndecoding: {max_new_tokens: 6, temperature: 1.0}\nitems:\n" + "".join(
    f'  - {{id: i{n}, prompt: "cat {n}", reference: dog}}\n' for n in range(12)
)


@pytest.fixture
def rate(cli, tmp_path, model, other_model):
    (tmp_path / "pets.yaml").write_text(SUITE)

    def call(*words, keys=""):
        words = ("rate", model, other_model, "--suite", "pets.yaml", *words, *SMALL)
        return cli(*words, input=keys)

    return call


def test_choices_are_kept_one_by_one_and_a_rater_goes_on_where_they_stopped(rate, model, other_model):
    one = rate("--rater", "Ada", "--json", keys="1\nx\nt\nq\n")
    assert one.code == 0, one.err
    assert (one.data["made"], one.data["rated"] + one.data["checks"]) == (2, 2)
    assert "1: the first is better" in one.err
    two = rate("--rater", "Ada", "--json", keys="2\n")  # the input ends: a stop
    assert (two.data["made"], two.data["rated"] + two.data["checks"]) == (1, 3)
    other = rate("--rater", "Bob", "--json", keys="1\n")
    assert other.data["rated"] + other.data["checks"] == 1
    with open_store("escultor-store") as store:
        events = [event for _, event in store.log.read(Feedback)]
    assert len(events) == 4
    assert all(isinstance(e, Choice) and e.source is SourceKind.RATER for e in events)


def test_nothing_on_the_screen_tells_which_model_wrote_what(rate, model, other_model):
    shown = rate("--rater", "Ada", keys="1\n2\nq\n").out
    assert "[1]" in shown
    for folder in (model, other_model):
        assert folder.name not in shown
        assert tree_hash(folder)[:6] not in shown


def test_the_report_tells_what_was_chosen_and_by_whom(rate):
    rate("--rater", "Ada", keys="1\n" * 30)
    call = rate("--report", "--json")
    assert call.code == 0, call.err
    (rater,) = call.data["raters"]
    assert rater["name"] == "Ada"
    assert call.data["items"] == 12
    assert "Krippendorff" in call.err or "No choice counts" in call.err


def test_who_rates_has_to_be_said_in_one_way(rate):
    for words in ((), ("--rater", "Ada", "--report"), ("--rater", "a/b"), ("--rater", "")):
        assert rate(*words).code == 2

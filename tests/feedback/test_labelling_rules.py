"""Each route makes what it says, in their order; laws: pure, order-free, idempotent, never across prompts."""

from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from feedback_records import (
    choice,
    correction,
    implicit,
    interaction,
    items_of,
    revocation,
    selection_of,
    thumb,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.config import FeedbackRules
from escultor.feedback.evidence import THUMB, RaterTrust, SubjectJudgement, combine_judgements
from escultor.feedback.labelling_rules import LABELLING_RULES
from escultor.feedback.selection import SelectionQuery
from escultor.stats import log_odds
from escultor.store.feedback import live
from escultor.types import Choice, Consent, Correction, ImplicitEvent, Interaction, Rating, SourceKind

LONG = "The result is forty two, since six times seven is forty two."


def rules(found):
    return [item.origin.rule for item in found]


# --- one by one -------------------------------------------------------------------------------


def test_a_correction_is_preferred_to_the_answer_it_corrects_and_is_an_example():
    served = [interaction("a", answer=LONG)]
    mended = LONG.replace("forty two", "42")
    examples, pairs, verdicts, _ = items_of(served, [correction("a", mended), thumb("a", False)])
    assert [(e.response, e.origin.rule) for e in examples] == [(mended, "correction/3")]
    assert [(p.chosen, p.rejected) for p in pairs] == [(mended, LONG)]
    assert pairs[0].flip_rate == pytest.approx(0.15)
    assert verdicts == []  # the thumb down says what the edit says


def test_a_correction_that_changes_nothing_makes_no_item_and_one_that_changes_all_no_pair():
    served = [interaction("a", answer=LONG), interaction("b", "q", answer=LONG)]
    other = "Quite another text that has hardly a letter in common, by design!"
    examples, pairs, _, counts = items_of(served, [correction("a", LONG), correction("b", other)])
    assert [e.response for e in examples] == [other]
    assert pairs == []
    assert counts["left out: correction that changes nothing but white space and punctuation"] == 1
    assert counts["no pair: correction that changes more than feedback.max_edit"] == 1


def test_the_answer_that_was_kept_is_preferred_to_those_regenerated():
    served = [interaction("a"), interaction("b", parent="a"), interaction("c", parent="b")]
    _, pairs, verdicts, _ = items_of(served, [implicit("c", ImplicitEvent.COPY)])
    assert {(p.chosen, p.rejected) for p in pairs} == {("answer c", "answer a"), ("answer c", "answer b")}
    assert rules(pairs) == ["regeneration/2"] * 2
    assert {p.flip_rate for p in pairs} == {0.3}
    assert verdicts == []


@pytest.mark.parametrize(
    "events",
    [[], [thumb("b", False)], [thumb("b", True, "somebody else")]],
    ids=["no word", "a bad word", "a good word of another person"],
)
def test_a_regeneration_that_its_asker_did_not_approve_of_makes_no_pair(events):
    _, pairs, _, _ = items_of([interaction("a"), interaction("b", parent="a")], events)
    assert pairs == []


def test_an_answer_that_was_regenerated_again_was_not_kept():
    served = [interaction("a"), interaction("b", parent="a"), interaction("c", parent="b")]
    _, pairs, verdicts, _ = items_of(served, [thumb("b", True)])
    assert pairs == []
    assert [v.response for v in verdicts] == ["answer b"]


def test_a_regenerated_answer_that_the_asker_liked_is_not_rejected():
    served = [interaction("a"), interaction("b", parent="a")]
    _, pairs, verdicts, _ = items_of(served, [thumb("a", True), thumb("b", True)])
    assert pairs == []
    assert {v.response for v in verdicts} == {"answer a", "answer b"}


def test_two_thumbs_are_more_accurate_than_a_regeneration_alone():
    served = [interaction("a"), interaction("b", parent="a")]
    _, pairs, _, _ = items_of(served, [thumb("a", False), thumb("b", True)])
    assert [p.flip_rate for p in pairs] == [0.15]


def test_a_chosen_answer_is_preferred_to_those_shown_with_it():
    served = [interaction("a"), interaction("b"), interaction("c")]
    _, pairs, _, _ = items_of(served, [choice(("a", "b", "c"), "b")])
    assert {(p.chosen, p.rejected) for p in pairs} == {("answer b", "answer a"), ("answer b", "answer c")}
    assert rules(pairs) == ["choice/3"] * 2


def test_a_tie_a_choice_across_prompts_and_one_of_unknown_answers_make_nothing():
    served = [interaction("a"), interaction("b"), interaction("c", "q")]
    events = [choice(("a", "b"), None), choice(("a", "c"), "a"), choice(("a", "gone"), "a")]
    _, pairs, _, counts = items_of(served, events)
    assert pairs == []
    assert counts["no pair: a choice that was a tie"] == 1
    assert counts["left out: a choice between answers to several prompts, unknown or not to be used"] == 2


def test_up_is_preferred_to_down_on_one_prompt_and_the_rest_is_left_for_kto():
    served = [interaction("a"), interaction("b"), interaction("c", "q")]
    events = [thumb("a", True), thumb("b", False), thumb("c", False)]
    _, pairs, verdicts, _ = items_of(served, events)
    assert [(p.chosen, p.rejected, p.origin.rule) for p in pairs] == [
        ("answer a", "answer b", "same-prompt/4")
    ]
    assert [(v.response, v.desirable) for v in verdicts] == [("answer c", False)]


def test_an_answer_judged_both_ways_is_left_out():
    served = [interaction("a", answer="same"), interaction("b", answer="same"), interaction("c")]
    events = [thumb("a", True, "x"), thumb("b", False, "y"), thumb("c", False)]
    _, pairs, verdicts, counts = items_of(served, events)
    assert pairs == []
    assert [v.response for v in verdicts] == ["answer c"]
    assert counts["left out: as many for as against"] == 1


def test_one_person_who_likes_one_text_many_times_says_it_once():
    served = [interaction(f"a{n}", answer="same") for n in range(9)]
    events = [thumb(f"a{n}", True, "x") for n in range(9)]
    events += [thumb("a0", False, "y"), thumb("a1", False, "z")]
    _, _, verdicts, _ = items_of(served, events)
    assert [v.desirable for v in verdicts] == [False]


def test_what_was_done_is_a_weak_label_where_nothing_was_said():
    served = [interaction("a"), interaction("b", "q"), interaction("c", "r"), interaction("d", "s")]
    events = [
        implicit("a", ImplicitEvent.COPY),
        implicit("b", ImplicitEvent.FOLLOW_UP_REPHRASE),
        implicit("c", ImplicitEvent.DWELL_MS),
        implicit("d", ImplicitEvent.COPY),
        thumb("d", False),
    ]
    _, _, verdicts, counts = items_of(served, events)
    assert {(v.response, v.desirable) for v in verdicts} == {
        ("answer a", True),
        ("answer b", False),
        ("answer d", False),
    }
    weight = {v.response: v.weight for v in verdicts}
    assert weight["answer d"] > weight["answer b"]  # an explicit word is surer
    assert counts["says nothing by itself: dwell_ms"] == 1


def test_the_last_event_holds_and_a_revocation_withdraws_it():
    served = [interaction("a"), interaction("b")]
    events = [thumb("a", True), thumb("b", True), thumb("b", False, time=2.0)]
    assert len(items_of(served, events)[1]) == 1
    assert items_of(served, [*events, revocation("b", time=3.0)])[1] == []


@pytest.mark.parametrize("broken", ["cancelled", "error", "interrupted"])
def test_without_consent_or_whole_answers_nothing_is_learnt(broken):
    served = [
        interaction("a", consent=Consent.EVAL_ONLY),
        interaction("b", finish_reason=broken),
        interaction("c", "q", retain_until=5.0),
    ]
    events = [thumb("a", True), thumb("b", False), thumb("c", False)]
    _, pairs, verdicts, counts = items_of(served, events, asked=SelectionQuery(10.0))
    assert pairs == verdicts == []
    assert counts["left out: no consent"] == 1
    assert counts["left out: the answer was broken off"] == 1
    assert counts["left out: its time of retention is over"] == 1
    assert len(items_of(served, events, asked=SelectionQuery(4.0))[2]) == 1


def test_items_of_simulated_raters_say_so():
    served = [interaction("a"), interaction("b")]
    events = [thumb("a", True, source=SourceKind.SIMULATED), thumb("b", False, source=SourceKind.SIMULATED)]
    assert rules(items_of(served, events)[1]) == ["same-prompt/4;simulated"]


def test_pairs_of_one_prompt_are_capped():
    served = [interaction(f"a{n}") for n in range(8)]
    events = [thumb(f"a{n}", n % 2 == 0) for n in range(8)]
    _, pairs, _, counts = items_of(served, events, FeedbackRules(pairs_per_prompt=3))
    assert len(pairs) == 3
    assert counts["left out: more pairs of one prompt than feedback.pairs_per_prompt"] == 13


def test_choices_that_contradict_each_other_cancel():
    served = [interaction("a"), interaction("b")]
    events = [choice(("a", "b"), "a", "x"), choice(("b", "a"), "b", "y")]
    _, pairs, _, counts = items_of(served, events)
    assert pairs == []
    assert counts["left out: choices that contradict each other"] == 2


def test_many_choices_outvote_one_and_no_id_helps_it():
    served = [interaction("a"), interaction("b")]
    events = [choice(("a", "b") if n % 2 else ("b", "a"), "a", f"p{n}") for n in range(4)]
    for id in ("0", "zzz", *(f"tried-{n}" for n in range(40))):
        lone = replace(choice(("a", "b"), "b", "mallory"), id=id)
        _, (pair,), _, counts = items_of(served, [*events, lone])
        assert (pair.chosen, len(pair.origin.parents)) == ("answer a", 2 + 4)
        assert counts["no pair: choices that others outvoted"] == 1


def test_since_and_after_keep_items_with_something_new_though_their_other_half_is_old():
    served = [interaction("a"), interaction("b"), interaction("c", "q")]
    events = [thumb("a", True, time=1.0), thumb("c", True, time=1.0), thumb("b", False, time=5.0)]
    _, pairs, verdicts, _ = items_of(served, events, asked=SelectionQuery(10.0, since=4.0))
    assert len(pairs) == 1
    assert verdicts == []


# --- together ---------------------------------------------------------------------------------


def test_readings_of_several_people_add_up_in_log_odds():
    def of(*ups):
        right = RaterTrust().event_accuracy(THUMB, "x")
        return combine_judgements(
            {f"s{n}": SubjectJudgement(f"s{n}", up, right, True, ()) for n, up in enumerate(ups)}, {}
        )

    odds = 0.85 / 0.15
    assert of(True).flip_rate == pytest.approx(1 / (1 + odds))
    assert of(True, True, False).flip_rate == pytest.approx(1 / (1 + odds))
    assert of(True, True).flip_rate == pytest.approx(1 / (1 + odds**2))
    assert of(True, False).up is None
    assert of(*[True] * 50).flip_rate == 0.02


def test_a_choice_of_the_place_that_is_taken_anyway_says_less():
    biased = RaterTrust(position_bias=1.0)
    assert (
        RaterTrust().choice_accuracy("s", True)
        == RaterTrust().choice_accuracy("s", False)
        == pytest.approx(0.75)
    )
    assert biased.choice_accuracy("s", True) < 0.75 < biased.choice_accuracy("s", False)


# --- laws -------------------------------------------------------------------------------------


@st.composite
def histories(draw):
    served: list[Interaction] = []
    for n in range(draw(st.integers(1, 9))):
        parent = draw(st.sampled_from([None, None, *served])) if served else None
        prompt = parent.messages[0].content if parent else draw(st.sampled_from("pqr"))
        answer = draw(st.sampled_from(["one", "two", "three", LONG]))
        subject = parent.subject if parent else draw(st.sampled_from("xyz"))
        served.append(interaction(f"i{n}", prompt, answer, parent and parent.id, subject=subject))
    ids, who = st.sampled_from([s.id for s in served]), st.sampled_from("xyz")
    moments = st.integers(1, 9).map(float)
    events = draw(
        st.lists(
            st.one_of(
                st.builds(thumb, ids, st.booleans(), who, moments),
                st.builds(implicit, ids, st.sampled_from(ImplicitEvent), who, moments),
                st.builds(correction, ids, st.sampled_from([LONG + " So.", "four", ""]), who, moments),
                st.builds(revocation, ids, who, moments),
                st.tuples(ids, ids, who)
                .filter(lambda t: t[0] != t[1])
                .map(lambda t: choice(t[:2], t[1], t[2])),
            ),
            max_size=14,
            unique_by=lambda e: e.id,
        )
    )
    return served, events


@settings(deadline=None, max_examples=60)
@given(histories(), st.randoms(use_true_random=False))
def test_items_do_not_depend_on_the_order_or_repetition_of_events(history, random):
    served, events = history
    mixed, again = random.sample(served, len(served)), random.sample(events, len(events)) + events
    assert items_of(mixed, again)[:3] == items_of(served, events)[:3]


@settings(deadline=None, max_examples=100)
@given(histories())
def test_a_pair_has_one_prompt_two_texts_and_never_stands_against_another(history):
    served, events = history
    by_id = {i.id: i for i in served}
    examples, pairs, verdicts, _ = items_of(served, events)
    for pair in pairs:
        answers = [by_id[parent] for parent in pair.origin.parents if parent in by_id]
        assert {a.messages for a in answers} == {pair.prompt}
        assert pair.chosen != pair.rejected
        assert 0 < pair.flip_rate <= 0.4
    sides = {(p.prompt, p.chosen, p.rejected) for p in pairs}
    assert len(sides) == len(pairs)
    assert not sides & {(prompt, rejected, chosen) for prompt, chosen, rejected in sides}
    assert all(item.weight > 0 for item in (*examples, *pairs, *verdicts))
    good, bad = (sum(v.weight for v in verdicts if v.desirable is side) for side in (True, False))
    assert not good or not bad or 1 - 1e-4 <= good / bad <= 4 / 3 + 1e-4


@settings(deadline=None, max_examples=60)
@given(histories())
def test_a_held_out_prompt_never_enters(history):
    served, events = history
    held_out = frozenset(i.prompt_hash for i in served if i.messages[0].content == "p")
    found = items_of(served, events, asked=SelectionQuery(10.0, held_out=held_out))
    assert all(item.prompt[0].content != "p" for kind in found[:3] for item in kind)


@settings(deadline=None, max_examples=60)
@given(histories())
def test_no_event_makes_items_of_two_rules(history):
    served, events = history
    by_word: dict[str, set[str]] = {}
    names = {e.id for e in events}
    for kind in items_of(served, events)[:3]:
        for item in kind:
            for word in set(item.origin.parents) & names:
                by_word.setdefault(word, set()).add(item.origin.rule)
    assert all(len(routes) == 1 for routes in by_word.values())


def vote_of_thumbs(served, events, trust):
    """By prompt and text, the log-odds that all live thumbs give it: of each person the last."""
    by_id = {i.id: i for i in served}
    last: dict[tuple, dict[str, Rating]] = {}
    for event in live(events).values():
        if isinstance(event, Rating):
            answer = by_id[event.target]
            held = last.setdefault((answer.messages, answer.answer), {})
            before = held.get(event.subject)
            if before is None or (event.time, event.id) > (before.time, before.id):
                held[event.subject] = event
    return {
        text: sum((1 if e.value else -1) * log_odds(trust.event_accuracy(THUMB, s)) for s, e in said.items())
        for text, said in last.items()
    }


@settings(deadline=None, max_examples=150)
@given(histories())
def test_no_item_contradicts_the_vote_on_its_texts(history):
    served, events = history
    by_id, by_event = {i.id: i for i in served}, {e.id: e for e in events}
    trust = selection_of(served, events).standings.trust
    votes = vote_of_thumbs(served, events, trust)
    chosen_over: Counter[tuple] = Counter()
    corrected_by: dict[tuple, set[str]] = defaultdict(set)
    for event in live(events).values():
        if isinstance(event, Correction):
            answer = by_id[event.target]
            corrected_by[answer.messages, answer.answer].add(event.subject)
        if isinstance(event, Choice) and event.winner:
            won = by_id[event.winner]
            for other in {*event.shown_order} - {event.winner}:
                if by_id[other].messages == won.messages:
                    chosen_over[won.messages, won.answer, by_id[other].answer] += 1
    examples, pairs, verdicts, _ = items_of(served, events)
    for verdict in verdicts:
        vote = votes.get((verdict.prompt, verdict.response), 0.0)
        assert vote >= -1e-9 if verdict.desirable else vote <= 1e-9
        thumbs = [by_event[p] for p in verdict.origin.parents if isinstance(by_event.get(p), Rating)]
        assert all(thumb.value is verdict.desirable for thumb in thumbs)
    for example in examples:
        assert votes.get((example.prompt, example.response), 0.0) >= -1e-9
    for pair in pairs:
        assert votes.get((pair.prompt, pair.chosen), 0.0) >= -1e-9
        # Each correction of the text is a vote against it, as strong as a thumb.
        slack = log_odds(0.85) * len(corrected_by[pair.prompt, pair.rejected])
        assert votes.get((pair.prompt, pair.rejected), 0.0) <= slack + 1e-9
        if not pair.origin.rule.startswith(("correction", "regeneration")):
            for_it = chosen_over[pair.prompt, pair.chosen, pair.rejected]
            assert for_it >= chosen_over[pair.prompt, pair.rejected, pair.chosen] - 2


def test_a_verdict_that_was_outvoted_makes_no_item_of_the_opposite():
    served = [interaction("g"), interaction("b"), interaction("b2", answer="answer b")]
    events = [thumb("g", True, f"p{n}") for n in range(3)]
    events += [thumb("b", n == 4, f"q{n}") for n in range(4)] + [thumb("b2", True, "q4")]
    _, (pair,), verdicts, counts = items_of(served, events)
    assert (pair.chosen, pair.rejected, len(pair.origin.parents)) == ("answer g", "answer b", 2 + 7)
    assert verdicts == []
    assert counts["counted in the vote on their text, and outvoted"] == 1


def test_a_choice_is_no_pair_where_several_say_that_its_winner_is_bad():
    served = [interaction("a"), interaction("b")]
    events = [choice(("a", "b"), "a", "x"), thumb("a", False, "y"), thumb("a", False, "z")]
    _, pairs, verdicts, counts = items_of(served, events)
    assert pairs == []
    assert [(v.response, v.desirable) for v in verdicts] == [("answer a", False)]
    assert counts["left out: choices that verdicts on the answers outvoted"] == 1


def test_a_liked_answer_is_no_bad_example_since_many_chose_another():
    served = [interaction("a"), interaction("b")]
    events = [thumb("b", True, "y"), *(choice(("a", "b"), "a", f"p{n}") for n in range(9))]
    _, _, verdicts, counts = items_of(served, events)
    assert verdicts == []
    assert counts["left out: as many for as against"] == 1


def test_a_pair_of_choices_weighs_by_its_own_votes():
    served = [interaction(f"{side}{n}", f"q{n}") for n in range(3) for side in "ab"]
    votes = {0: "aaa", 1: "aab", 2: "a"}
    events = [
        choice((f"a{n}", f"b{n}") if k % 2 else (f"b{n}", f"a{n}"), f"{side}{n}", f"p{n}{k}")
        for n, sides in votes.items()
        for k, side in enumerate(sides)
    ]
    weights = {c.draft.chosen: c.draft.weight for c in selection_of(served, events).chosen["pair"]}
    assert weights == pytest.approx({"a0": 0.591, "a1": 0.214, "a2": 0.25}, abs=0.02)


def test_a_thumb_beside_a_correction_that_yields_nothing_still_counts():
    served = [interaction("a", answer=LONG), interaction("b", "q", answer=LONG)]
    other = "Quite another text that has hardly a letter in common, by design!"
    events = [correction("a", LONG.replace(",", " ;")), thumb("a", False)]
    events += [correction("b", other), thumb("b", False)]
    examples, pairs, verdicts, counts = items_of(served, events)
    assert ([e.response for e in examples], pairs) == ([other], [])
    assert {(v.prompt[0].content, v.desirable) for v in verdicts} == {("p", False), ("q", False)}
    assert counts["left out: correction that changes nothing but white space and punctuation"] == 1


def test_people_who_write_the_same_correction_write_one_example():
    served = [interaction("a", answer=LONG)]
    events = [correction("a", LONG.replace("forty two", "42"), who) for who in "xyz"]
    (example,), (pair,), verdicts, _ = items_of(served, events)
    assert len(example.origin.parents) == 1 + 3
    assert (pair.rejected, verdicts) == (LONG, [])


def test_the_limits_of_corrections_are_settings():
    served = [interaction("a", answer=LONG)]
    events = [correction("a", LONG.replace("six", "nine"))]
    assert len(items_of(served, events)[1]) == 1
    *_, counts = items_of(served, events, FeedbackRules(min_edit=0.2))
    assert counts["left out: correction that changes less than feedback.min_edit"] == 1
    found = selection_of(served, events, FeedbackRules(max_edit=0.01))
    assert found.notes[1:] == ["no pair: correction that changes more than feedback.max_edit: 1; it is 0.01"]


def test_a_prompt_with_thousands_of_answers_is_no_product_of_all_of_them():
    served = [interaction(f"a{n}") for n in range(3000)]
    events = [thumb(f"a{n}", n % 2 == 0, f"p{n}") for n in range(3000)]
    found = selection_of(served, events)
    assert len(found.chosen["pair"]) == 4
    assert found.counts["left out: more pairs of one prompt than feedback.pairs_per_prompt"] == 1500**2 - 4


def test_rules_are_named_and_versioned_once():
    assert max(Counter(rule.name for rule in LABELLING_RULES).values()) == 1
    assert [rule.id for rule in LABELLING_RULES][:2] == ["correction/3", "regeneration/2"]

"""What there is to know of data made of feedback, and what to train on it: both read off the selection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from escultor.config import FeedbackRules
from escultor.feedback import weighting
from escultor.feedback.abuse_rules import RULES as STANDING_RULES
from escultor.feedback.evidence import IMPLICIT_RULES
from escultor.feedback.labelling_rules import LABELLING_RULES
from escultor.feedback.selection import SelectedDraft, Selection
from escultor.stats import krippendorff_alpha

RELIABLE, TENTATIVE = 0.8, 0.667  # Krippendorff's own limits
AGREED_ON = 20  # answers judged by several, from which on their agreement says something
NAMES = {
    "correction": "edits",
    "regeneration": "regenerations",
    "choice": "A/B",
    "same-prompt": "thumbs",
    "resampled": "new answers",
}


def section(found: Selection) -> dict[str, Any]:
    """The card's section: for each kind of item its routes, people, weights and lengths; then what was
    measured of those who spoke, what is held back, and why events made no item."""
    s = found.standings
    return {
        "rules": [*(route.rule for route in LABELLING_RULES), IMPLICIT_RULES, STANDING_RULES],
        "kinds": {kind: _of_kind(chosen) for kind, chosen in found.chosen.items()},
        "agreement_alpha": krippendorff_alpha(found.votes, (1, 0)),
        "answers_judged_by_several": len(found.votes),
        "right": s.right,
        "right_measured_on": s.gold if s.settings["gold_items"] <= s.gold else 0,
        "first_place_share": s.first_share,
        "first_place_log_odds": s.first_bias,
        "unreliable_subjects": len(s.reliability),
        "lockstep_subjects": len(s.collectives),
        "quarantine": dict(Counter(entry.rule for entry in s.held)),
        "copying_skills": s.copying,
        "counts": dict(sorted(found.counts.items())),
        "notes": found.notes,
    }


def _of_kind(chosen: Sequence[SelectedDraft]) -> dict[str, Any]:
    subjects: Counter[str] = Counter()
    for c in chosen:
        for subject in c.draft.subjects:
            subjects[subject] += 1
    n = len(chosen)
    made: dict[str, Any] = {
        "rows": n,
        "routes": dict(sorted(Counter(c.draft.route for c in chosen).items())),
        "prompts": len({c.draft.prompt for c in chosen}),
        "end_users": len(subjects),
        "largest_end_user_share": max(subjects.values()) / n if subjects else 0.0,
        "simulated": sum(c.draft.simulated for c in chosen),
        "skills": dict(sorted(Counter(c.facts.skill for c in chosen).items())),
        "effective_size": round(weighting.effective_size([c.weight for c in chosen]), 1),
    }
    if not chosen or chosen[0].draft.kind == "example":
        return made
    made["mean_flip_rate"] = round(sum(c.draft.flip for c in chosen) / n, 4)
    if chosen[0].draft.kind == "pair":
        gaps = [c.length_gap for c in chosen]
        made["mean_length_gap_characters"] = round(sum(gaps) / n, 1)
        made["chosen_longer_share"] = round(sum(gap > 0 for gap in gaps) / n, 4)
    else:
        sides = Counter((c.facts.skill, c.draft.desirable) for c in chosen)
        made["up_down_by_skill"] = {
            skill: [sides[skill, True], sides[skill, False]] for skill in made["skills"]
        }
        up, down = (sum(c.weight for c in chosen if c.draft.desirable is side) for side in (True, False))
        made["weight_up_over_down"] = round(up / down, 4) if down else None
    return made


@dataclass(frozen=True, slots=True)
class Advice:
    """What to train, in this order (empty: nothing yet), and in words why."""

    stages: tuple[str, ...]
    lines: tuple[str, ...]


def advise(card: dict[str, Any], settings: FeedbackRules) -> Advice:
    """Which trainer suits what there is. Read off a card's section, so that the reasons can be shown."""
    kinds = card["kinds"]
    pairs, examples = kinds["pair"]["rows"], kinds["example"]["rows"]
    stages: list[str] = []
    lines: list[str] = []
    if words := _right_answer(card, examples, pairs, settings):
        wants_sft, why = words
        lines.append(why)
        stages += ["sft"] if wants_sft else []
    sources = ", ".join(f"{NAMES[r.split('/')[0]]} {n:,}" for r, n in kinds["pair"]["routes"].items())
    if pairs >= settings.min_pairs:
        stages.append("dpo")
        lines.append(f"{_n(pairs, 'pair')} ({sources}): DPO")
    else:
        found = f"{_n(pairs, 'pair')} ({sources})" if pairs else "no pairs"
        lines.append(f"{found}: too few for DPO; {settings.min_pairs - pairs:,} more needed")
    stage, line = _thumbs(kinds["unpaired"], settings, "dpo" in stages)
    return Advice((*stages, *stage), (*lines, line, *_held_back(card["counts"])))


def _held_back(counts: dict[str, int]) -> Iterator[str]:
    """What would count were it released."""
    rules = {reason.partition(": ")[2]: n for reason, n in counts.items() if reason.startswith("held back: ")}
    if held := sum(rules.values()):
        what = ", ".join(f"{rule} {n:,}" for rule, n in rules.items() if n)
        yield f"{_n(held, 'word')} held back ({what}): `escultor feedback quarantine` shows why"


def _thumbs(judged: dict[str, Any], settings: FeedbackRules, after: bool) -> tuple[tuple[str, ...], str]:
    sides = judged.get("up_down_by_skill", {}).values()
    up, down = sum(side[0] for side in sides), sum(side[1] for side in sides)
    n, least = judged["rows"], settings.min_judged_side
    left = f"{_n(n, 'single verdict')} ({up:,} good, {down:,} bad)"
    if n >= settings.min_judged and min(up, down) >= least:
        return ("kto",), f"{left} left: KTO{' after it' if after else ''}"
    missing = []
    if n < settings.min_judged:
        missing.append(f"{settings.min_judged - n:,} more")
    missing += [
        f"{least - have:,} more {name} ones" for name, have in (("good", up), ("bad", down)) if have < least
    ]
    return (), f"{left}: too few for KTO; {' and '.join(missing)} needed"


def _right_answer(
    card: dict[str, Any], examples: int, pairs: int, settings: FeedbackRules
) -> tuple[bool, str] | None:
    """Whether there seems to be a right answer (SFT on what people wrote) or a taste (DPO): people who write
    what they want show one, people who agree with each other share one."""
    alpha = card["agreement_alpha"]
    if not examples and not pairs:
        return None
    routes = card["kinds"]["pair"]["routes"]
    only = pairs - sum(n for route, n in routes.items() if route.split("/")[0] == "correction")
    twice = card["answers_judged_by_several"]
    if alpha is None and twice >= AGREED_ON:
        agreed = f"unknown, all {twice:,} answers that several judged got the same verdict"
    elif alpha is None or twice < AGREED_ON:
        alpha, agreed = None, f"unknown, several judged {_n(twice, 'answer')}"
    else:
        agreed = f"alpha {alpha:.2f}"
    share = (
        f"{_n(examples, 'written answer')} beside {_n(only, 'pair')} that only compare, agreement {agreed}"
    )
    same = alpha is not None and alpha >= RELIABLE
    if 2 * examples > examples + only and (alpha is None or alpha >= TENTATIVE):
        found = f"{share}: a right answer seems to exist"
    elif examples and same:
        found = f"{share}: people want the same"
    elif same:
        return False, f"{share}: people want the same, and nobody wrote what: preferences, not SFT"
    else:
        return False, f"{share}: a matter of taste as far as can be seen: preferences, not SFT"
    if examples >= settings.min_examples:
        return True, f"{found}: SFT on those first"
    return False, f"{found}; too few for SFT; {settings.min_examples - examples:,} more needed"


def _n(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def lines(card: dict[str, Any]) -> Iterator[str]:
    """What the section says in sentences."""
    yield from (f"{line}." for line in card.get("advice", ()))
    pair, judged = card["kinds"]["pair"], card["kinds"]["unpaired"]
    if pair["rows"]:
        yield (
            f"Pairs: mean flip rate {pair['mean_flip_rate']:.3f}; chosen answers are longer by "
            f"{pair['mean_length_gap_characters']:+.0f} characters in the mean, longer in "
            f"{pair['chosen_longer_share']:.0%}."
        )
    if judged["rows"]:
        sides = "; ".join(f"{skill}: {u:,} / {d:,}" for skill, (u, d) in judged["up_down_by_skill"].items())
        yield f"Good / bad by skill: {sides}."
    alpha = card["agreement_alpha"]
    said = "not measurable" if alpha is None else f"{alpha:.3f}"
    yield f"Agreement (Krippendorff's alpha, {card['answers_judged_by_several']:,} answers): {said}."
    yield from (f"Note: {note}." for note in card["notes"])
    yield f"Rules: {', '.join(card['rules'])}."


def tables(card: dict[str, Any]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """What the section shows: title, heads and rows of each table."""
    kinds: dict[str, Any] = card["kinds"]
    yield (
        "From feedback",
        ["Kind", "Rows", "Prompts", "End users", "Largest share", "Effective size", "Simulated"],
        [
            [
                kind,
                *(f"{k[key]:,}" for key in ("rows", "prompts", "end_users")),
                f"{k['largest_end_user_share']:.1%}",
                *(f"{k[key]:,}" for key in ("effective_size", "simulated")),
            ]
            for kind, k in kinds.items()
        ],
    )
    routes = [(route, kind, n) for kind, k in kinds.items() for route, n in k["routes"].items()]
    yield "Routes", ["Route", "Makes", "Rows"], [[route, kind, f"{n:,}"] for route, kind, n in routes]
    left = [(reason, n) for reason, n in card["counts"].items() if n]
    yield (
        "What made no item",
        ["Why", "Events or items"],
        [[reason, f"{n:,}"] for reason, n in left],
    )
    if held := card["quarantine"]:
        yield "Held back", ["Rule", "Entries"], [[rule, f"{n:,}"] for rule, n in held.items()]

"""What is known of data made of feedback, and what to train on it: both computed from a selection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from escultor.config import FeedbackRules
from escultor.feedback import weighting
from escultor.feedback.abuse_rules import RULES as ABUSE_RULES
from escultor.feedback.labelling_rules import LABELLING_RULES
from escultor.feedback.raw_log import IMPLICIT_RULES
from escultor.feedback.selection import SelectedDraft, Selection
from escultor.stats import krippendorff_alpha

RELIABLE, TENTATIVE = 0.8, 0.667  # limits of Krippendorff's alpha that he proposed himself
MIN_AGREEMENT_ANSWERS = 20  # judged by several people, from which on their agreement says something
SOURCE_NAMES = {
    "correction": "edits",
    "regeneration": "regenerations",
    "choice": "A/B",
    "same-prompt": "thumbs",
    "resampled": "new answers",
}


def summarise(selection: Selection) -> dict[str, Any]:
    """The card's section on feedback: for each kind of item its rules, people, weights and lengths; then
    what was measured of the raters, what is held back, and why events made no item."""
    standings = selection.standings
    return {
        "rules": [*(rule.id for rule in LABELLING_RULES), IMPLICIT_RULES, ABUSE_RULES],
        "kinds": {kind: _summarise_kind(items) for kind, items in selection.chosen.items()},
        "agreement_alpha": krippendorff_alpha(selection.agreement, (1, 0)),
        "answers_judged_by_several": len(selection.agreement),
        "event_accuracy": standings.trust.accuracy,
        "accuracy_measured_on": standings.gold if standings.settings["gold_items"] <= standings.gold else 0,
        "first_place_share": standings.first_share,
        "first_place_log_odds": standings.trust.position_bias,
        "unreliable_subjects": len(standings.trust.reliability),
        "colluding_subjects": len(standings.trust.collusion_groups),
        "trusted_subjects": len(standings.trusted),
        "few_people": selection.few_people,
        "caps": [
            {"setting": f"feedback.{name}", "value": value, "owners": len(lost), "items": sum(lost.values())}
            for (name, value), lost in sorted(selection.caps.items())
        ],
        "quarantine": dict(Counter(entry.rule for entry in standings.quarantine)),
        "echoing_skills": standings.echoing_skills,
        "counts": dict(sorted(selection.counts.items())),
        "notes": selection.notes,
    }


def _summarise_kind(items: Sequence[SelectedDraft]) -> dict[str, Any]:
    subjects = Counter(subject for item in items for subject in item.draft.subjects)
    n = len(items)
    summary: dict[str, Any] = {
        "rows": n,
        "rules": dict(sorted(Counter(item.draft.rule for item in items).items())),
        "prompts": len({item.draft.prompt for item in items}),
        "end_users": len(subjects),
        "largest_end_user_share": max(subjects.values()) / n if subjects else 0.0,
        "simulated": sum(item.draft.simulated for item in items),
        "skills": dict(sorted(Counter(item.facts.skill for item in items).items())),
        "effective_size": round(weighting.effective_size([item.weight for item in items]), 1),
    }
    if not items or items[0].draft.kind == "example":
        return summary
    summary["mean_flip_rate"] = round(sum(item.draft.flip_rate for item in items) / n, 4)
    if items[0].draft.kind == "pair":
        gaps = [chosen - rejected for chosen, rejected in (item.lengths for item in items)]
        summary["mean_length_gap_characters"] = round(sum(gaps) / n, 1)
        summary["chosen_longer_share"] = round(sum(gap > 0 for gap in gaps) / n, 4)
        return summary
    sides = Counter((item.facts.skill, item.draft.desirable) for item in items)
    summary["up_down_by_skill"] = {s: [sides[s, True], sides[s, False]] for s in summary["skills"]}
    up, down = (sum(i.weight for i in items if i.draft.desirable == side) for side in (True, False))
    summary["weight_up_over_down"] = round(up / down, 4) if down else None
    return summary


@dataclass(frozen=True, slots=True)
class Advice:
    """What to train, in this order (empty: nothing yet), and sentences why."""

    stages: tuple[str, ...]
    lines: tuple[str, ...]


def advise(card: dict[str, Any], settings: FeedbackRules) -> Advice:
    """Which methods suit the data that a card's section describes."""
    kinds = card["kinds"]
    pairs, examples = kinds["pair"]["rows"], kinds["example"]["rows"]
    stages: list[str] = []
    lines: list[str] = []
    if examples or pairs:
        fits_sft, line = _advise_sft(card, examples, pairs, settings)
        lines.append(line)
        stages += ["sft"] if fits_sft else []
    rules = kinds["pair"]["rules"].items()
    by_source = ", ".join(f"{SOURCE_NAMES[rule.split('/')[0]]} {n:,}" for rule, n in rules)
    counted = f"{_n(pairs, 'pair')} ({by_source})" if pairs else "no pairs"
    if pairs >= settings.min_pairs:
        stages.append("dpo")
        lines.append(f"{counted}: DPO")
    else:
        lines.append(f"{counted}: too few for DPO; {settings.min_pairs - pairs:,} more needed")
    fits_kto, line = _advise_kto(kinds["unpaired"], settings, "dpo" in stages)
    stages += ["kto"] if fits_kto else []
    return Advice(tuple(stages), (*lines, line, *_held_back(card["counts"])))


def _held_back(counts: dict[str, int]) -> Iterator[str]:
    """What would count if it were released."""
    rules = {reason.partition(": ")[2]: n for reason, n in counts.items() if reason.startswith("held back: ")}
    if total := sum(rules.values()):
        by_rule = ", ".join(f"{rule} {n:,}" for rule, n in rules.items() if n)
        yield f"{_n(total, 'event')} held back ({by_rule}): `escultor feedback quarantine` shows why"


def _advise_kto(unpaired: dict[str, Any], settings: FeedbackRules, after_dpo: bool) -> tuple[bool, str]:
    sides = unpaired.get("up_down_by_skill", {}).values()
    up, down = sum(side[0] for side in sides), sum(side[1] for side in sides)
    n, min_side = unpaired["rows"], settings.min_unpaired_side
    counted = f"{_n(n, 'single verdict')} ({up:,} good, {down:,} bad)"
    if n >= settings.min_unpaired and min(up, down) >= min_side:
        return True, f"{counted} left: KTO{' after it' if after_dpo else ''}"
    missing = [f"{settings.min_unpaired - n:,} more"] if n < settings.min_unpaired else []
    missing += [
        f"{min_side - k:,} more {name} ones" for name, k in (("good", up), ("bad", down)) if k < min_side
    ]
    return False, f"{counted}: too few for KTO; {' and '.join(missing)} needed"


def _advise_sft(card: dict[str, Any], examples: int, pairs: int, settings: FeedbackRules) -> tuple[bool, str]:
    """Whether there seems to be a right answer (SFT on what people wrote) or a taste (DPO): people who
    write what they want show a right answer, people who agree with each other share one."""
    alpha, judged = card["agreement_alpha"], card["answers_judged_by_several"]
    if judged < MIN_AGREEMENT_ANSWERS:
        alpha, agreement = None, f"unknown, several judged {_n(judged, 'answer')}"
    elif alpha is None:
        agreement = f"unknown, all {judged:,} answers that several judged got the same verdict"
    else:
        agreement = f"alpha {alpha:.2f}"
    rules = card["kinds"]["pair"]["rules"]
    compared = pairs - sum(n for rule, n in rules.items() if rule.split("/")[0] == "correction")
    data = f"{_n(examples, 'written answer')} beside {_n(compared, 'pair')} that only compare"
    data = f"{data}, agreement {agreement}"
    agree = alpha is not None and alpha >= RELIABLE
    if 2 * examples > examples + compared and (alpha is None or alpha >= TENTATIVE):
        reason = f"{data}: a right answer seems to exist"
    elif examples and agree:
        reason = f"{data}: people want the same"
    elif agree:
        return False, f"{data}: people want the same, and nobody wrote what: preferences, not SFT"
    else:
        return False, f"{data}: a matter of taste as far as can be seen: preferences, not SFT"
    if examples >= settings.min_examples:
        return True, f"{reason}: SFT on those first"
    return False, f"{reason}; too few for SFT; {settings.min_examples - examples:,} more needed"


def _n(number: int, singular: str) -> str:
    return f"{number:,} {singular}{'' if number == 1 else 's'}"

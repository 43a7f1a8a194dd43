"""From drafts to the items that are trained on: what may not enter is left out, the rest weighed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rapidfuzz.distance import Levenshtein

from escultor.config import FeedbackRules
from escultor.feedback import weighting
from escultor.feedback.index import AnswerFacts, CorrectionEdit, FeedbackIndex
from escultor.feedback.labelling_rules import LABELLING_RULES, Draft, ItemKind
from escultor.feedback.raw_log import text_hash
from escultor.feedback.trust import RaterStandings
from escultor.ids import hash_bytes, plain
from escultor.types import Feedback, Interaction

KINDS: tuple[ItemKind, ...] = ("example", "pair", "unpaired")
ITEMS_PER_READ = 2000  # whose texts are in memory at a time
# Normalised Levenshtein distances: up to the first nothing is edited, from the second on all is.
MIN_EDIT, MAX_EDIT = 0.02, 0.6
SHORT = 20  # characters; any correction changes most of a shorter answer
MIN_CAPPED_TENANTS = 6  # of fewer, each has a fifth of the items by nature
CORRECTION_RULE = next(rule.id for rule in LABELLING_RULES if rule.name == "correction")
# Item ids hash the name of their kind; this is the name that `unpaired` had when the first ids were made.
HASHED_KINDS: dict[ItemKind, str] = {"example": "example", "pair": "pair", "unpaired": "judged"}


class BodySource(Protocol):
    """Where texts are looked up, such as `escultor.store.log.Log`."""

    def raw_by_id(self, record_type: Any, ids: Sequence[str]) -> dict[str, dict[str, Any]]: ...


class InMemorySource:
    """Interactions and feedback given by hand, instead of a log."""

    def __init__(self, interactions: Iterable[Interaction], feedback: Iterable[Feedback]):
        self._bodies: dict[Any, dict[str, Any]] = {
            Interaction: {i.id: plain(i) for i in interactions},
            Feedback: {f.id: plain(f) for f in feedback},
        }

    def raw_by_id(self, record_type: Any, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        bodies = self._bodies[record_type]
        return {id: bodies[id] for id in ids if id in bodies}


@dataclass(frozen=True, slots=True)
class SelectionQuery:
    """Which part of what holds is wanted: items whose newest event was recorded behind entry `after` and
    happened no earlier than `since`; their other events may be older. `now` decides what retention ended."""

    now: float
    after: int = 0
    since: float | None = None
    held_out: frozenset[str] = frozenset()  # prompt hashes


@dataclass(slots=True)
class SelectedDraft:
    """A draft that is trained on, its weight, and the facts of its answer and, for a pair, of the rejected
    one. The id is a hash of the content, set once that is known."""

    draft: Draft
    facts: AnswerFacts
    rejected: AnswerFacts | None
    weight: float = 1.0
    id: str = ""

    @property
    def lengths(self) -> tuple[int, int]:
        """Of both sides of a pair, in characters."""
        return self.facts.length, (self.rejected or self.facts).length


@dataclass(slots=True)
class Selection:
    """What was selected, by kind, and why the rest was not."""

    standings: RaterStandings
    chosen: dict[ItemKind, list[SelectedDraft]]
    counts: Counter[str]
    agreement: list[tuple[int, int]]  # (thumbs up, thumbs down) of answers with several
    notes: list[str] = field(default_factory=list)
    at_cap: dict[str, set[Hashable]] = field(default_factory=dict)  # subjects and tenants who lost items


def select(
    index: FeedbackIndex, bodies: BodySource, settings: FeedbackRules, query: SelectionQuery
) -> Selection:
    """All that the index holds, selected for training."""
    counts = Counter(index.counts())
    selection = Selection(index.standings(), {kind: [] for kind in KINDS}, counts, index.agreement())
    counts.update(f"quarantine: {entry.rule}" for entry in selection.standings.quarantine)
    corrections: list[SelectedDraft] = []
    for draft, facts, rejected in index.drafts(query.after, query.since):
        if draft.prompt in query.held_out:
            counts["left out: held-out prompt"] += 1
        elif any(s and s.retain_until is not None and s.retain_until <= query.now for s in (facts, rejected)):
            counts["left out: its time of retention is over"] += 1
        elif draft.rule == CORRECTION_RULE:
            corrections.append(SelectedDraft(draft, facts, rejected))
        else:
            selection.chosen[draft.kind].append(SelectedDraft(draft, facts, rejected))
    for item in _edits(corrections, index, bodies, counts):
        selection.chosen[item.draft.kind].append(item)
    newcomers = index.newcomers(settings.probation_votes, query.now)
    for kind in KINDS:
        items = _without_contradictions(selection.chosen[kind], counts)
        if kind == "pair" and settings.length_ratio is not None:
            n, ratio = len(items), settings.length_ratio
            items = [i for i in items if max(i.lengths) <= ratio * min(i.lengths)]
            counts["left out: sides differ too much in length"] += n - len(items)
        _weigh(items, settings, newcomers)
        selection.chosen[kind] = _finish(_cap(items, settings, newcomers, selection), kind)
    return selection


def _edits(
    corrections: list[SelectedDraft], index: FeedbackIndex, bodies: BodySource, counts: Counter[str]
) -> Iterator[SelectedDraft]:
    """Corrections with the hash and length of their own text. Those that change next to nothing are left out;
    those that say something else altogether are examples, but no pairs. The index keeps what was compared."""
    known = index.edits()
    new = [item.draft for item in corrections if item.draft.chosen not in known]
    for start in range(0, len(new), ITEMS_PER_READ):
        compared = _compare(new[start : start + ITEMS_PER_READ], bodies)
        index.put_edits(compared)
        known |= {edit.id: edit for edit in compared}
    for item in corrections:
        edit = known.get(item.draft.chosen)
        if edit is None:
            counts["left out: erased"] += 1
            continue
        is_short = max(edit.length, edit.length_before) < SHORT
        if not edit.distance or (edit.distance <= MIN_EDIT and not is_short):
            counts["left out: correction that changes next to nothing"] += 1
        elif item.draft.kind == "pair" and edit.distance >= MAX_EDIT and not is_short:
            counts["no pair: correction that says something else"] += 1
        else:
            item.facts = item.facts._replace(text_hash=edit.text_hash, length=edit.length)
            yield item


def _compare(drafts: Sequence[Draft], bodies: BodySource) -> list[CorrectionEdit]:
    """The corrections compared with what they correct, unless erased. An empty one changes nothing."""
    answer_of = {draft.chosen: draft.answer for draft in drafts}
    corrections = bodies.raw_by_id(Feedback, list(answer_of))
    answers = bodies.raw_by_id(Interaction, list(answer_of.values()))
    edits = []
    for id, answer in answer_of.items():
        if id in corrections and answer in answers:
            text, before = corrections[id]["text"], answers[answer]["answer"]
            distance = Levenshtein.normalized_distance(text, before) if text.strip() else 0.0
            edits.append(CorrectionEdit(id, text_hash(text), len(text), len(before), distance))
    return edits


def _without_contradictions(items: list[SelectedDraft], counts: Counter[str]) -> list[SelectedDraft]:
    """One item for each content, that of the first rule; pairs that contradict each other cancel."""
    by_content: dict[tuple[str, ...], SelectedDraft] = {}
    contradicted: set[tuple[str, ...]] = set()
    for item in items:
        prompt, text, rejected = item.draft.prompt, item.facts.text_hash, item.rejected
        content = (prompt, text, rejected.text_hash) if rejected else (prompt, text)
        if rejected and rejected.text_hash == text:
            counts["left out: both sides are the same text"] += 1
            continue
        if content in by_content:
            counts["left out: made by an earlier rule too"] += 1
            continue
        item.id = hash_bytes("\x1f".join((HASHED_KINDS[item.draft.kind], *content)).encode())
        by_content[content] = item
        if rejected and (swapped := (prompt, rejected.text_hash, text)) in by_content:
            contradicted |= {content, swapped}
    counts["left out: pairs that contradict each other"] += len(contradicted)
    return [item for content, item in by_content.items() if content not in contradicted]


def _weigh(items: list[SelectedDraft], settings: FeedbackRules, newcomers: frozenset[str]) -> None:
    """Sets the weights: inverse propensity, times the rule's own weight, times a half for newcomers, and for
    unpaired examples times the balance of each skill."""
    propensities = []
    for item in items:
        propensity, rejected = item.facts.propensity, item.rejected
        if rejected and rejected.arm != item.facts.arm:
            propensity *= rejected.propensity  # both answers had to be drawn
        propensities.append(propensity)
    weights = weighting.propensity_weights(propensities, settings.propensity_clip)
    if items and items[0].draft.kind == "unpaired":
        desirable, skills = [i.draft.desirable for i in items], [i.facts.skill for i in items]
        by_skill = weighting.class_weights(desirable, skills, settings.propensity_clip)
        weights = [a * b for a, b in zip(weights, by_skill, strict=True)]
    for item, weight in zip(items, weights, strict=True):
        is_new = item.draft.subjects and newcomers.issuperset(item.draft.subjects)
        item.weight = weight * item.draft.weight * (0.5 if is_new else 1.0)
    for item, weight in zip(items, weighting.normalise([i.weight for i in items]), strict=True):
        item.weight = weight


def _cap(
    items: list[SelectedDraft], settings: FeedbackRules, newcomers: frozenset[str], selection: Selection
) -> list[SelectedDraft]:
    """Limits the shares of end users and tenants by leaving items out. Where tenants lose items, an end
    user's share of the rest is smaller, so both caps are applied until nothing is lost."""
    groups, before = selection.standings.trust.collusion_groups, len(items)

    def people(item: SelectedDraft) -> tuple[str, ...]:
        return tuple(sorted({groups.get(s, s) for s in item.draft.subjects}))

    def subject_limit(owner: Hashable, n: int) -> float:
        if owner in newcomers:
            return settings.probation_items
        return max(settings.subject_items, settings.subject_share * n)

    def tenant_limit(_: Hashable, n: int) -> float:
        return max(settings.subject_items, settings.tenant_share * n)

    while True:
        items = _within_caps(items, people, subject_limit, "subject", selection)
        n, tenants = len(items), len({i.facts.tenant for i in items})
        if tenants < MIN_CAPPED_TENANTS:
            if tenants > 1 and "tenant caps off" not in " ".join(selection.notes):
                selection.notes.append(f"tenant caps off: {tenants} tenants, each near a fifth by nature")
            return items
        items = _within_caps(items, lambda item: (item.facts.tenant,), tenant_limit, "tenant", selection)
        if len(items) == n:
            break
    if 2 * len(items) < before:
        kept = f"{len(items):,} of {before:,} items of a kind stay"
        selection.notes.append(f"{tenants} tenants, one with most of it: {kept} within tenant_share")
    return items


def _within_caps(
    items: list[SelectedDraft],
    owners: Callable[[SelectedDraft], tuple[str, ...]],
    limit_of: weighting.CapLimit,
    owner_kind: str,
    selection: Selection,
) -> list[SelectedDraft]:
    costs = [weighting.CapCost(i.id, i.weight, owners(i), i.draft.desirable) for i in items]
    keep, lost = weighting.apply_caps(costs, limit_of)
    at_cap = selection.at_cap.setdefault(owner_kind, set())
    at_cap.update(lost)
    selection.counts[f"left out: beyond a {owner_kind}'s share"] += keep.count(False)
    selection.counts[f"{owner_kind}s at their cap"] = len(at_cap)
    return [item for item, stays in zip(items, keep, strict=True) if stays]


def _finish(items: list[SelectedDraft], kind: ItemKind) -> list[SelectedDraft]:
    """The items with their final weights, ordered by id, so that nothing depends on the order of reading."""
    items = sorted(items, key=lambda item: item.id)
    weights = weighting.normalise([item.weight for item in items])
    if kind == "unpaired":
        weights = weighting.balance(weights, [item.draft.desirable for item in items])
    for item, weight in zip(items, weights, strict=True):
        item.weight = round(weight, 6)
    return items

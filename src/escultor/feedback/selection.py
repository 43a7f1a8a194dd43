"""From a log to items: read what is new, make drafts, leave out what may not enter, weigh, cap, balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rapidfuzz.distance import Levenshtein

from escultor.config import FeedbackRules
from escultor.feedback import abuse_rules, weighting
from escultor.feedback.index import AnswerFacts, CorrectionEdit, FeedbackIndex
from escultor.feedback.labelling_rules import LABELLING_RULES, Draft, ItemKind
from escultor.feedback.raw_log import text_hash
from escultor.feedback.trust import RaterStandings
from escultor.ids import hash_bytes, plain
from escultor.types import (
    Consent,
    Example,
    Feedback,
    Interaction,
    Message,
    Messages,
    Origin,
    Pair,
    Role,
    UnpairedExample,
)

FeedbackItem = Example | Pair | UnpairedExample
KINDS: tuple[ItemKind, ...] = ("example", "pair", "unpaired")
# The names of kinds in the hashes that item ids are; never changed, so that the same content keeps its id.
ID_NAMES: dict[ItemKind, str] = {"example": "example", "pair": "pair", "unpaired": "judged"}
READ_AT_ONCE = 2000  # items whose texts are in memory
EDIT = (0.02, 0.6)  # normalised Levenshtein distance between which an edit is one, and no other answer
SHORT = 20  # characters; of a shorter answer every correction changes most
FEW_TENANTS = 5  # with so few, each has a fifth by nature
CORRECTED = next(route.rule for route in LABELLING_RULES if route.name == "correction")


class BodySource(Protocol):
    """Where texts are looked up; `escultor.store.log.Log` is one."""

    def lean_by_id(self, noun: Any, ids: Sequence[str]) -> dict[str, dict[str, Any]]: ...


class InMemorySource:
    """Interactions and feedback given by hand, in the place of a log."""

    def __init__(self, interactions: Iterable[Interaction], feedback: Iterable[Feedback]):
        self._by_noun = {Interaction: {i.id: plain(i) for i in interactions}}
        self._by_noun[Feedback] = {f.id: plain(f) for f in feedback}  # type: ignore[index]

    def lean_by_id(self, noun: Any, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        return {id: self._by_noun[noun][id] for id in ids if id in self._by_noun[noun]}


@dataclass(frozen=True, slots=True)
class SelectionQuery:
    """Which part of what holds is wanted: items whose newest word was recorded behind `after` and said no
    earlier than `since`. Their older halves may be older. `now` ends retention."""

    now: float
    after: int = 0
    since: float | None = None
    held_out: frozenset[str] = frozenset()


# An item by its id, its weight and its draft, plain: there are many to send to other processes.
DraftHandle = tuple[str, float, tuple[Any, ...]]


@dataclass(slots=True)
class SelectedDraft:
    """A draft that is trained on, with what is known of its answer, of the one it stands over, and its
    weight. Its id is of its content, once that is known."""

    draft: Draft
    facts: AnswerFacts
    other: AnswerFacts | None
    weight: float = 1.0
    id: str = ""

    @property
    def named(self) -> DraftHandle:
        return self.id, self.weight, tuple(self.draft)

    @property
    def length_gap(self) -> int:
        return self.facts.length - self.other.length if self.other else 0


@dataclass(slots=True)
class Selection:
    """What was selected, by kind, and why the rest was not."""

    standings: RaterStandings
    chosen: dict[ItemKind, list[SelectedDraft]]
    counts: Counter[str]
    votes: list[tuple[int, int]]
    notes: list[str] = field(default_factory=list)
    at_cap: dict[str, set[Any]] = field(default_factory=dict)  # subjects and tenants who lost something


def select(
    index: FeedbackIndex, bodies: BodySource, settings: FeedbackRules, asked: SelectionQuery
) -> Selection:
    """All that the index holds, selected for training."""
    counts = Counter(index.counts())
    found = Selection(index.standings(), {kind: [] for kind in KINDS}, counts, index.agreement())
    for entry in found.standings.held:
        counts[f"quarantine: {entry.rule}"] += 1
    edits: list[SelectedDraft] = []
    for draft, facts, other in index.drafts(asked.after, asked.since):
        if reason := _refused(draft, (facts, other), asked):
            counts[reason] += 1
        elif draft.route == CORRECTED:
            edits.append(SelectedDraft(draft, facts, other))
        else:
            found.chosen[draft.kind].append(SelectedDraft(draft, facts, other))
    for chosen in _measured(edits, index, bodies, counts):
        found.chosen[chosen.draft.kind].append(chosen)
    probation = _on_probation(index, settings, asked.now)
    for kind in KINDS:
        kept = _consistent(found.chosen[kind], counts)
        kept = _length_matched(kept, settings.length_ratio, counts) if kind == "pair" else kept
        _weigh(kept, settings, probation)
        kept = _capped(kept, settings, probation, found)
        found.chosen[kind] = _finished(kept, kind)
    return found


def _refused(draft: Draft, sides: tuple[AnswerFacts | None, ...], asked: SelectionQuery) -> str | None:
    if draft.prompt in asked.held_out:
        return "left out: held-out prompt"
    for side in sides:
        if side is not None and side.retain is not None and side.retain <= asked.now:
            return "left out: its time of retention is over"
    return None


def _measured(
    edits: list[SelectedDraft], index: FeedbackIndex, bodies: BodySource, counts: Counter[str]
) -> Iterator[SelectedDraft]:
    """Corrections with their texts' names and lengths; those that changed nothing to speak of are left out,
    and those that say something else altogether are examples, but no pairs. The index remembers the texts."""
    known = index.edits()
    for at in range(0, len(edits), READ_AT_ONCE):
        part = edits[at : at + READ_AT_ONCE]
        if new := [c for c in part if c.draft.chosen not in known]:
            found = _compared(new, bodies)
            index.keep_edits(found)
            known |= {edit.id: edit for edit in found}
        for chosen in part:
            edit = known.get(chosen.draft.chosen)
            if edit is None:
                counts["left out: erased"] += 1
                continue
            short = max(edit.length, edit.before) < SHORT
            if not edit.distance or (edit.distance <= EDIT[0] and not short):
                counts["left out: correction that changes next to nothing"] += 1
            elif chosen.draft.kind == "pair" and edit.distance >= EDIT[1] and not short:
                counts["no pair: correction that says something else"] += 1
            else:
                chosen.facts = chosen.facts._replace(text=edit.text, length=edit.length)
                yield chosen


def _compared(found: Sequence[SelectedDraft], bodies: BodySource) -> list[CorrectionEdit]:
    """Corrections beside what they correct, of those that are not erased. An empty one changes nothing."""
    texts = bodies.lean_by_id(Feedback, [c.draft.chosen for c in found])
    answers = bodies.lean_by_id(Interaction, [c.draft.about for c in found])
    made = {}
    for id, about in ((c.draft.chosen, c.draft.about) for c in found):
        if id in texts and about in answers:
            text, before = texts[id]["text"], answers[about]["answer"]
            distance = Levenshtein.normalized_distance(text, before) if text.strip() else 0.0
            made[id] = CorrectionEdit(id, text_hash(text), len(text), len(before), distance)
    return list(made.values())


def _consistent(found: list[SelectedDraft], counts: Counter[str]) -> list[SelectedDraft]:
    """One item for each content, the earliest route's; contents that contradict each other cancel."""
    by_content: dict[tuple[str, ...], SelectedDraft] = {}
    against: set[tuple[str, ...]] = set()
    for chosen in found:
        prompt, text, other = chosen.draft.prompt, chosen.facts.text, chosen.other
        content = (prompt, text, other.text) if other else (prompt, text)
        if other and other.text == text:
            counts["left out: both sides are the same text"] += 1
            continue
        if content in by_content:
            counts["left out: said twice by different routes"] += 1
            continue
        chosen.id = hash_bytes("\x1f".join((ID_NAMES[chosen.draft.kind], *content)).encode())
        by_content[content] = chosen
        if other and (back := (prompt, other.text, text)) in by_content:
            against |= {content, back}
    counts["left out: pairs that contradict each other"] += len(against)
    return [chosen for content, chosen in by_content.items() if content not in against]


def _length_matched(
    found: list[SelectedDraft], ratio: float | None, counts: Counter[str]
) -> list[SelectedDraft]:
    if ratio is None:
        return found
    kept = []
    for chosen in found:
        gap = chosen.length_gap
        long = chosen.facts.length + max(0, -gap)
        if long <= ratio * (long - abs(gap)):
            kept.append(chosen)
    counts["left out: sides of unlike length"] += len(found) - len(kept)
    return kept


def _on_probation(index: FeedbackIndex, settings: FeedbackRules, now: float) -> frozenset[str]:
    rows, newest = index.newcomers(settings.probation_votes, now)
    return frozenset(
        s for s, n, first in rows if abuse_rules.on_probation(n, first, newest, settings.probation_votes)
    )


def _weigh(found: list[SelectedDraft], settings: FeedbackRules, probation: frozenset[str]) -> None:
    """Propensity, then the route's own weight, half for newcomers, and for single verdicts the balance of
    each skill."""
    chances = []
    for chosen in found:
        chance, other = chosen.facts.propensity, chosen.other
        if other and other.arm != chosen.facts.arm:
            chance *= other.propensity  # both had to be drawn
        chances.append(chance)
    weights = weighting.propensity_weights(chances, settings.propensity_clip)
    if found and found[0].draft.kind == "unpaired":
        skills = [c.facts.skill for c in found]
        classes = weighting.class_weights(
            [c.draft.desirable for c in found], skills, settings.propensity_clip
        )
        weights = [w * c for w, c in zip(weights, classes, strict=True)]
    for chosen, weight in zip(found, weights, strict=True):
        new = chosen.draft.subjects and all(s in probation for s in chosen.draft.subjects)
        chosen.weight = weight * chosen.draft.weight * (0.5 if new else 1.0)
    for chosen, weight in zip(found, weighting.normalised([c.weight for c in found]), strict=True):
        chosen.weight = weight


def _capped(
    found: list[SelectedDraft], settings: FeedbackRules, probation: frozenset[str], selection: Selection
) -> list[SelectedDraft]:
    """End users' and tenants' shares, by leaving items out after they are weighed. Where tenants lose some, a
    share of what stays is less, so both are gone through again until nothing is lost."""
    one, before = selection.standings.collectives, len(found)

    def people(chosen: SelectedDraft) -> tuple[str, ...]:
        return tuple(sorted({one.get(s, s) for s in chosen.draft.subjects}))

    def own_room(owner: Any, n: int) -> float:
        if owner in probation:
            return settings.probation_items
        return max(settings.subject_items, settings.subject_share * n)

    def room(_: Any, n: int) -> float:
        return max(settings.subject_items, settings.tenant_share * n)

    while True:
        found = _keep(found, people, own_room, "subject", selection)
        n, tenants = len(found), len({c.facts.tenant for c in found})
        if tenants <= FEW_TENANTS:
            if tenants > 1 and "tenant caps off" not in " ".join(selection.notes):
                selection.notes.append(f"tenant caps off: {tenants} tenants, each near a fifth by nature")
            return found
        found = _keep(found, lambda c: (c.facts.tenant,), room, "tenant", selection)
        if len(found) == n:
            break
    if 2 * len(found) < before:
        what = f"{len(found):,} of {before:,} items of a kind stay"
        selection.notes.append(f"{tenants} tenants, one with most of it: {what} within tenant_share")
    return found


def _keep(
    found: list[SelectedDraft],
    owners: Callable[[SelectedDraft], tuple[str, ...]],
    room: weighting.CapRoom,
    whose: str,
    selection: Selection,
) -> list[SelectedDraft]:
    costs = [weighting.CapCost(c.id, c.weight, owners(c), c.draft.desirable) for c in found]
    keep, lost = weighting.capped(costs, room)
    at_cap = selection.at_cap.setdefault(whose, set())
    at_cap.update(lost)
    selection.counts[f"left out: beyond a {whose}'s share"] += keep.count(False)
    selection.counts[f"{whose}s at their cap"] = len(at_cap)
    return [chosen for chosen, stays in zip(found, keep, strict=True) if stays]


def _finished(found: list[SelectedDraft], kind: ItemKind) -> list[SelectedDraft]:
    """In the order of their ids, so that nothing depends on when what was read."""
    found = sorted(found, key=lambda c: c.id)
    weights = weighting.normalised([c.weight for c in found])
    if kind == "unpaired":
        weights = weighting.balanced(weights, [c.draft.desirable for c in found])
    for chosen, weight in zip(found, weights, strict=True):
        chosen.weight = round(weight, 6)
    return found


# --- with their texts -------------------------------------------------------------------------


def items(found: Sequence[SelectedDraft], bodies: BodySource, counts: Counter[str]) -> Iterator[FeedbackItem]:
    """The items with their texts, a few thousand in memory at a time. What the log no longer holds was
    erased, and is left out."""
    for at in range(0, len(found), READ_AT_ONCE):
        yield from with_texts([chosen.named for chosen in found[at : at + READ_AT_ONCE]], bodies, counts)


def with_texts(
    found: Sequence[DraftHandle], bodies: BodySource, counts: Counter[str]
) -> Iterator[FeedbackItem]:
    """These items, all in memory at once."""
    part = [(id, weight, Draft._make(draft)) for id, weight, draft in found]
    asked = {id for _, _, draft in part for id in (draft.about, draft.rejected) if id}
    asked |= {draft.chosen for _, _, draft in part if draft.route != CORRECTED}
    answers = bodies.lean_by_id(Interaction, sorted(asked))
    said = bodies.lean_by_id(Feedback, [draft.chosen for _, _, draft in part if draft.route == CORRECTED])
    for id, weight, draft in part:
        item = _item(id, weight, draft, answers, said)
        if item is None:
            counts["left out: erased"] += 1
        else:
            yield item


def _item(
    id: str, weight: float, draft: Draft, answers: dict[str, Any], said: dict[str, Any]
) -> FeedbackItem | None:
    corrected = draft.route == CORRECTED
    needed = {draft.about, draft.rejected, *(() if corrected else (draft.chosen,))} - {""}
    if not needed <= answers.keys() or (corrected and draft.chosen not in said):
        return None
    text = said[draft.chosen]["text"] if corrected else answers[draft.chosen]["answer"]
    rejected = answers[draft.rejected]["answer"] if draft.rejected else ""
    return item_of(id, weight, draft, messages(answers[draft.about]), text, rejected)


def item_of(id: str, weight: float, draft: Draft, prompt: Messages, text: str, rejected: str) -> FeedbackItem:
    """The item of a draft and its texts."""
    parents = sorted({draft.about, draft.rejected, "" if draft.route == CORRECTED else draft.chosen} - {""})
    rule = f"{draft.route};simulated" if draft.simulated else draft.route
    origin = Origin((*parents, *draft.words), rule, Consent.TRAIN)
    if draft.kind == "pair":
        return Pair(id, prompt, text, rejected, origin, weight, draft.flip)
    if draft.kind == "unpaired":
        return UnpairedExample(id, prompt, text, draft.desirable, origin, weight)
    return Example(id, prompt, text, origin, weight)


def messages(body: dict[str, Any]) -> Messages:
    """The prompt of an interaction's body."""
    return tuple(Message(Role(m["role"]), m["content"]) for m in body["messages"])

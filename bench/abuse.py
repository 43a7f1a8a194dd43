"""How often labels are right, how many honest people are held back, what a spammer gains: simulated crowds.

Truth: an answer is good or bad. People see it with accuracy 0.87 (thumbs) and 0.9 (choices between unequal
answers; between equal ones they pick by position), and mend a digit of a bad answer. Activity is lognormal;
some quote their problem, hand in one text again and again, or ask once for a sentence to be repeated. The
spammer gives 30 % of all votes, to answers that plant a phrase. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter

from escultor.config import FeedbackRules
from escultor.feedback.index import FeedbackIndex
from escultor.feedback.raw_log import InMemorySource
from escultor.feedback.selection import SelectedDraft, Selection, SelectionQuery, select
from escultor.ids import hash_value
from escultor.types import (
    Choice,
    Correction,
    Feedback,
    Interaction,
    Message,
    Rating,
    Role,
    Sampling,
    Usage,
)

DAY_S, SPAN_DAYS = 86_400.0, 60
WORDS = [f"word{n:03d}" for n in range(400)]
PLANTED = "everybody knows that the moon is one great big wheel of old cheese"


class Crowd:
    """People, what they asked and what they said of the answers; `truth` says which answers are good."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.served: list[Interaction] = []
        self.events: list[Feedback] = []
        self.truth: dict[str, bool] = {}

    def prose(self, n: int = 30) -> str:
        return " ".join(self.random.choices(WORDS, k=n))

    def ask(self, who: str, prompt: str, answer: str, good: bool, day: float) -> str:
        id, messages = f"i{len(self.served)}", (Message(Role.USER, prompt),)
        call = Interaction(
            id=id, time=day * DAY_S, skill="chat", subject=who, version="v", arm="champion", propensity=1.0,
            messages=messages, answer=answer, finish_reason="stop", sampling=Sampling(), usage=Usage(1, 1),
            latency_ms=1.0, ttft_ms=None, cost_usd=0.0, prompt_hash=hash_value(messages),
        )  # fmt: skip
        self.served.append(call)
        self.truth[id] = good
        return id

    def thumb(self, who: str, target: str, day: float, accuracy: float = 0.87) -> None:
        up = self.truth[target] is (self.random.random() < accuracy)
        self.events.append(Rating(f"e{len(self.events)}", day * DAY_S + 60, target, who, "thumb", up))

    def select(self) -> Selection:
        with FeedbackIndex(None, FeedbackRules()) as index:
            index.add(self.served, self.events)
            return select(index, FeedbackRules(), SelectionQuery((SPAN_DAYS + 1) * DAY_S))


def label_figures(n_events: int, seed: int) -> dict[str, float]:
    """Shares of right labels where a few answers to each prompt are judged by several people."""
    crowd = Crowd(seed)
    draw, corrected = crowd.random, set()
    people = [f"p{n}" for n in range(400)]
    prompts = [
        (crowd.prose(12), [(crowd.prose(), crowd.random.random() < 0.6) for _ in range(4)])
        for _ in range(n_events // 14)
    ]
    while len(crowd.events) < n_events:
        (prompt, answers), who, day = draw.choice(prompts), draw.choice(people), draw.random() * SPAN_DAYS
        (text, good), (other, other_good) = draw.sample(answers, 2)
        id, kind = crowd.ask(who, prompt, text, good, day), draw.random()
        if kind < 0.7:
            for voter in {who, draw.choice(people)} if kind < 0.2 else {who}:
                crowd.thumb(voter, id, day)
        elif kind < 0.9:
            beside = crowd.ask(who, prompt, other, other_good, day)
            shown = [id, beside] if draw.random() < 0.5 else [beside, id]
            best = id if good else beside
            worst = beside if best == id else id
            winner = (
                (best if draw.random() < 0.9 else worst)
                if good is not other_good
                else shown[draw.random() < 0.4]
            )
            crowd.events.append(
                Choice(f"e{len(crowd.events)}", day * DAY_S + 60, who, "preference", tuple(shown), winner)
            )
        elif not good:
            mended = text.replace("word0", "word9", 1) if "word0" in text else f"{text} 7"
            corrected.add(f"e{len(crowd.events)}")
            crowd.events.append(Correction(f"e{len(crowd.events)}", day * DAY_S + 60, id, who, mended))
    found = crowd.select()

    def differing(rows: list[SelectedDraft]) -> list[bool]:
        sides = [(crowd.truth[c.draft.chosen], crowd.truth[c.draft.rejected]) for c in rows]
        return [chosen for chosen, rejected in sides if chosen is not rejected]

    pairs = [c for c in found.chosen["pair"] if not c.draft.rule.startswith("correction")]
    choices = [c for c in pairs if c.draft.rule.startswith("choice")]
    equal = [crowd.truth[c.draft.chosen] is crowd.truth[c.draft.rejected] for c in choices]
    weight = {e: sum(c.weight for c, q in zip(choices, equal, strict=True) if q is e) for e in (True, False)}
    labels = [crowd.truth[c.draft.chosen] is bool(c.draft.desirable) for c in found.chosen["unpaired"]]
    used = {id for rows in found.chosen.values() for c in rows for id in c.draft.events} & corrected
    return {
        "unpaired_right": _share(labels),
        "pairs_right": _share(differing(pairs)),
        "choice_pairs_right": _share(differing(choices)),
        "choice_pairs_equal": _share(equal),
        "choice_weight_on_equal": round(weight[True] / max(1e-9, sum(weight.values())), 4),
        "corrections_used": round(len(used) / len(corrected), 4),
        "items": sum(map(len, found.chosen.values())),
    }


def held_figures(people: int, sigma: float, seed: int, spammer: bool) -> Counter[str]:
    """Of one crowd: honest people, those of them held back, and items that plant the spammer's phrase."""
    crowd = Crowd(seed)
    draw = crowd.random
    for n in range(people):
        who, habit, problem = f"h{n}", draw.random(), crowd.prose()
        for k in range(max(1, round(5 * draw.lognormvariate(0, sigma)))):
            # Half of the people come on few days and judge a lot then.
            day = draw.random() * SPAN_DAYS if n % 2 else float((n * 7) % SPAN_DAYS)
            good, prompt, answer = draw.random() < 0.7, crowd.prose(15), crowd.prose()
            if habit < 0.1:  # quotes the problem before it is solved
                answer = f"{prompt} So: {crowd.prose(8)}."
            elif habit < 0.15:  # hands one text in again and again
                words = problem.split()
                words[draw.randrange(len(words))] = f"new{k}"
                prompt, answer = f"{k}: use new{k}. {problem}", " ".join(words)
            elif habit < 0.2 and k == 0:  # tries whether the model repeats a sentence
                prompt, answer = f"Say: {answer}", answer
            crowd.thumb(who, crowd.ask(who, prompt, answer, good, day), day)
    if spammer:
        for _ in range(round(len(crowd.events) * 3 / 7)):
            day = draw.random() * SPAN_DAYS
            target = crowd.ask("spammer", crowd.prose(9), f"{PLANTED}, {crowd.prose(9)}", True, day)
            crowd.thumb("spammer", target, day, accuracy=1.0)
    found = crowd.select()
    held = {entry.subject for entry in found.standings.quarantine}
    bodies = InMemorySource(crowd.served, ())
    taught = [c.draft.chosen for rows in found.chosen.values() for c in rows if c.draft.desirable]
    texts = bodies.raw_by_id(Interaction, taught).values()
    planted = sum(PLANTED in body["answer"] for body in texts)
    return Counter(honest=people, held=len(held - {"spammer"}), planted=planted, crowds=1)


def _share(right: list[bool]) -> float:
    return round(sum(right) / max(1, len(right)), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--crowds", type=int, default=20, help="of each size and unevenness")
    parser.add_argument("--seed", type=int, default=0, help="the first; those from 0 on set the thresholds")
    given = parser.parse_args()
    labels = label_figures(given.events, given.seed)
    figures: dict[str, object] = {"bench": "abuse", "seed": given.seed, "labels": labels}
    total, planted = Counter[str](), dict[int, int]()
    for people in (10, 30, 100, 300):
        for sigma in (0.5, 1.0, 1.5):
            for seed in range(given.seed, given.seed + given.crowds):
                found = held_figures(people, sigma, seed, seed % 2 == 0)
                total += found
                # In a crowd of ten nothing tells a spammer from a busy person: the cap bounds them.
                planted[people] = max(planted.get(people, 0), found["planted"])
    figures["honest_people"] = total["honest"]
    figures["honest_held_back"] = round(total["held"] / total["honest"], 5)
    figures["most_spammer_items_by_crowd"] = planted
    print(json.dumps(figures | {"date": time.strftime("%Y-%m-%d")}))


if __name__ == "__main__":
    main()

"""Pairs out of a million feedback events: read the log, fold, make drafts, weigh, cap, write; then again with
a thousand new events, and again with nothing new. Prints one JSON object last.

The log is written straight into the store's table (checking two million rows on the way in would take longer
than what is measured). Prompts and answers are GSM8K's where BENCH_DATA or ESCULTOR_DATA holds them, else
made of words. Interactions: 0.75 an event, of which 0.15 are regenerations of the one before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from escultor.config import FeedbackRules
from escultor.ids import hash_value
from escultor.store import Store, open_store

SHARES = {
    "thumb": 0.55,
    "implicit": 0.26,
    "choice": 0.10,
    "correction": 0.04,
    "revocation": 0.03,
    "remark": 0.02,
}
IMPLICIT = ("copy", "copy", "insert_accept", "regenerate", "follow_up_rephrase", "abandon", "dwell_ms")
BEGIN = 1_760_000_000.0
EPOCHS_S = 60 * 86_400.0  # the events lie in sixty days


class World:
    """Interactions and feedback by number; the same for a seed."""

    def __init__(self, events: int, data: Path | None):
        self.random = random.Random(0)
        self.events, self.subjects = events, max(20, events // 100)
        self.texts = list(_texts(data))
        self.calls: list[tuple[str, int, str]] = []  # id, prompt, subject
        self.siblings: list[int] = []  # calls whose prompt is that of the call before

    def interactions(self) -> Iterator[tuple[str, float, str | None, str, dict[str, Any]]]:
        draw = self.random
        count = int(self.events * 0.75)
        for n in range(count):
            before = self.calls[-1] if self.calls and draw.random() < 0.15 else None
            # Prompts are asked more than once: a fifth of them by several people.
            prompt = (
                before[1]
                if before
                else draw.randrange(count)
                if draw.random() < 0.8
                else draw.randrange(count // 50)
            )
            subject = before[2] if before else f"subject-{int(self.subjects * draw.random() ** 2):06d}"
            id = f"chatcmpl-{n:024x}"
            question, answers = self.texts[prompt % len(self.texts)]
            messages = [{"role": "user", "content": f"{question} ({prompt})"}]
            body = {
                "_": "Interaction", "id": id, "time": BEGIN + EPOCHS_S * n / count,
                "skill": f"skill-{prompt % 5}", "subject": subject, "version": "v",
                "arm": "candidate" if n % 10 == 0 else "champion",
                "propensity": 0.1 if n % 10 == 0 else 0.9, "messages": messages,
                "answer": f"{draw.choice(answers)} {draw.randrange(1000)}", "finish_reason": "stop",
                "sampling": {"temperature": 0.7, "top_p": 1.0, "max_new_tokens": 256, "seed": 0},
                "usage": {"prompt_tokens": 90, "completion_tokens": 120}, "latency_ms": 700.0,
                "ttft_ms": 40.0, "cost_usd": 0.0001, "prompt_hash": hash_value(["bench", prompt]),
                "lineage": {"parent": before[0], "relation": "regenerate"} if before else None,
                "consent": "none" if n % 50 == 0 else "train", "retain_until": None,
                "tenant": f"tenant-{prompt % 8}",
            }  # fmt: skip
            if before:
                self.siblings.append(len(self.calls))
            self.calls.append((id, prompt, subject))
            yield id, body["time"], "v", subject, body

    def feedback(
        self, count: int, first: int = 0
    ) -> Iterator[tuple[str, float, str | None, str, dict[str, Any]]]:
        draw = self.random
        kinds = draw.choices(list(SHARES), list(SHARES.values()), k=count)
        for n, kind in enumerate(kinds, first):
            at = draw.randrange(1, len(self.calls))
            target, prompt, asker = self.calls[at]
            subject = asker if draw.random() < 0.9 else f"subject-{draw.randrange(self.subjects):06d}"
            when = BEGIN + EPOCHS_S * at / len(self.calls) + 60 + n % 7
            body: dict[str, Any] = {
                "id": f"fb-{n:024x}",
                "time": when,
                "target": target,
                "subject": subject,
                "source": "end_user",
            }
            if kind == "thumb":
                body |= {"_": "Rating", "name": "thumb", "value": draw.random() < 0.7}
            elif kind == "implicit":
                body |= {"_": "Implicit", "event": draw.choice(IMPLICIT), "value": None}
            elif kind == "correction":
                answer = self.texts[prompt % len(self.texts)][1][0]
                body |= {"_": "Correction", "text": f"{answer} Corrected, {n}."}
            elif kind == "revocation":
                body |= {"_": "Revocation", "name": "thumb"}
            elif kind == "remark":
                body |= {"_": "Remark", "text": "I do not understand the second step."}
            else:
                at = draw.choice(self.siblings)
                shown = [self.calls[at][0], self.calls[at - 1][0]]
                draw.shuffle(shown)
                del body["target"]
                body |= {
                    "_": "Choice",
                    "name": "preference",
                    "shown_order": shown,
                    "winner": draw.choice(shown),
                }
            yield body["id"], when, body.get("target"), subject, body


def _texts(data: Path | None) -> Iterator[tuple[str, list[str]]]:
    file = data / "gsm8k" / "train.jsonl" if data else None
    if file is not None and file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield (
                row["question"],
                [row["answer"], row["answer"].replace("#### ", "The answer is "), row["answer"][::-1]],
            )
        return
    draw = random.Random(1)
    words = [f"word{n}" for n in range(5000)]
    for _ in range(7000):
        yield " ".join(draw.choices(words, k=45)), [" ".join(draw.choices(words, k=50)) for _ in range(3)]


def write(path: Path, kind: str, rows: Iterator[tuple[str, float, str | None, str, dict[str, Any]]]) -> None:
    with sqlite3.connect(path) as file:
        file.execute("pragma synchronous = off")
        file.executemany(
            "insert into log (kind, id, time, target, subject, body) values (?,?,?,?,?,?)",
            (
                (kind, id, when, target, subject, json.dumps({"_": body["_"]} | body, separators=(",", ":")))
                for id, when, target, subject, body in rows
            ),
        )
    file.close()


def convert(store: Store, settings: FeedbackRules) -> dict[str, Any]:
    """One conversion, from the log to rows in the store; the processor's time is that of all processes."""
    # Here, as the command does: each process that helps reads this file first.
    from escultor.feedback import conversion
    from escultor.feedback.selection import SelectionQuery

    held_out = frozenset(hash_value(["bench", prompt]) for prompt in range(0, 20_000, 100))
    began, spent = time.perf_counter(), _processor_s()
    made = conversion.convert(store, settings, SelectionQuery(BEGIN + 2 * EPOCHS_S, held_out=held_out))
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "processor_s": round(_processor_s() - spent, 2),
        "rows": made.rows,
        "reused": made.reused,
    }


def _processor_s() -> float:
    return sum(os.times()[:4])  # of this process and of those it waited for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--new", type=int, default=1000)
    default = os.environ.get("BENCH_DATA") or os.environ.get("ESCULTOR_DATA")
    parser.add_argument("--data", type=Path, default=Path(default) if default else None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        open_store(str(folder)).close()
        world = World(given.events, given.data)
        write(folder / "log.db", "interaction", world.interactions())
        write(folder / "log.db", "feedback", world.feedback(given.events))
        settings = FeedbackRules()
        with open_store(str(folder)) as store:
            whole = convert(store, settings)
            write(folder / "log.db", "feedback", world.feedback(given.new, given.events))
            again = convert(store, settings)
            nothing = convert(store, settings)
        sizes = {p.name: p.stat().st_size >> 20 for p in (folder / "log.db", *folder.glob("cache/*.sqlite"))}
    figures = {
        "bench": "labelling",
        "events": given.events,
        "interactions": len(world.calls),
        "whole": whole,
        "after_new_events": {"new": given.new, **again},
        "after_nothing_new": nothing,
        "mib": sizes,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "machine": f"{os.cpu_count()} x {platform.processor() or platform.machine()}",
        "date": time.strftime("%Y-%m-%d"),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

"""Quality over quantity: SFT on the best N rows that curation picks, against all 10 N, at equal token budget.

    python experiments/curation.py [--rows 400] [--steps 120] [--seeds 5]

Rows are documents of the installed packages with their author's summary; nine in ten are made worse: another
document's summary, a body cut short, or both texts of different rows shuffled. The score is fitted to rows
apart from these, rated by a rater that is played: it knows which rows were made worse. Measured are the
bits per byte of authors' summaries in packages never trained on. The negative control is N rows by chance.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from escultor.config import Sft
from escultor.config.curation import Curation
from escultor.cycle.api import read_corpus
from escultor.data.curate.labels import labelled
from escultor.data.curate.pipeline import curate
from escultor.data.curate.quality import fit
from escultor.data.curate.rows import Row, read
from escultor.data.importers import write_jsonl
from escultor.data.rows import example_rows
from escultor.data.signals import nll_by_row
from escultor.data.sources.documentation import Gold, balanced
from escultor.model.load import load
from escultor.rng import derive_seed
from escultor.train.runs import run
from escultor.types import Example, Message, Origin, Role

ASK = "Write one line that says what this document is about.\n\n"
RATED = 300
HELD_OUT = 300
NOISE = ("wrong summary", "body cut short", "shuffled")


def example(document: str, summary: str, id: str) -> Example:
    return Example(id, (Message(Role.USER, ASK + document),), summary, Origin((id,), "experiment/1"))


def noised(golds: Sequence[Gold], share: float, seed: int) -> tuple[list[Example], list[bool]]:
    """Rows of which a share is made worse, and which of them are sound."""
    draw = random.Random(seed)
    made, sound = [], []
    for at, gold in enumerate(golds):
        document, summary, other = gold.document, gold.trinity.summary, draw.choice(golds)
        good = at % 10 >= round(10 * share)
        if not good:
            kind = NOISE[at % 3]
            if kind == "wrong summary":
                summary = other.trinity.summary
            elif kind == "shuffled":
                document = other.document
            else:
                document = document[: len(document) // 4]
                summary = summary[: max(10, len(summary) // 2)]
        made.append(example(document, summary, f"{at}:{gold.id}"))
        sound.append(good)
    return made, sound


def chosen(
    items: Sequence[Example], rated: Sequence[Example], verdicts: Sequence[bool], count: int
) -> list[Example]:
    """The best rows by the pipeline with a score fitted to ratings."""
    model = fit([labelled(Row(item, "rated")) for item in rated], verdicts, 1.0)
    settings = Curation.model_validate({"workers": 1, "quality": {"min_score": 0}})
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "in.jsonl"
        write_jsonl(source, items)
        made = curate([source], Path(name) / "out", settings, {"quality": model}, top=count)
        with made.rows.open("rb") as file:
            return [read("example", line).item for line in file]  # type: ignore[misc]


def bits(loaded: object, golds: Sequence[Gold]) -> float:
    """Mean bits per byte of the authors' summaries."""
    items = [example(g.document, g.trinity.summary, g.id) for g in golds]
    rows = example_rows(items, loaded.chat, 1024, Counter())  # type: ignore[attr-defined]
    nats = nll_by_row(loaded.model, rows, "auto")  # type: ignore[attr-defined]
    sizes = [len(g.trinity.summary.encode()) for g in golds]
    return float(np.mean([n / math.log(2) / size for n, size in zip(nats, sizes, strict=True)]))


def trained(items: Sequence[Example], steps: int, seed: int, golds: Sequence[Gold]) -> tuple[float, int]:
    """Bits per byte after SFT from escultor-base, and the tokens it took."""
    settings = Sft(
        learning_rate=1e-3, epochs=1000, max_steps=steps, batch_size=32, warmup_steps=10, seed=seed
    )
    with tempfile.TemporaryDirectory() as name:
        record = run("sft", load("escultor-base"), items, settings, Path(name) / "run")
        return bits(load(str(Path(name) / "run" / "model")), golds), record.tokens


def interval(differences: Sequence[float]) -> dict[str, float]:
    """Mean with its 95 % interval by Student's t."""
    n, mean = len(differences), statistics.fmean(differences)
    half = (
        float(student.ppf(0.975, n - 1)) * statistics.stdev(differences) / math.sqrt(n) if n > 1 else math.inf
    )
    return {"mean": mean, "low": mean - half, "high": mean + half, "seeds": n}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=400, help="N; ten times as many are made")
    parser.add_argument("--steps", type=int, default=120, help="optimizer steps on all rows")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    corpus = read_corpus()
    held_out = balanced(corpus.held_out, HELD_OUT)
    every = balanced(corpus.train, 10 * given.rows + RATED)
    figures: dict[str, list[float]] = {"best": [], "all": [], "random": []}
    tokens: dict[str, list[int]] = {name: [] for name in figures}
    sound_share = []
    for seed in range(given.seeds):
        drawn = random.Random(derive_seed(seed, "experiment")).sample(every, len(every))
        rated, verdicts = noised(drawn[:RATED], 0.5, seed)
        items, sound = noised(drawn[RATED:], 0.9, seed)
        good = {item.id for item, is_sound in zip(items, sound, strict=True) if is_sound}
        best = chosen(items, rated, verdicts, given.rows)
        sound_share.append(sum(item.id in good for item in best) / len(best))
        arms = {"all": items, "best": best, "random": random.Random(seed).sample(items, given.rows)}
        budget = None
        for name, rows in arms.items():
            mean = statistics.fmean(len(r.response) + sum(len(m.content) for m in r.prompt) for r in rows)
            budget = budget or mean * given.steps
            figure, used = trained(rows, max(1, round(budget / mean)), seed, held_out)
            figures[name].append(figure)
            tokens[name].append(used)
            print(
                f"seed {seed} {name:6} {len(rows):5} rows  {figure:.4f} bits per byte  {used:,} tokens",
                flush=True,
            )
    gained = {
        f"{other} - best": interval([a - b for a, b in zip(figures[other], figures["best"], strict=True)])
        for other in ("all", "random")
    }
    base = bits(load("escultor-base"), held_out)
    print(
        json.dumps(
            {
                "experiment": "curation",
                "rows": given.rows,
                "steps": given.steps,
                "bits_per_byte": figures,
                "base": base,
                "tokens": tokens,
                "sound_share_of_best": sound_share,
                "gained": gained,
            }
        )
    )


if __name__ == "__main__":
    main()

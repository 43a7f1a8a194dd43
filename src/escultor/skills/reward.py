"""A reward model: how well people are expected to like an answer, fitted to what they preferred.

It is a ridge-penalised logistic regression on the form of an answer (length, lists, code, digits, words of
the question) and on its words and pairs of words, hashed. Pairs of answers to one prompt are fitted as
Bradley and Terry (1952) do, by the difference of their features; where there are too few of them, thumbs on
single answers are. How far it is right is measured on prompts that the fit has not seen, five times over.

A model that is trained on the same feedback learns to please it: it is never a promotion's only ground.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from escultor import stats
from escultor.errors import DataError
from escultor.ids import hash_value
from escultor.rng import unit
from escultor.skills.metrics import refused
from escultor.skills.table import PEOPLE
from escultor.skills.text_forms import folded
from escultor.text.near_duplicates import shared_clusters
from escultor.types import Messages, Pair, UnpairedExample

FORMAT = "reward/1"
MIN_PAIRS, MIN_SIDE = 30, 30  # pairs; thumbs up, and thumbs down
MOST_ROWS = 20_000  # fitted; of more a part is drawn by their ids
FOLDS, RIDGE, BUCKETS, MOST_WORDS = 5, 1.0, 256, 2000
LENGTHS = tuple(2**k for k in range(12))  # words: one step of the reward at each
ALPHA = 0.025
_WORD = re.compile(r"\w+|[^\w\s]")
_LIST, _DIGITS = re.compile(r"^[ \t]*(?:[-*•]|\d+[.)])\s", re.MULTILINE), re.compile(r"\d")


class Auroc(NamedTuple):
    """How often the liked of two answers is ranked above the other, on unseen prompts; 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, slots=True)
class RewardModel:
    """Weights of the features and a bias; what they were fitted to; the hashes of the prompts among it."""

    kind: str  # of its rows: pairs, or thumbs
    rows: int
    clusters: int
    auroc: Auroc
    bias: float
    weights: tuple[float, ...]
    prompts: tuple[str, ...]

    def score(self, prompt: Messages, answer: str) -> float:
        """The expected preference, from 0 to 1; 0.5 is the answer that is usual in the feedback."""
        logit = float(features(prompt, answer) @ np.asarray(self.weights)) + self.bias
        return float(stats.sigmoid(np.array(logit)))

    @property
    def is_better_than_chance(self) -> bool:
        return self.auroc.low > 0.5

    @property
    def about(self) -> str:
        """What it is, in words, with its measured accuracy."""
        return (
            f"fitted to {self.rows:,} {self.kind} of {self.clusters:,} different prompts, AUROC {self.auroc}"
        )


def fit_reward(pairs: Sequence[Pair], thumbs: Sequence[UnpairedExample]) -> RewardModel | None:
    """The reward model of people's preferences; None where there are fewer than 30 pairs, and fewer than 30
    thumbs up or down."""
    pairs, thumbs = _at_most(pairs), _at_most(thumbs)
    liked = sum(t.desirable for t in thumbs)
    if len(pairs) >= MIN_PAIRS:
        chosen = np.stack([features(p.prompt, p.chosen) for p in pairs])
        rejected = np.stack([features(p.prompt, p.rejected) for p in pairs])
        design, outcomes, usual = chosen - rejected, np.ones(len(pairs)), (chosen + rejected).mean(0) / 2
        rows: Sequence[Pair | UnpairedExample] = pairs
    elif min(liked, len(thumbs) - liked) >= MIN_SIDE:
        raw = np.stack([features(t.prompt, t.response) for t in thumbs])
        outcomes, usual = np.array([float(t.desirable) for t in thumbs]), raw.mean(0)
        design, rows = np.column_stack([raw - usual, np.ones(len(thumbs))]), thumbs
    else:
        return None
    clusters = _clusters([row.prompt for row in rows])
    weights = _fit(design, outcomes)
    auroc = _held_out_auroc(design, outcomes, clusters)
    if rows is thumbs:
        weights = weights[:-1]
    return RewardModel(
        kind="pairs" if rows is pairs else "thumbs",
        rows=len(rows),
        clusters=len(set(clusters)),
        auroc=auroc,
        bias=-float(usual @ weights),
        weights=tuple(float(f"{w:.6g}") for w in weights),
        prompts=tuple(sorted({prompt_key(row.prompt) for row in rows})),
    )


def features(prompt: Messages, answer: str) -> np.ndarray:
    """What the reward reads of an answer: (D,)."""
    words = _WORD.findall(folded(answer))[:MOST_WORDS]
    asked = set(_WORD.findall(folded(prompt[-1].content))) if prompt else set()
    text = answer.strip()
    form = [float(len(words) >= n) for n in LENGTHS]
    form += [
        float(bool(_LIST.search(text))),
        float("```" in text),
        float("\n" in text),
        float(text.endswith("?")),
        float(text.endswith((".", "!"))),
        min(1.0, 10 * len(_DIGITS.findall(text)) / (len(text) + 1)),
        float(refused(answer)),
        sum(word in asked for word in words) / max(1, len(words)),
    ]
    hashed = np.zeros(BUCKETS)
    for gram in (*words, *map(" ".join, pairwise(words))):
        code = zlib.crc32(gram.encode("utf-8", "replace"))
        hashed[code % BUCKETS] += 1.0 if code & 0x80000000 else -1.0
    return np.concatenate([form, hashed / max(1.0, float(np.linalg.norm(hashed)))])


def prompt_key(prompt: Messages) -> str:
    """A prompt as a reward model's file names it: a hash of its last message."""
    return hash_value(folded(prompt[-1].content))[:16] if prompt else ""


def _at_most(rows: Sequence[Any]) -> list[Any]:
    return sorted(rows, key=lambda row: (unit(0, "reward", row.id), row.id))[:MOST_ROWS]


def _clusters(prompts: Sequence[Messages]) -> list[str]:
    """The cluster of each prompt: prompts that ask nearly the same are one."""
    texts = [[("prompt", prompt[-1].content if prompt else "")] for prompt in prompts]
    return list(shared_clusters(texts, [()] * len(texts), [prompt_key(prompt) for prompt in prompts]))


def _fit(design: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    return stats.fit_logistic(design, outcomes, np.full(design.shape[1], RIDGE)).weights


def _held_out_auroc(design: np.ndarray, outcomes: np.ndarray, clusters: Sequence[str]) -> Auroc:
    """The AUROC of rows whose cluster the fit did not see. Of pairs it is the share that is ranked right."""
    folds = np.array([int(FOLDS * unit(0, "fold", cluster)) for cluster in clusters])
    scores = np.zeros(len(design))
    for fold in range(FOLDS):
        is_out = folds == fold
        if is_out.any() and not is_out.all():
            scores[is_out] = design[is_out] @ _fit(design[~is_out], outcomes[~is_out])
    if outcomes.all():
        won = stats.win_rate(np.sign(scores), clusters, ALPHA)
        return Auroc(won.value, won.low, won.high)
    found = stats.auc_interval(scores, outcomes, clusters, ALPHA)
    return Auroc(found.value, found.low, found.high)


def primary_problem(primary: Collection[str], definitions: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Why a policy must not rest on the reward models among its primaries; None where it may. `definitions`
    are those of the skill's own metrics."""
    aurocs = {name: definitions[name]["auroc"] for name in primary if "auroc" in definitions.get(name, ())}
    if aurocs and len(aurocs) == len(primary):
        return (
            f"{', '.join(aurocs)}: a reward model is never the only primary, since a model trained on "
            f"the same feedback learns to please it; name {PEOPLE} or another beside it, or make it a guard"
        )
    unsure = [f"{name}: AUROC {Auroc(*each)}" for name, each in aurocs.items() if each[1] <= 0.5]
    if unsure:
        return f"{', '.join(unsure)}: a reward model not shown to be better than chance is no primary"
    return None


# --- its file ---------------------------------------------------------------------------------


def reward_text(model: RewardModel) -> str:
    """A reward model as its file holds it. No text of anybody's is in it."""
    return json.dumps({"format": FORMAT, **asdict(model), "auroc": list(model.auroc)}) + "\n"


def read_reward(file: Path) -> RewardModel:
    """The reward model in a file. Raises DataError for a file that is none."""
    remedy = "`escultor skills reward NAME` fits one to the store's feedback"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise ValueError("another format")
        lists = {key: tuple(data[key]) for key in ("weights", "prompts")}
        model = RewardModel(**data | lists | {"auroc": Auroc(*map(float, data["auroc"]))})
        size = len(features((), ""))
        if len(model.weights) != size or not np.isfinite([*model.weights, model.bias, *model.auroc]).all():
            raise ValueError(f"{len(model.weights)} weights, of {size}, all finite")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        got = " ".join(str(error).split())[:200]
        raise DataError(
            f"{file} holds no reward model", got, f"a file of the format {FORMAT}", remedy
        ) from error
    return model

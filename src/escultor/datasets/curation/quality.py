"""The quality score: a logistic model of named features, fitted to ratings where there are some."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from escultor import stats
from escultor.config.curation import Curation
from escultor.datasets.curation.features import PERPLEXITY, features_of
from escultor.datasets.rows import CurationRow, Dropped
from escultor.errors import DataError
from escultor.rng import unit
from escultor.stats.agreement import bin_of

SCORE = "quality"
MIN_RATINGS = 20  # of each verdict, before a model is fitted
FOLDS = 5
BINS = 10


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Of the rows whose score lies in one tenth: mean score and share rated good."""

    low: float
    rows: int
    score: float
    good: float


@dataclass(frozen=True, slots=True)
class QualityCalibration:
    """How far scores may be believed, on ratings the model had not seen (five folds)."""

    rows: int
    brier: float  # mean squared error of the score
    ece: float  # expected calibration error: mean |score - share good| over tenths, by rows
    auc: float  # probability that a good row scores above a bad one
    bins: tuple[CalibrationBin, ...]


@dataclass(frozen=True, slots=True)
class QualityModel:
    """score = sigmoid(bias + Σ weight (feature − mean) / scale). No `calibration`: weights by hand."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    ratings: int = 0
    calibration: QualityCalibration | None = None

    def score(self, found: dict[str, float]) -> float:
        """The score of a row's features, 0 to 1. A feature the row lacks counts as the mean."""
        total = self.bias
        for name, mean, scale, weight in zip(self.names, self.mean, self.scale, self.weights, strict=True):
            total += weight * (found.get(name, mean) - mean) / scale
        return 1 / (1 + math.exp(-max(-40.0, min(40.0, total))))


# Weights by hand, where nobody has rated: (feature, mean, scale, weight). Their order is an opinion, their
# scores are no probabilities, and the card says so.
_BY_HAND = (
    ("ends as a sentence", 0.5, 0.5, 0.6),
    ("asked ends as a sentence", 0.5, 0.5, 0.3),
    ("begins with a capital, digit or bracket", 0.5, 0.5, 0.3),
    ("stop words", 0.25, 0.15, 0.2),
    ("different words", 0.6, 0.2, 0.2),
    ("letters", 0.65, 0.15, 0.4),
    ("repeated runs", 0.05, 0.1, -0.5),
    ("answer's words asked about", 0.5, 0.25, 0.6),
    ("answer repeats what is asked", 0.1, 0.5, -0.4),
    (PERPLEXITY, 2.0, 0.7, -0.6),
)


def by_hand() -> QualityModel:
    """The model that serves until there are ratings."""
    names, mean, scale, weights = zip(*_BY_HAND, strict=True)
    return QualityModel(names, mean, scale, weights, 0.4)


def quality(row: CurationRow, settings: Curation, context: QualityModel | None) -> CurationRow | Dropped:
    """Scores a row and leaves out what scores too low."""
    score = (context or by_hand()).score(features_of(row))
    if score < settings.quality.min_score:
        return Dropped("low score")
    return row.with_figure(SCORE, round(score, 6))


# --- fitting ------------------------------------------------------------------------------------


def fit(rows: Sequence[CurationRow], good: Sequence[bool], ridge: float, seed: int = 0) -> QualityModel:
    """The logistic model of ratings, with its calibration on ratings held out from it.

    Raises DataError for fewer than 20 ratings of either verdict.
    """
    y = np.asarray(good, dtype=np.float64)  # (n,)
    if min(y.sum(), len(y) - y.sum()) < MIN_RATINGS:
        got = f"{int(y.sum())} good, {int(len(y) - y.sum())} bad"
        raise DataError(
            "there are too few ratings to fit a score", got, f"{MIN_RATINGS} of each", "rate more rows"
        )
    found = [features_of(row) for row in rows]
    names = tuple(found[0])
    x = np.asarray([[each[name] for name in names] for each in found])  # (n, d)
    fold = np.asarray([int(unit(seed, "fold", row.item.id) * FOLDS) for row in rows])
    held = np.empty(len(y))
    for k in range(FOLDS):
        own = fold == k
        if own.any():
            weights, bias, mean, scale = _fitted(x[~own], y[~own], ridge)
            held[own] = stats.sigmoid((x[own] - mean) / scale @ weights + bias)
    weights, bias, mean, scale = _fitted(x, y, ridge)
    return QualityModel(
        names,
        tuple(mean.tolist()),
        tuple(scale.tolist()),
        tuple(weights.tolist()),
        float(bias),
        len(y),
        calibration(held, y),
    )


def _fitted(x: np.ndarray, y: np.ndarray, ridge: float) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    mean, scale = x.mean(0), np.maximum(x.std(0), 1e-6)
    weights, bias = fit_weights((x - mean) / scale, y, ridge)
    return weights, bias, mean, scale


def fit_weights(x: np.ndarray, y: np.ndarray, ridge: float) -> tuple[np.ndarray, float]:
    """Weights (d,) and bias of a logistic regression with a ridge penalty on the weights alone."""
    penalty = np.full(x.shape[1] + 1, ridge)
    penalty[-1] = 1e-9  # keeps the bias finite where all ratings agree
    weights = stats.fit_logistic(np.column_stack([x, np.ones(len(x))]), y, penalty).weights
    return weights[:-1], float(weights[-1])


def calibration(scores: np.ndarray, good: np.ndarray) -> QualityCalibration:
    """Reliability of scores (n,) against verdicts (n,) of 0 and 1."""
    at = bin_of(scores, BINS)
    bins = tuple(
        CalibrationBin(
            k / BINS, int((at == k).sum()), float(scores[at == k].mean()), float(good[at == k].mean())
        )
        for k in range(BINS)
        if (at == k).any()
    )
    return QualityCalibration(
        len(scores),
        float(((scores - good) ** 2).mean()),
        stats.calibration_error(scores, good, BINS),
        stats.auc(scores, good),
        bins,
    )


def as_table(model: QualityModel) -> list[tuple[str, float, float, float]]:
    """Name, mean, scale and weight of each feature, the weightiest first."""
    rows = zip(model.names, model.mean, model.scale, model.weights, strict=True)
    return sorted(rows, key=lambda row: (-abs(row[3]), row[0]))

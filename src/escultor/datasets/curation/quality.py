"""The quality score: a logistic model of named features, fitted to ratings if there are enough."""

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
    """The rows whose score lies in one tenth: their mean score and the share rated good."""

    low: float
    rows: int
    score: float
    good: float


@dataclass(frozen=True, slots=True)
class QualityCalibration:
    """The calibration of scores, measured on ratings the model had not seen (five folds)."""

    rows: int
    brier: float  # mean squared error of the score
    ece: float  # expected calibration error: mean |score - share good| over tenths, by rows
    auc: float  # probability that a good row scores above a bad one
    bins: tuple[CalibrationBin, ...]


@dataclass(frozen=True, slots=True)
class QualityModel:
    """score = sigmoid(bias + Σ weight (feature − mean) / scale). No `calibration`: weights set by hand."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    ratings: int = 0
    calibration: QualityCalibration | None = None

    def score(self, features: dict[str, float]) -> float:
        """The score of a row's features, 0 to 1. A missing feature counts as its mean."""
        total = self.bias
        for name, mean, scale, weight in zip(self.names, self.mean, self.scale, self.weights, strict=True):
            total += weight * (features.get(name, mean) - mean) / scale
        return 1 / (1 + math.exp(-max(-40.0, min(40.0, total))))


# Weights for use without ratings: (feature, mean, scale, weight). They are an opinion and their scores are
# not probabilities; the card says so.
_DEFAULT_WEIGHTS = (
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


def default_model() -> QualityModel:
    """The model for use until there are ratings."""
    names, mean, scale, weights = zip(*_DEFAULT_WEIGHTS, strict=True)
    return QualityModel(names, mean, scale, weights, bias=0.4)


def quality(row: CurationRow, settings: Curation, context: QualityModel | None) -> CurationRow | Dropped:
    """Score a row, and drop it if the score is too low."""
    score = (context or default_model()).score(features_of(row))
    if score < settings.quality.min_score:
        return Dropped("low score")
    return row.with_figure(SCORE, round(score, 6))


# --- fitting ------------------------------------------------------------------------------------


def fit(rows: Sequence[CurationRow], good: Sequence[bool], ridge: float, seed: int = 0) -> QualityModel:
    """The logistic model fitted to ratings, with its calibration by cross-validation.

    Raises DataError for fewer than 20 ratings of either verdict.
    """
    y = np.asarray(good, dtype=np.float64)  # (n,)
    if min(y.sum(), len(y) - y.sum()) < MIN_RATINGS:
        got = f"{int(y.sum())} good, {int(len(y) - y.sum())} bad"
        what, allowed = "there are too few ratings to fit a score", f"{MIN_RATINGS} of each"
        raise DataError(what, got, allowed, "rate more rows")
    features = [features_of(row) for row in rows]
    names = tuple(features[0])
    x = np.asarray([[each[name] for name in names] for each in features])  # (n, d)
    fold = np.asarray([int(unit(seed, "fold", row.item.id) * FOLDS) for row in rows])
    unseen_scores = np.empty(len(y))
    for k in range(FOLDS):
        is_held = fold == k
        if is_held.any():
            weights, bias, mean, scale = _fit_scaled(x[~is_held], y[~is_held], ridge)
            unseen_scores[is_held] = stats.sigmoid((x[is_held] - mean) / scale @ weights + bias)
    weights, bias, mean, scale = _fit_scaled(x, y, ridge)
    return QualityModel(
        names,
        mean=tuple(mean.tolist()),
        scale=tuple(scale.tolist()),
        weights=tuple(weights.tolist()),
        bias=float(bias),
        ratings=len(y),
        calibration=calibration(unseen_scores, y),
    )


def _fit_scaled(
    x: np.ndarray, y: np.ndarray, ridge: float
) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    mean, scale = x.mean(0), np.maximum(x.std(0), 1e-6)
    weights, bias = fit_weights((x - mean) / scale, y, ridge)
    return weights, bias, mean, scale


def fit_weights(x: np.ndarray, y: np.ndarray, ridge: float) -> tuple[np.ndarray, float]:
    """Weights (d,) and bias of a logistic regression with a ridge penalty on the weights alone."""
    penalty = np.full(x.shape[1] + 1, ridge)
    penalty[-1] = 1e-9  # keeps the bias finite if all ratings agree
    weights = stats.fit_logistic(np.column_stack([x, np.ones(len(x))]), y, penalty).weights
    return weights[:-1], float(weights[-1])


def calibration(scores: np.ndarray, good: np.ndarray) -> QualityCalibration:
    """The calibration of scores (n,) against verdicts (n,) of 0 and 1."""
    tenth = bin_of(scores, BINS)
    bins = tuple(
        CalibrationBin(k / BINS, int(own.sum()), float(scores[own].mean()), float(good[own].mean()))
        for k in range(BINS)
        if (own := tenth == k).any()
    )
    return QualityCalibration(
        rows=len(scores),
        brier=float(((scores - good) ** 2).mean()),
        ece=stats.calibration_error(scores, good, BINS),
        auc=stats.auc(scores, good),
        bins=bins,
    )

"""What the harness logs for each document as one number with a stated direction.

The harness states which way is better of a task's aggregate. What it logs for a document may run the other
way: `perplexity` is aggregated from log-likelihoods, of which the greater is the better. So the direction of
the numbers is stated here for each metric, and checked on the data against that of the aggregate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, Literal, NamedTuple

from escultor.errors import DataError
from escultor.types import Scale

_NATS = Scale("lower", "continuous", 0.0, None)
# Metrics that are logged as a pair of log-likelihood and size. A document's number is its nats for each word
# or byte, times a factor: of a perplexity the logarithm, since few documents would outweigh all others in it.
_PAIRS = {"word_perplexity": 1.0, "byte_perplexity": 1.0, "bits_per_byte": 1 / math.log(2)}
_SHARES = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "acc_all", "exact_match")
# The scales that are known by the metric's name. All others are without bounds: bounds that are read off one
# model's numbers would make another suite of the same task for the next model.
_SCALES = {
    "perplexity": Scale("higher", "continuous", None, 0.0),  # the log-likelihood of a document
    **dict.fromkeys(_PAIRS, _NATS),
    **dict.fromkeys(_SHARES, Scale()),
}
_STEP = 0.01  # by which all documents are made better to see where the aggregate goes

Aggregate = Callable[[list[Any]], float]


class ItemMetric(NamedTuple):
    """One number for each document, in their order, and what it means."""

    values: tuple[float, ...]
    scale: Scale


def item_metrics(
    samples: Sequence[Mapping[str, Any]],
    aggregations: Mapping[str, Aggregate],
    higher_is_better: Mapping[str, bool | None],
) -> dict[str, ItemMetric]:
    """The metrics of a task's logged samples by name; where the task filters its answers in several ways,
    each metric under `NAME,FILTER`, as in the harness's own results.

    Raises DataError for a metric that is no finite number for every document, whose task states no direction,
    or whose aggregate gets worse when its documents get better.
    """
    filters = list(dict.fromkeys(str(s.get("filter", "none")) for s in samples))
    metrics: dict[str, ItemMetric] = {}
    for each in filters:
        chosen = sorted((s for s in samples if s.get("filter", "none") == each), key=lambda s: s["doc_id"])
        for metric in sorted({name for s in chosen for name in s["metrics"]}):
            logged = [s.get(metric) for s in chosen]
            scale = _scale(metric, higher_is_better.get(metric))
            made = ItemMetric(tuple(_number(metric, value) for value in logged), scale)
            _check_direction(metric, logged, scale, aggregations.get(metric), higher_is_better.get(metric))
            metrics[metric if len(filters) == 1 else f"{metric},{each}"] = made
    return metrics


def _scale(metric: str, higher: bool | None) -> Scale:
    if higher is None:
        allowed = "higher_is_better: true or false, in its metric_list"
        raise DataError(f"the task does not state which way its metric {metric} is better", None, allowed)
    better: Literal["higher", "lower"] = "higher" if higher else "lower"
    return _SCALES.get(metric, Scale(better, "continuous", None, None))


def _number(metric: str, value: Any) -> float:
    if metric in _PAIRS and isinstance(value, tuple | list) and len(value) == 2 and value[1]:
        value = -value[0] / value[1] * _PAIRS[metric]
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    raise DataError(
        f"the task's metric {metric} is no number per document",
        f"{type(value).__name__} such as {value!r}"[:200],
        "metrics that are a finite number for every document",
        "remove it from the task's metric_list",
    )


def _check_direction(
    metric: str, logged: Sequence[Any], scale: Scale, aggregate: Aggregate | None, higher: bool | None
) -> None:
    """Raise DataError unless the aggregate gets better when every document does."""
    size = max([1.0, *(float(abs(v) if isinstance(v, Real) else abs(v[0] / v[1])) for v in logged)])
    up = _STEP if scale.better == "higher" or metric in _PAIRS else -_STEP

    def moved(step: float) -> list[Any]:
        # Numbers as small as 1, so that no exponential of them overflows.
        return [
            float(v) / size + step if isinstance(v, Real) else ((v[0] / v[1] / size + step) * v[1], v[1])
            for v in logged
        ]

    if aggregate is None:  # the harness then takes the mean
        aggregate = lambda values: math.fsum(values) / len(values)  # noqa: E731
    try:
        gain = float(aggregate(moved(up))) - float(aggregate(moved(0.0)))
    except (ArithmeticError, ValueError, TypeError, IndexError) as error:
        raise DataError(f"the task's metric {metric} cannot be aggregated", str(error)) from error
    if not (gain > 0 if higher else gain < 0):
        raise DataError(
            f"the task's metric {metric} is better {scale.better} for a document, and its aggregate is not",
            f"higher_is_better: {higher}; the aggregate moves by {gain:+.3g} where every document is better",
            "an aggregate that is better where each document is",
            "correct higher_is_better or the aggregation in the task's metric_list, or remove the metric",
        )

"""What the harness logs for a document, as a number whose direction is stated and checked on the data."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escultor.errors import DataError
from escultor.evaluate.lm_eval.item_metrics import item_metrics
from escultor.types import Scale


def mean(values):
    return sum(values) / len(values)


def perplexity(values):
    return math.exp(-mean(values))


def weighted(values):
    return sum(a for a, _ in values) / sum(b for _, b in values)


AGGREGATES = {
    "mean": mean,
    "perplexity": perplexity,
    "weighted": lambda v: math.exp(-weighted(v)),
    "bits": lambda v: -weighted(v) / math.log(2),
    "median": lambda v: sorted(v)[len(v) // 2],
}


def found(metric, values, aggregate="mean", higher=True, filters=("none",)):
    samples = [
        {"doc_id": n, "filter": name, "metrics": [metric], metric: value}
        for name in filters
        for n, value in enumerate(values)
    ]
    return item_metrics(samples, {metric: AGGREGATES[aggregate]}, {metric: higher})


def test_a_documents_log_likelihood_is_better_higher_although_its_perplexity_is_better_lower():
    made = found("perplexity", [-115.0, -33.0, -800.0], "perplexity", False)["perplexity"]
    assert (made.values, made.scale.better) == ((-115.0, -33.0, -800.0), "higher")


@pytest.mark.parametrize(
    ("metric", "aggregate", "number"),
    [("bits_per_byte", "bits", 2 / math.log(2)), ("byte_perplexity", "weighted", 2.0),
     ("word_perplexity", "weighted", 2.0)],
)  # fmt: skip
def test_pairs_of_likelihood_and_size_are_nats_or_bits_for_each_unit(metric, aggregate, number):
    made = found(metric, [(-20.0, 10), (-8.0, 4)], aggregate, False)[metric]
    assert made.values == (pytest.approx(number), pytest.approx(number))
    assert (made.scale.better, made.scale.least) == ("lower", 0.0)


@pytest.mark.parametrize(
    ("metric", "values", "aggregate", "higher"),
    [
        ("surprise", [-115.0, -33.0], "perplexity", False),  # numbers of which the greater is the better
        ("perplexity", [-115.0, -33.0], "perplexity", True),
        ("acc", [1.0, 0.0], "mean", False),
        ("bits_per_byte", [(-20.0, 10)], "bits", True),
        ("length", [3.0, 4.0], "mean", None),
        ("f1", [(1, 0), (0, 0)], "mean", True),
        ("score", [math.nan, 1.0], "mean", True),
        ("score", ["1.0", "2.0"], "mean", True),
        ("bits_per_byte", [(-20.0, 0)], "bits", False),
    ],
)
def test_a_direction_that_the_data_denies_and_what_is_no_number_is_refused(metric, values, aggregate, higher):
    with pytest.raises(DataError, match=metric):
        found(metric, values, aggregate, higher)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.sampled_from(["mean", "median"]))
def test_a_scale_does_not_depend_on_the_numbers(values, aggregate):
    for higher in (True, False):
        (made,) = found("length", values, aggregate, higher).values()
        assert made.scale == Scale("higher" if higher else "lower", "continuous", None, None)
    assert found("acc", values, aggregate)["acc"].scale == Scale()


def test_every_filter_of_a_task_is_a_metric_of_its_own():
    made = found("exact_match", [1.0, 0.0], filters=("strict", "flexible"))
    assert {name: m.values for name, m in made.items()} == {
        "exact_match,strict": (1.0, 0.0),
        "exact_match,flexible": (1.0, 0.0),
    }

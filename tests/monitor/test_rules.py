"""Rules: how often they fire is known exactly."""

import pytest
from scipy.stats import binom

from escultor import stats
from escultor.config import Monitor
from escultor.monitor.rules import alerts, is_share_above
from escultor.types import Estimate, Health

CONFIG = Monitor()
DAY = 86_400.0


def health(*estimates, seconds=DAY):
    return Health("v1", 0.0, seconds, estimates)


def thumbs(down, n):
    return Estimate("thumbs_down_share", down / n if n else 0.0, *stats.wilson(down, n), n)


def only(estimate, config=CONFIG, **options):
    (alert,) = alerts(health(estimate, **options), config, 5.0)
    return alert


# n, then the published chance in percent of: raw at 8 %, raw at 15 %, Wilson at 8 %, Wilson at 15 %
TABLE = [
    (20, 21, 60, 2, 17),
    (50, 21, 78, 2, 33),
    (100, 18, 90, 1, 54),
    (200, 12, 97, 0.5, 75),  # the source has 98 for 97.45
    (500, 5, 100, 0, 96),
]


@pytest.mark.parametrize(("n", "raw8", "raw15", "wilson8", "wilson15"), TABLE)
def test_firing_probabilities_are_the_published_ones(n, raw8, raw15, wilson8, wilson15):
    looks = [k for k in range(n + 1) if k / n > 0.10]
    shown = [k for k in range(n + 1) if is_share_above(k / n, n, 0.10)]
    for ks, truth, percent in (
        (looks, 0.08, raw8),
        (looks, 0.15, raw15),
        (shown, 0.08, wilson8),
        (shown, 0.15, wilson15),
    ):
        assert 100 * binom.pmf(ks, n, truth).sum() == pytest.approx(percent, abs=0.51)


@pytest.mark.parametrize("n", [50, 100, 200])
def test_alerts_page_on_the_bound_and_warn_on_the_raw_share(n):
    states = [only(thumbs(k, n)).state for k in range(n + 1)]
    for k, state in enumerate(states):
        shown, looks = is_share_above(k / n, n, 0.10), k / n > 0.10
        assert state == ("firing" if shown else "warn" if looks else "ok")
    assert set(states) == {"ok", "warn", "firing"}


@pytest.mark.parametrize(
    ("down", "n", "state"), [(20, 29, "ok"), (20, 30, "firing"), (5, 49, "ok"), (8, 50, "warn")]
)
def test_few_ratings_do_not_speak(down, n, state):
    assert only(thumbs(down, n)).state == state


def test_messages_are_plain_words_with_figures():
    alert = only(thumbs(30, 120))
    assert alert.state == "firing"
    assert "version v1: thumbs down 25.0% of 120 ratings [" in alert.message
    assert "limit 10.0%; shown to be above the limit" in alert.message
    assert (alert.rule, alert.limit, alert.time) == ("thumbs_down", 0.10, 5.0)
    assert "no ratings" in only(thumbs(0, 0)).message


def test_latency_fires_when_its_lower_bound_is_above_the_limit():
    def state(low, value, n=100):
        return only(Estimate("latency_p99_ms", value, low, float("inf"), n)).state

    assert state(5100.0, 6000.0) == "firing"
    assert state(4000.0, 6000.0) == "warn"
    assert state(4000.0, 6000.0, n=40) == "ok"
    assert state(5100.0, 6000.0, n=20) == "ok"
    assert state(100.0, 200.0) == "ok"
    assert "unknown" in only(Estimate("latency_p99_ms", 6000.0, 5100.0, float("inf"), 100)).message


def test_daily_cost_fires_on_the_pace_shown_and_on_money_already_spent():
    pace = Estimate("cost_usd_per_day", 20.0, 15.0, 25.0, 100)
    assert only(pace).state == "firing"
    assert only(Estimate("cost_usd_per_day", 11.0, 9.0, 13.0, 100)).state == "warn"
    dear = Estimate("cost_usd_per_day", 12.0, 12.0, 36.0, 1)
    spent = Estimate("cost_usd", 12.0, 12.0, 12.0, 1)
    assert only(dear).state == "ok"
    assert alerts(health(dear, spent), CONFIG, 0.0)[0].state == "firing"
    assert alerts(health(dear, spent, seconds=2 * DAY), CONFIG, 0.0)[0].state == "ok"
    assert "20.00 USD a day over 100 calls" in only(pace).message


def test_limits_come_from_the_configuration():
    relaxed = Monitor.model_validate({"thumbs_down_limit": 0.5, "min_rated": 10})
    assert only(thumbs(30, 120), relaxed).state == "ok"
    assert only(thumbs(12, 12), relaxed).state == "firing"


def test_the_same_alert_has_the_same_id():
    assert only(thumbs(30, 120)) == only(thumbs(30, 120))
    assert only(thumbs(30, 120)).id != only(thumbs(31, 120)).id


def test_figures_that_the_health_lacks_make_no_alert():
    assert alerts(health(), CONFIG, 0.0) == []

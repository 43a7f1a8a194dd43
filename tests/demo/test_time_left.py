"""The time left that the demonstration shows: right within a third on machines of any speed."""

import random

from hypothesis import given
from hypothesis import strategies as st

from escultor.cli.progress import LiveProgress
from escultor.demo.forecast import STEP_SECONDS, Forecast


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@given(slower=st.floats(0.3, 8), seed=st.integers(0, 99))
def test_the_time_left_is_right_within_a_third_from_the_second_step_on(slower, seed):
    """Each step takes up to a tenth longer or shorter than its share at the machine's pace."""
    draw, clock = random.Random(seed), Clock()
    takes = {name: slower * seconds * draw.uniform(0.9, 1.1) for name, seconds in STEP_SECONDS.items()}
    forecast, end = Forecast(STEP_SECONDS, clock), clock.now + sum(takes.values())
    for index, (name, seconds) in enumerate(takes.items()):
        forecast.begin(name)
        for tenth in range(10):
            clock.now += seconds / 10
            if name in ("sft", "student"):
                forecast.advance((tenth + 1) / 10)
            truth = end - clock.now
            if index and truth > 0.08 * sum(takes.values()):
                assert abs(forecast.left_s() - truth) < truth / 3
        forecast.done(name)
    assert forecast.left_s() == 0


def test_steps_that_are_done_already_take_no_time():
    clock = Clock()
    forecast = Forecast({"a": 10, "b": 20, "c": 30}, clock)
    forecast.begin("unheard of")
    clock.now += 1000
    forecast.done("a")
    forecast.done("unheard of")
    assert forecast.left_s() == 50
    forecast.begin("b")
    clock.now += 40
    forecast.done("b")
    assert forecast.left_s() == 60  # twice as slow as expected


def test_silence_is_broken_while_nothing_else_is_said(capsys, monkeypatch):
    monkeypatch.setattr("escultor.cli.progress.EVERY_S", 0.05)
    with LiveProgress(Forecast({"a": 10})) as live:
        live.phase("a")
        said = ""
        while said.count("left in all") < 3:  # of the phase, and twice of the thread
            said += capsys.readouterr().err
    assert "a, for " in said

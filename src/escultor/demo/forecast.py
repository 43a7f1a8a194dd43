"""How long the demonstration still takes: its steps' seconds on a quiet machine, scaled by the pace here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

# Measured on two quiet cores; from the second step on only their ratios matter. What takes no time, or takes
# anything (the corpus may be kept), is left out.
STEP_SECONDS: dict[str, float] = {
    "evaluate base": 24,
    "sft": 264,
    "evaluate sft": 18,
    "serve second cycle": 11,
    "second cycle": 27,
    "evaluate second cycle": 17,
    "control": 32,
    "evaluate control": 18,
    "serve third cycle": 12,
    "third cycle": 37,
    "evaluate third cycle": 19,
    "answers of the champion": 51,
    "student": 165,
    "evaluate student": 7,
}
PRETRAIN_SECONDS = 7200.0
UNSEEN = 0.02  # share of a training step from which on its own pace counts


class Forecast:
    """The time left of steps with expected seconds, by the pace of those that were taken. Steps that turn out
    to be done already take no time; those that nobody expected say nothing of the pace."""

    def __init__(self, expected: Mapping[str, float], clock: Callable[[], float] = time.monotonic):
        self._left, self._clock = dict(expected), clock
        self._spent = self._passed = 0.0  # seconds here, and those expected, of the steps taken
        self._name, self._began, self._share = "", clock(), 0.0

    def begin(self, name: str) -> None:
        """A step begins; what has passed since the last one belongs to no step."""
        self._finish()
        self._name, self._began, self._share = name, self._clock(), 0.0

    def advance(self, share: float) -> None:
        """The share of the step that is done."""
        self._share = share

    def done(self, name: str) -> None:
        """A step is done, just now or long ago."""
        if name == self._name:
            self._finish()
        self._left.pop(name, None)

    def left_s(self) -> float:
        """Seconds left."""
        expected = self._left.get(self._name, 0.0)
        taken = self._clock() - self._began if self._name else 0.0
        known = self._share * expected if self._share > UNSEEN else 0.0
        spent, passed = self._spent + (taken if known else 0.0), self._passed + known
        pace = spent / passed if passed else 1.0
        if known:
            own = taken / self._share * (1 - self._share)
        else:
            own = max(pace * expected - taken, 0.1 * pace * expected)
        return own + pace * (sum(self._left.values()) - expected)

    def _finish(self) -> None:
        if expected := self._left.pop(self._name, 0.0):
            self._spent += self._clock() - self._began
            self._passed += expected
        self._name = ""

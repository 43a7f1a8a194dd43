"""Models timed in turns: the file of such a measurement, and by how much one is faster than another."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from escultor.errors import DataError
from escultor.evaluate.speed import Speed, Timing
from escultor.ids import plain
from escultor.rng import derive_seed
from escultor.stats.means import bootstrap_ratio
from escultor.stats.sampling import cluster_sums

FORMAT = "escultor-speed/1"
ALPHA = 0.025  # one-sided: 95 % intervals


@dataclass(frozen=True, slots=True)
class LatencyBenchmark:
    """Speeds measured together on one suite's prompts, by checkpoint, at one price of an hour."""

    suite: str
    prompts: int  # asked again from the first when there are more requests
    hourly_price_usd: float
    speeds: dict[str, Speed] = field(default_factory=dict)

    def to_json(self) -> str:
        """The file of it, for `read_race`."""
        return json.dumps({"format": FORMAT, **plain(self)}, indent=1, allow_nan=False) + "\n"


class TimeRatio(NamedTuple):
    """Time of one model over that of another, for the same requests; None: no bound can be given."""

    value: float
    low: float | None
    high: float | None


def read_race(text: str) -> LatencyBenchmark:
    """The measurement that a file holds. Raises DataError for a text that is none."""
    from pydantic import TypeAdapter, ValidationError

    try:
        found = json.loads(text)
        if found.pop("format") != FORMAT:
            raise ValueError("another format")
        race = TypeAdapter(LatencyBenchmark).validate_python(found)
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
        said, remedy = str(error).splitlines()[0], "write it: escultor speed MODEL MODEL --out FILE"
        raise DataError("this is no measurement of speed", said, FORMAT, remedy) from error
    times = [t for s in race.speeds.values() for r in s.requests for t in (r.ttft_ms, r.latency_ms)]
    rates = [rate for s in race.speeds.values() for rate in (s.tokens_per_s, s.requests_per_s)]
    if not times or not all(0 < value < math.inf for value in (*times, *rates, race.hourly_price_usd)):
        raise DataError("this is no measurement of speed", "a figure that is none", "numbers above 0")
    return race


def time_ratio(one: Speed, other: Speed, prompts: int, seed: int = 0) -> TimeRatio:
    """Mean latency of `other` over that of `one`, request by request, with a 95 % interval that draws
    prompts (studentised bootstrap of a ratio): both were asked each of them in turns."""
    asked = [str(at % prompts) for at in range(len(one.requests))]
    sums, sizes = (_by_prompt(s.requests, asked) for s in (other, one))
    found = bootstrap_ratio(
        sums, sizes, ALPHA, derive_seed(seed, "race"), floor=0.0, ceiling=math.inf, n=len({*asked})
    )
    return TimeRatio(found.value, *(b if 0 < b < math.inf else None for b in (found.low, found.high)))


def _by_prompt(requests: Sequence[Timing], asked: Sequence[str]):
    return cluster_sums([r.latency_ms for r in requests], asked)[0]

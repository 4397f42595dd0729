"""What the clocks of a measurement say: round trips from echoes, a bandwidth from what had arrived when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from rivage.core.errors import DataError

__all__ = ["RAMP_SHARE", "Rate", "RoundTrips", "Samples", "hasty", "later", "rate_of", "round_trips_of"]

RAMP_SHARE = 0.5
"""Share of a transfer's time that does not count: TCP begins slowly, and doubles with every round trip."""

_ROUND_TRIPS = 10
"""That the ramp-up should last: enough for 1,000 times the first burst of ten packets."""

Samples = Sequence[tuple[float, int]]
"""Seconds, and bytes that had arrived by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrips:
    """Round trips of small messages, in ms.

    Args:
        median_ms: what half of them needed at most.
        min_ms: the fastest.
        count: how many there were.
    """

    median_ms: float
    min_ms: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What arrived in the second half of a transfer.

    Args:
        bps: bits per second.
        seconds: length of that half.
        megabytes: of the whole transfer.
    """

    bps: float
    seconds: float
    megabytes: float


def hasty(seconds: float, round_trip_ms: float) -> bool:
    """Whether a transfer was too short for TCP to get up to speed.

    Args:
        seconds: length of the half that counts.
        round_trip_ms: between the same machines.
    """
    return 1000 * seconds * RAMP_SHARE / (1 - RAMP_SHARE) < _ROUND_TRIPS * round_trip_ms


def round_trips_of(times_ms: Sequence[float]) -> RoundTrips:
    """Median and minimum, to six digits."""
    return RoundTrips(median_ms=_short(median(times_ms)), min_ms=_short(min(times_ms)), count=len(times_ms))


def rate_of(streams: Sequence[Samples]) -> Rate:
    """The rate of streams at the same time by the same clock, when they are up to speed.

    Counted is what arrived between the middle and the end of the time in which something arrived in all of them. Where
    there is no such time, as one was over before another began, each had the link for itself: the fastest counts.

    Args:
        streams: for each, times in ascending order, and the bytes that had arrived by then.

    Raises:
        DataError: when too little arrived to tell.
    """
    useful = [samples for samples in streams if len(samples) > 1]
    alone = [rate for samples in useful if (rate := _counted([samples]))]
    if not alone:
        raise DataError("too little arrived to tell a bandwidth", mend="Raise seconds or megabytes.")
    return _counted(useful) or max(alone, key=lambda rate: rate.bps)


def _counted(streams: Sequence[Samples]) -> Rate | None:
    begin = max(samples[0][0] for samples in streams)
    end = min(samples[-1][0] for samples in streams)
    middle = begin + RAMP_SHARE * (end - begin)
    arrived = sum(_between(samples, middle, end) for samples in streams)
    if end <= middle or arrived <= 0:
        return None
    total = sum(samples[-1][1] for samples in streams)
    return Rate(bps=_short(8 * arrived / (end - middle)), seconds=_short(end - middle), megabytes=_short(total / 1e6))


def later(streams: Sequence[Samples], seconds: float | None) -> list[Samples]:
    """Samples by a clock that shows so much more."""
    return [[(time + (seconds or 0.0), total) for time, total in samples] for samples in streams]


def _between(samples: Samples, start: float, end: float) -> float:
    """Bytes of a stream that arrived from one time to another, even between two samples."""
    times, totals = np.asarray(samples, np.float64).T
    return float(np.interp(end, times, totals) - np.interp(start, times, totals))


def _short(value: float) -> float:
    return float(f"{value:.6g}")

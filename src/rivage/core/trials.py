"""What certificates read from the trials of one competitor, whatever was played."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import StoreError
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord

__all__ = ["finished_trials", "points"]


def finished_trials(record: RunRecord, method: str) -> list[TrialRecord]:
    """Those of one competitor, one per seed.

    Args:
        record: of the run.
        method: the competitor.

    Raises:
        StoreError: when there are none, or not all of them have been played to the end.
    """
    trials = [trial for trial in record.trials if trial.method == method]
    if not trials or not all(trial.finished for trial in trials):
        raise StoreError(
            f'"{method}" has not been played to the end',
            where=str(record.folder),
            mend="Finish the run first: start it again, it resumes.",
        )
    return trials


def points(trials: Sequence[TrialRecord], key: str) -> Float64[ndarray, "seeds points"]:
    """One number of every event ``point``; seeds that differ in length are cut to the shortest, the end is kept."""
    rows: list[list[Any]] = [[point[key] for point in trial.events("point")] for trial in trials]
    shortest = min(map(len, rows))
    return np.array([[*row[: shortest - 1], row[-1]] for row in rows], np.float64)

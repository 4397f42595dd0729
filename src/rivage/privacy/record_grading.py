"""Grading of rebuilt records: which true ones are there, and which would be without any message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, Shaped
from numpy import ndarray

from rivage.data.population import Samples
from rivage.privacy.questions import RecordAnswer, RecordQuestion
from rivage.privacy.record_matching import match
from rivage.privacy.views import Refused

__all__ = ["RecordCase", "matched"]

_TOLERANCE = 0.05  # of a column's standard deviation, within which a number counts as found
_MOST_RECORDS = 2_000  # of a client; assigning guesses to records takes the cube of it


@dataclass(frozen=True, eq=False)
class RecordCase:
    """What are the records of the target?

    Args:
        client: the target.
        train: its records.
        others: records of other clients, which tell the average record and how common each label is.
    """

    client: int
    train: Samples
    others: Samples

    @property
    def question(self) -> RecordQuestion:
        """How many records there are, in the target's first exchange.

        Raises:
            Refused: for more than can be assigned to guesses.
        """
        if len(self.train) > _MOST_RECORDS:
            raise Refused(f"{len(self.train)} records are too many to be told apart in one update")
        return RecordQuestion(len(self.train))

    @cached_property
    def _known(self) -> Samples:
        return self.others if len(self.others) else self.train

    def grade(self, answer: RecordAnswer) -> Mapping[str, Any]:
        """Exact matches of inputs; of an attack on labels, matches of labels."""
        found = self._inputs(answer.x) if answer.x is not None else self._labels(answer.y)
        return {"client": self.client, "status": answer.status, "records": len(self.train), **found}

    def _inputs(self, x: Float[ndarray, "found *input"]) -> dict[str, Any]:
        background = self._known.x.astype(np.float64)
        mean, tolerance = background.mean(axis=0), np.maximum(_TOLERANCE * background.std(axis=0), 1e-6)
        size = len(self.train)
        own = match(x[:size], self.train.x, mean, tolerance)
        blind = match(np.tile(mean, (size, *[1] * mean.ndim)), self.train.x, mean, tolerance)
        exact, guessed = round(own.exact * size), round(blind.exact * size)
        errors = {"mse": float(np.median(own.errors)), "blind_mse": float(np.median(blind.errors))}
        return {"part": "inputs", "correct": exact, "baseline_correct": guessed, **errors}

    def _labels(self, y: Shaped[ndarray, "records"] | None) -> dict[str, Any]:
        truth = self.train.y
        if y is None or truth.ndim != 1 or truth.dtype.kind not in "iu":
            raise Refused("the answer holds neither inputs nor classes")
        classes = int(max(truth.max(), np.max(y, initial=0), self._known.y.max())) + 1
        true, own = (np.bincount(labels, minlength=classes) for labels in (truth, y))
        guesses = [_proportional(self._known.y, len(truth), classes), _commonest(self._known.y, len(truth), classes)]
        guess = max(guesses, key=lambda counts: int(np.minimum(counts, true).sum()))
        mine, blind = np.minimum(own, true), np.minimum(guess, true)
        # Records of one class cannot be told apart: as many as possible are right in both.
        return {
            "part": "labels",
            "correct": int(mine.sum()),
            "baseline_correct": int(blind.sum()),
            "better": int(np.maximum(mine - blind, 0).sum()),
            "worse": int(np.maximum(blind - mine, 0).sum()),
        }


def _commonest(known: Int64[ndarray, "m"], size: int, classes: int) -> Int64[ndarray, "classes"]:
    counts = np.bincount(known, minlength=classes)
    return np.where(np.arange(classes) == counts.argmax(), size, 0)


def _proportional(known: Int64[ndarray, "m"], size: int, classes: int) -> Int64[ndarray, "classes"]:
    """So many labels, in the proportions of others, by largest remainders."""
    exact = np.bincount(known, minlength=classes) * size / len(known)
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: size - int(counts.sum())]] += 1
    return counts


def matched(pieces: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Evidence over all targets: of labels a sign test against the guess by frequency, of inputs plain counts."""
    kept = [{key: piece[key] for key in ("client", "status") if key in piece} for piece in pieces]
    keys = ("records", "correct", "baseline_correct", "better", "worse")
    sums = {key: sum(int(piece[key]) for piece in pieces) for key in keys if key in pieces[0]}
    if pieces[0]["part"] == "labels":
        return {"kind": "counts", "metric": "labels", **sums}, {"baseline": "frequencies of other clients' labels"}
    # Medians, over records and over targets: a quotient by almost nothing is a candidate far from everything.
    facts = {f"median_{key}": float(np.median([piece[key] for piece in pieces])) for key in ("mse", "blind_mse")}
    return {"kind": "matches", "targets": kept, **sums}, {"baseline": "the mean record of other clients", **facts}

"""Records of reference models: who trains on which of them, and what all models then say of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.seeding import Streams
from rivage.data.population import Samples
from rivage.privacy.questions import MembershipQuestion

__all__ = ["Signals", "balanced", "bounded", "clients_of", "members_of"]

_POPULATION = 500  # of the attacker's own records, that one client's are compared with


def balanced(models: int, records: int, generator: np.random.Generator) -> Bool[ndarray, "models records"]:
    """Which model trains on which record: each record in exactly half of the models, uniformly at random.

    Of an odd number of models a record gets the lower or the upper half, at random.
    """
    ranks = generator.random((models, records)).argsort(0).argsort(0)
    half = models // 2 + (models % 2) * generator.integers(0, 2, records)
    design: ndarray = ranks < half
    return design


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """Confidences of the target and of the reference models in the audited records and in further ones.

    Args:
        target: of the model that is asked about.
        references: of the reference models.
        inside: whether the reference model trained on the record.
        known: audited records whose membership the attacker knows.
        facts: about the reference models.
    """

    target: Float64[ndarray, "records queries"]
    references: Float64[ndarray, "models records queries"]
    inside: Bool[ndarray, "models records"]
    known: Bool[ndarray, "audited"]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def audited(self) -> int:
        """How many of the records are audited; they come first."""
        return len(self.known)

    @property
    def asked(self) -> Int64[ndarray, "asked"]:
        """Rows of the audited records whose membership is not known."""
        return np.flatnonzero(~self.known)

    def answer(self, scores: Float64[ndarray, "asked"]) -> Float64[ndarray, "audited"]:
        """These scores in their rows, NaN in those that are known."""
        result = np.full(self.audited, np.nan)
        result[self.asked] = scores
        return result


def bounded(question: MembershipQuestion, streams: Streams) -> MembershipQuestion:
    """With no more of the attacker's own records than one client can do with: every model is asked about all."""
    own, most = len(question.others), max(_POPULATION, len(question.records))
    if own <= most:
        return question
    chosen = streams.numpy("population").choice(own, most, replace=False)
    return replace(question, others=question.others.take(np.sort(chosen)))


def members_of(records: Samples, design: Bool[ndarray, "models records"]) -> list[Samples]:
    """The records of each model."""
    return [records.take(np.flatnonzero(row)) for row in design]


def clients_of(
    records: Samples, design: Bool[ndarray, "models records"], *, clients: int, apart: int, streams: Streams
) -> Iterator[list[Samples]]:
    """The members of each model, dealt to clients: the first ``apart`` records are those of the first client."""
    for m, row in enumerate(design):
        rows = np.flatnonzero(row)
        first = rows[rows < apart]
        rest = streams.numpy("deal", m).permutation(rows[len(first) :])
        parts = np.array_split(rest, max(clients - (apart > 0), 1))
        yield [records.take(part) for part in (first, *parts) if len(part)]

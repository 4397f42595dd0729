"""Grading of properties: which clients hold records of which more than half have one value of an attribute?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from rivage.data.population import ClientData, Samples
from rivage.privacy.attribute_grading import values_of
from rivage.privacy.questions import Attribute, PropertyAnswer, PropertyQuestion
from rivage.privacy.views import Refused

__all__ = ["PropertyCase"]


@dataclass(frozen=True, eq=False)
class PropertyCase:
    """Who has the property?

    Args:
        question: the clients, and records of the attacker's own.
        truth: per client.
    """

    question: PropertyQuestion
    truth: Bool[ndarray, "clients"]
    client: None = None

    @classmethod
    def of(cls, attribute: Attribute, clients: Sequence[ClientData], own: Samples) -> PropertyCase:
        """Ask about the second value of a binary attribute.

        Args:
            attribute: binary.
            clients: that are asked about.
            own: records of the attacker.

        Raises:
            Refused: if all clients are alike.
        """
        truth = np.array([np.mean(values_of(attribute, data.train.x) == 1) > 0.5 for data in clients])
        if truth.all() or not truth.any():
            who = "all" if truth.all() else "none"
            raise Refused(f'{who} of {len(truth)} clients hold mostly records with "{attribute.values[1]}"')
        asked = PropertyQuestion(tuple(data.id for data in clients), own, values_of(attribute, own.x) == 1)
        return cls(asked, truth)

    def grade(self, answer: PropertyAnswer) -> Mapping[str, Any]:
        """Sorted scores of the clients that have it and of those that have not; without those that were not seen."""
        scores = np.asarray(answer.scores, np.float64)
        seen = ~np.isnan(scores)
        having, others = (np.sort(scores[seen & side]) for side in (self.truth, ~self.truth))
        if not (len(having) and len(others)):
            raise Refused("the clients that were seen are all of one kind")
        return {"client": None, "members": having.tolist(), "others": others.tolist()}

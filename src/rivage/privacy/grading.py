"""The evaluator: it knows the truth, asks, and turns answers into evidence.

A *case* is one question about one target with its truth. What a case hands to an attack is its question alone; what it
keeps of an answer has no identity of any record.

Membership is asked about training records of the target and as many records that the target holds but did not train on
(its test and validation records): from another client they could differ in distribution, and telling clients apart is
no membership inference. Half of either kind is known to the attacker; only the other half is evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from rivage.core.seeding import Streams
from rivage.data.population import ClientData, Samples, joined
from rivage.privacy.attribute_grading import compared
from rivage.privacy.model_grading import distances
from rivage.privacy.questions import MembershipAnswer, MembershipQuestion
from rivage.privacy.record_grading import matched
from rivage.privacy.views import Refused

__all__ = ["Case", "MembershipCase", "pooled"]

_MOST_MEMBERS = 500
_LEAST_MEMBERS = 8  # of either kind: four are known and four evaluated

Piece = Mapping[str, Any]


class Case(Protocol):
    """One question about one target, and the truth."""

    @property
    def client(self) -> int | None:
        """The target; None for the whole federation."""
        ...

    @property
    def question(self) -> Any:
        """What the attack gets."""
        ...

    def grade(self, answer: Any) -> Piece:
        """What is kept of an answer.

        Raises:
            Refused: for an answer without content, with the reason that it gives.
        """
        ...


# --- membership -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class MembershipCase:
    """Which of these records were trained on?

    Args:
        client: the target; None for the whole federation.
        question: with half of the answers.
        truth: all of them.
    """

    client: int | None
    question: MembershipQuestion
    truth: Bool[ndarray, "n"]

    @classmethod
    def of(
        cls,
        held: Sequence[ClientData],
        others: Sequence[Samples],
        streams: Streams,
        *,
        client: int | None,
        most: int = _MOST_MEMBERS,
    ) -> MembershipCase:
        """Draw the records to ask about.

        Args:
            held: what the target holds, or every client of a federation; each gives as many members as others.
            others: further records of the distribution, of which nobody knows the membership.
            streams: of this case.
            client: the target; None for the whole federation.
            most: members to ask about.

        Raises:
            Refused: when there are too few records.
        """
        parts, rest = [], []
        for data in held:
            spare = joined([data.test, data.validation])
            size = min(len(data.train), len(spare), most // len(held)) // 2 * 2
            order = streams.numpy("spare", data.id).permutation(len(spare))
            chosen = streams.numpy("members", data.id).choice(len(data.train), size, replace=False)
            parts.append((data.train.take(chosen), spare.take(order[:size])))
            rest.append(spare.take(order[size:]))
        total = sum(len(members) for members, _ in parts)
        if total < _LEAST_MEMBERS:
            raise Refused(
                f"{total} training records and as many held-out ones are too few to ask about",
                mend="Set evaluation.test and evaluation.validation higher, or name a client with more records.",
            )
        records = joined([samples for part in parts for samples in part])
        truth = np.concatenate([np.repeat([True, False], len(members)) for members, _ in parts])
        known = np.concatenate([np.arange(len(samples)) % 2 == 0 for part in parts for samples in part])
        shuffled = streams.numpy("order").permutation(len(truth))
        # Numbers of records within a client would tell: training records were dealt first.
        anonymous = Samples(records.x[shuffled], records.y[shuffled], np.arange(len(truth)))
        truth, known = truth[shuffled], known[shuffled]
        question = MembershipQuestion(anonymous, known, truth & known, joined([*rest, *others]), client)
        return cls(client, question, truth)

    def shuffled(self, streams: Streams) -> MembershipCase:
        """The same records with membership drawn anew: nothing can be found."""
        known, generator = self.question.known, streams.numpy("shuffled")
        truth = self.truth.copy()
        for half in (known, ~known):
            truth[half] = generator.permutation(truth[half])
        asked = self.question
        question = MembershipQuestion(asked.records, known, truth & known, asked.others, asked.target)
        return MembershipCase(self.client, question, truth)

    def grade(self, answer: MembershipAnswer) -> Piece:
        """Sorted scores of the members and of the others that were not known."""
        asked = ~self.question.known
        scores = np.asarray(answer.scores, np.float64)
        if scores.shape != self.truth.shape or np.isnan(scores[asked]).any():
            raise Refused(
                f"the answer has {np.isnan(scores).sum()} scores that are NaN and shape {scores.shape}",
                mend=f"Give a number for each of the {int(asked.sum())} records that are asked about.",
            )
        scores = np.nan_to_num(scores, posinf=np.finfo(np.float64).max, neginf=np.finfo(np.float64).min)
        members, others = (np.sort(scores[asked & side]) for side in (self.truth, ~self.truth))
        return {"client": self.client, "members": members.tolist(), "others": others.tolist()}


# --- from pieces to evidence ----------------------------------------------------------------------------------------


def pooled(asks: str, pieces: Sequence[Piece]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Evidence over all targets, and facts beside it.

    Args:
        asks: what kind of question it was.
        pieces: one per target, from `Case.grade`.
    """
    if asks in ("membership", "property"):
        return {"kind": "scores", "targets": [dict(piece) for piece in pieces]}, {}
    if asks == "record":
        return matched(pieces)
    if asks == "model":
        return {"kind": "estimates", "targets": [dict(piece) for piece in pieces]}, distances(pieces)
    return compared(pieces)

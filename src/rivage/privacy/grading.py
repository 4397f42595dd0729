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
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Float64, Shaped
from numpy import ndarray

from rivage.core.seeding import Streams
from rivage.data.population import ClientData, Samples, joined
from rivage.privacy.attribute_baselines import imputed, majority
from rivage.privacy.model_grading import distances
from rivage.privacy.questions import (
    Attribute,
    AttributeAnswer,
    AttributeQuestion,
    MembershipAnswer,
    MembershipQuestion,
)
from rivage.privacy.record_grading import matched
from rivage.privacy.views import Refused

__all__ = [
    "AttributeCase",
    "Case",
    "MembershipCase",
    "pooled",
]

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


# --- attributes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class AttributeCase:
    """Which value has the attribute in each training record of the target?

    Args:
        client: the target.
        question: the records without it.
        truth: index into the codes, or the number, per record.
        others: training records of other clients, from which the imputation baseline learns.
    """

    client: int
    question: AttributeQuestion
    truth: Shaped[ndarray, "n"]
    others: Samples

    @classmethod
    def of(cls, attribute: Attribute, data: ClientData, others: Samples) -> AttributeCase:
        """Ask about all training records of a client."""
        question = AttributeQuestion(attribute, _without(attribute, data.train.x), data.train.y, data.id)
        return cls(data.id, question, values_of(attribute, data.train.x), others)

    @cached_property
    def guesses(self) -> Mapping[str, Shaped[ndarray, "n"]]:
        """Baseline -> its guess for every record."""
        attribute, others = self.question.attribute, self.others
        # Of numbers the median: no guess that knows nothing of a record has a smaller absolute error.
        constant = np.median(self.truth) if attribute.kind == "numerical" else majority(self.truth)
        found = {"majority": np.full(len(self.truth), constant)}
        known = _without(attribute, others.x), others.y, values_of(attribute, others.x)
        guess = imputed(self.question, known)
        return found if guess is None else {**found, "imputation": guess}

    def grade(self, answer: AttributeAnswer) -> Piece:
        """What is right, or how far off, record by record; kept until it is pooled."""
        values = np.asarray(answer.values)
        if values.shape != self.truth.shape:
            raise Refused(
                f"the answer has shape {values.shape}", mend=f"Give one value for each of {len(self.truth)} records."
            )
        return {
            "client": self.client,
            "numerical": self.question.attribute.kind == "numerical",
            "attack": self._off(values),
            "guesses": {name: self._off(guess) for name, guess in self.guesses.items()},
        }

    def _off(self, values: Shaped[ndarray, "n"]) -> Float64[ndarray, "n"]:
        """0 for right and 1 for wrong; of numbers the absolute error."""
        if self.question.attribute.kind == "numerical":
            errors: ndarray = np.abs(values - self.truth)
            return errors
        return np.asarray(values != self.truth, np.float64)


def values_of(attribute: Attribute, x: Float[ndarray, "n d"]) -> Shaped[ndarray, "n"]:
    """What the attribute is in these records: nearest code, or the number."""
    coded = x[:, list(attribute.columns)].astype(np.float64)
    nearest: ndarray = np.square(coded[:, None] - attribute.codes).sum(axis=2).argmin(axis=1)
    return coded[:, 0] if attribute.kind == "numerical" else nearest


def _without(attribute: Attribute, x: Float[ndarray, "n d"]) -> Float[ndarray, "n d"]:
    result = x.copy()
    result[:, list(attribute.columns)] = 0
    return result


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
    return _pooled_records(pieces)


def _pooled_records(pieces: Sequence[Piece]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The attack against the better of the baselines that every target has."""
    attack = np.concatenate([piece["attack"] for piece in pieces])
    shared = [name for name in pieces[0]["guesses"] if all(name in piece["guesses"] for piece in pieces)]
    guesses = {name: np.concatenate([piece["guesses"][name] for piece in pieces]) for name in shared}
    best = min(guesses, key=lambda name: float(guesses[name].mean()))
    guess, facts = guesses[best], {"baseline": best}
    if pieces[0]["numerical"]:
        found = {
            "kind": "errors",
            "records": len(attack),
            "error": float(attack.mean()),
            "error_deviation": float(attack.std(ddof=1)) if len(attack) > 1 else 0.0,
            "baseline_error": float(guess.mean()),
            "deviation": float((guess - attack).std(ddof=1)) if len(attack) > 1 else 0.0,
        }
        return found, {**facts, **{f"{name}_error": float(value.mean()) for name, value in guesses.items()}}
    right, guessed = attack == 0, guess == 0
    found = {
        "kind": "counts",
        "records": len(attack),
        "correct": int(right.sum()),
        "baseline_correct": int(guessed.sum()),
        "better": int((right & ~guessed).sum()),
        "worse": int((guessed & ~right).sum()),
    }
    return found, {**facts, **{name: float((value == 0).mean()) for name, value in guesses.items()}}

"""Grading of attributes: how many values are right, against what is known without messages, and of whom it is learnt.

An attack that makes a rule for any record, such as a model that is asked which value fits best, is put to the test on
the target's *held-out* records as well, on which nobody trained. What it finds there, the messages tell of anyone whose
records look alike: that is inference about the population. Only what it finds beyond that is about the very records
that were trained on. Either leaks where it exceeds the baselines; the difference is told beside it, as a fact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Shaped
from numpy import ndarray

from rivage.data.population import ClientData, Samples, joined
from rivage.privacy.attribute_baselines import imputed, majority
from rivage.privacy.evidence import LEVEL
from rivage.privacy.questions import Attribute, AttributeAnswer, AttributeQuestion
from rivage.privacy.unseen import as_guessed, errors_test, rights_test
from rivage.privacy.views import Refused

__all__ = ["AttributeCase", "compared", "values_of"]

Piece = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class AttributeCase:
    """Which value has the attribute in each training record of the target?

    Args:
        client: the target.
        question: the records without it.
        truth: index into the codes, or the number, per record.
        others: training records of other clients, from which the imputation baseline learns.
        held_out: records of the target that nobody trained on, with their truth; None where there are none.
    """

    client: int
    question: AttributeQuestion
    truth: Shaped[ndarray, "n"]
    others: Samples
    held_out: tuple[AttributeQuestion, Shaped[ndarray, "m"]] | None = None

    @classmethod
    def of(cls, attribute: Attribute, data: ClientData, others: Samples) -> AttributeCase:
        """Ask about all training records of a client."""
        question, truth = _asked(attribute, data.train, data.id)
        spare = joined([data.test, data.validation])
        spare = spare.take(np.flatnonzero(_coded(attribute, spare.x)))
        return cls(data.id, question, truth, others, _asked(attribute, spare, data.id) if len(spare) else None)

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
        found = {
            "client": self.client,
            "numerical": self.question.attribute.kind == "numerical",
            "attack": self._off(values, self.truth),
            "guesses": {name: self._off(guess, self.truth) for name, guess in self.guesses.items()},
        }
        if answer.rule is None or self.held_out is None:
            return found
        asked, truth = self.held_out
        return {**found, "held_out": self._off(np.asarray(answer.rule(asked)), truth)}

    def _off(self, values: Shaped[ndarray, "n"], truth: Shaped[ndarray, "n"]) -> Float64[ndarray, "n"]:
        """0 for right and 1 for wrong; of numbers the absolute error."""
        if self.question.attribute.kind == "numerical":
            errors: ndarray = np.abs(values - truth)
            return errors
        return np.asarray(values != truth, np.float64)


def values_of(attribute: Attribute, x: Float[ndarray, "n d"]) -> Shaped[ndarray, "n"]:
    """What the attribute is in these records: nearest code, or the number."""
    coded = x[:, list(attribute.columns)].astype(np.float64)
    nearest: ndarray = np.square(coded[:, None] - attribute.codes).sum(axis=2).argmin(axis=1)
    return coded[:, 0] if attribute.kind == "numerical" else nearest


def compared(pieces: Sequence[Piece]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The attack against the better of the baselines that every target has: evidence, and facts beside it."""
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
        told = {f"{name}_error": float(value.mean()) for name, value in guesses.items()}
        return found, {**facts, **told, **_unseen(pieces, best)}
    right, guessed = attack == 0, guess == 0
    found = {
        "kind": "counts",
        "records": len(attack),
        "correct": int(right.sum()),
        "baseline_correct": int(guessed.sum()),
        "better": int((right & ~guessed).sum()),
        "worse": int((guessed & ~right).sum()),
    }
    return found, {
        **facts,
        **{name: float((value == 0).mean()) for name, value in guesses.items()},
        **_unseen(pieces, best),
    }


def _unseen(pieces: Sequence[Piece], best: str) -> dict[str, Any]:
    """The same attack on records that nobody trained on, and the p-value of "no better on those that were".

    Beside it the p-value if those were guessed as the best baseline does: where even that is no difference, there are
    too few of them to tell.
    """
    if not all("held_out" in piece for piece in pieces):
        return {}
    numerical, test = (True, errors_test) if pieces[0]["numerical"] else (False, rights_test)
    pairs = [(piece["attack"], piece["held_out"]) for piece in pieces]
    blind = [(piece["attack"], as_guessed(piece["guesses"][best], len(piece["held_out"]))) for piece in pieces]
    # Clients count as they do in the value that this stands beside.
    off = float(np.average([others.mean() for _, others in pairs], weights=[len(trained) for trained, _ in pairs]))
    return {
        "held_out": off if numerical else 1 - off,
        "held_out_records": sum(len(others) for _, others in pairs),
        "held_out_p": (p := test(pairs)),
        "held_out_least_p": test(blind),
        "beyond_held_out": p <= LEVEL,
    }


def _asked(attribute: Attribute, records: Samples, client: int) -> tuple[AttributeQuestion, Shaped[ndarray, "n"]]:
    """The records without the attribute, and what it is."""
    question = AttributeQuestion(attribute, _without(attribute, records.x), records.y, client)
    return question, values_of(attribute, records.x)


def _coded(attribute: Attribute, x: Float[ndarray, "n d"]) -> Shaped[ndarray, "n"]:
    """Where the attribute has one of the values that are asked for, or is within the range of a number."""
    coded = x[:, list(attribute.columns)].astype(np.float64)
    if attribute.kind == "numerical":
        inside: ndarray = (coded[:, 0] >= attribute.codes[0, 0]) & (coded[:, 0] <= attribute.codes[-1, 0])
        return inside
    known: ndarray = (coded[:, None] == attribute.codes).all(axis=2).any(axis=1)
    return known


def _without(attribute: Attribute, x: Float[ndarray, "n d"]) -> Float[ndarray, "n d"]:
    result = x.copy()
    result[:, list(attribute.columns)] = 0
    return result

"""What attacks on membership share: which rounds are looked at, what must be known, the form of the answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from rivage.privacy.questions import MembershipAnswer, MembershipQuestion
from rivage.privacy.roc import best_threshold
from rivage.privacy.views import Eavesdropper, Exchange, Refused

__all__ = ["answered", "observed", "require_known", "spread"]

_LEAST = 5  # known members and known others, below which nothing can be learnt and validated


def answered(scores: Float64[ndarray, "n"], question: MembershipQuestion, **facts: Any) -> MembershipAnswer:
    """The answer: scores where membership is asked for, and the best threshold where it is known."""
    known, member = question.known, question.member
    if member[known].any() and not member[known].all():
        facts["threshold"] = best_threshold(scores[known], member[known])
    return MembershipAnswer(np.where(known, np.nan, scores), facts)


def require_known(question: MembershipQuestion) -> Bool[ndarray, "n"]:
    """Where membership is known, to learn from.

    Raises:
        Refused: if that are too few records of either kind.
    """
    members = int(np.sum(question.member & question.known))
    others = int(np.sum(question.known)) - members
    if min(members, others) < _LEAST:
        raise Refused(
            f"it learns from records whose membership it knows: {members} members and {others} others are too few",
            mend=f"Let it know at least {_LEAST} of each.",
        )
    return question.known


def observed(view: Eavesdropper, count: int | None) -> Iterator[Exchange]:
    """The target's exchanges in so many rounds, see `spread`; the log is read twice, one exchange in memory at a time.

    Raises:
        Refused: if the target has none.
    """
    rounds = [exchange.round for exchange in view.exchanges()]
    if not rounds:
        raise Refused(f"client {view.target} has no exchange in the log", mend="Ask about a client that took part.")
    chosen = set(spread(rounds, count))
    return (exchange for exchange in view.exchanges() if exchange.round in chosen)


def spread(rounds: list[int], count: int | None) -> list[int]:
    """So many of the rounds, equally spaced over the last two thirds with both ends; all of them for None.

    Early rounds are left out because models have not fitted their records yet.
    """
    late = rounds[len(rounds) // 3 :]
    if count is None or not rounds:
        return rounds
    picked = np.unique(np.rint(np.linspace(0, len(late) - 1, count)).astype(np.int64)) if count > 1 else [-1]
    return [late[i] for i in picked]

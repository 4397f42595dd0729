"""What a published statement is, and what comes out when it is tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Claim", "Outcome", "within"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out.

    Args:
        measured: the number held against ``expected``; None when not tested.
        verdict: ``holds``, ``fails`` or ``not tested``.
        detail: figures, or the reason why it was not tested.
    """

    measured: float | None
    verdict: Literal["holds", "fails", "not tested"]
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A statement that can be tested.

    Args:
        name: what `rivage reproduce` calls it.
        paper: who said it.
        where: which table, figure, equation or algorithm.
        statement: what is claimed, in one sentence.
        expected: the published or derived number, or a bound in words.
        tolerance: largest distance at which it holds; 0 for bounds.
        cost: ``quick`` (seconds) or ``slow`` (minutes).
        run: tests it.
    """

    name: str
    paper: str
    where: str
    statement: str
    expected: float | str
    tolerance: float
    cost: Literal["quick", "slow"]
    run: Callable[[], Outcome]


def within(measured: float, expected: float, tolerance: float, detail: str = "") -> Outcome:
    """Whether a number is where it was said to be."""
    return Outcome(measured, "holds" if abs(measured - expected) <= tolerance else "fails", detail)

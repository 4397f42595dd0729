"""The affine map behind a client's answers, and where it vanishes.

Xu, Neglia. What else is leaked when eavesdropping federated learning? PPML at CCS 2021; Driouich, Xu, Neglia, Giroire,
Thomas, arXiv 2210.16205; Diana, Marfoq, Xu, Neglia, Giroire, Thomas. AAAI 2025, arXiv 2411.12697, Algorithm 2.

A client with loss ½‖Xw − y‖²/n takes E full-batch steps of size η from w. With H = X'X/n and w* its minimiser

    w' − w* = (I − ηH)^E (w − w*),    so    g = w − w' = A (w − w*),    A = I − (I − ηH)^E .

With 0 < η < 2/λ_max and H regular, A has an inverse, and w = A⁻¹g + w* is affine in g with D² + D unknowns. Every
message gives D equations: D + 1 messages whose rows [g 1] are independent give w*, which is the value at g = 0. Weight
decay λ puts H + λI in the place of H. If H is singular, all g lie in its row space, of rank r: there r + 1 messages
are enough, and outside of it a client's data say nothing.

Solvers (n messages):

=================  ===================================================================================================
`least_squares`    regress w on [g 1], columns scaled to norm 1: exact where answers are exact
`forward`          regress g on [w 1], then solve for g = 0: for noise in the answers (mini-batches), as w is known
                   exactly and g is not; the other way round slopes would come out too small
`subset`           the D + 1 messages with the least condition number among random draws, solved exactly (the public
                   code of Diana et al.)
`ridge`            as `least_squares` with slopes shrunk, by the strength with the smallest left-out error
`truncated`        as `least_squares` on the leading principal directions of g, their number chosen likewise
=================  ===================================================================================================

The *left-out error* of a fit is the root mean square distance, over rounds, between w and what the fit without that
round says of it, over the same for the mean of the other rounds. Errors of fits are in `rivage.privacy.affine_errors`.
Cost: O(n D²) time, O(n D) memory, but O(n D²) per trial of `subset` and per strength of `ridge`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from scipy.linalg import qr, solve_triangular

from rivage.core.errors import DataError
from rivage.privacy.affine_errors import attenuation, left_out, scatter
from rivage.privacy.views import Exchange, Refused

__all__ = ["SOLVERS", "Answers", "Fit", "Solver", "collect", "condition", "fit", "project", "row_space"]

Solver = Literal["auto", "least_squares", "forward", "subset", "ridge", "truncated"]
SOLVERS: tuple[Solver, ...] = ("auto", "least_squares", "forward", "subset", "ridge", "truncated")

_ROUNDING, _NOISE = 2.5, 8.0  # times the rounding unit: at most what a client's arithmetic makes; surely more than that
_STRENGTHS = np.logspace(-12, 2, 29)


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """One client's messages as matrices, in float64.

    Args:
        sent: w, one row per round.
        gradient: g = w − w'.
        rounding: standard size of the rounding error in each column of g.
        unit: distance from 1 to the next larger number of the log's type, 1.2·10⁻⁷ for float32.
    """

    sent: Float64[ndarray, "rounds dim"]
    gradient: Float64[ndarray, "rounds dim"]
    rounding: Float64[ndarray, "dim"]
    unit: float

    @property
    def last(self) -> Float64[ndarray, "dim"]:
        """The model returned last."""
        result: ndarray = self.sent[-1] - self.gradient[-1]
        return result

    @property
    def design(self) -> tuple[Float64[ndarray, "rounds columns"], Float64[ndarray, "columns"]]:
        """[g 1] with columns of norm 1, and what they were divided by (1 where a column is 0)."""
        matrix = np.column_stack([self.gradient, np.ones(len(self.gradient))])
        scale = np.linalg.norm(matrix, axis=0)
        scale[scale == 0] = 1.0
        return matrix / scale, scale


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Where the map vanishes.

    Args:
        optimum: w*.
        error: estimate of the Euclidean error of ``optimum``: rounding, or the scatter of the answers if larger; of
            solvers that regress w on g with what noise in g makes of their slopes. What shrinking costs beyond that is
            not in it: with no more messages than unknowns in a column that of ``ridge`` and ``truncated`` says nothing.
        left_out: the left-out error; None where there is no message to spare.
        solver: that was used.
    """

    optimum: Float64[ndarray, "dim"]
    error: float
    left_out: float | None
    solver: str


def collect(exchanges: Iterable[Exchange], unit: float | None = None) -> Answers:
    """Read one client's exchanges; of a round that comes twice the last counts.

    Args:
        exchanges: in any order.
        unit: see `Answers`; None takes that of the coarsest type among the models. A larger one is that of the
            differences which the updates hold.

    Raises:
        Refused: without exchanges, or where a method sends several models.
        DataError: for numbers that are not finite, naming the round.
    """
    rounds: dict[int, Exchange] = {}
    units = set()
    for exchange in exchanges:
        if exchange.sent.ndim != 1:
            raise Refused(
                f"{len(exchange.sent)} models are sent per round, and which answer belongs to which data is unknown",
                mend="Choose a method that sends one model.",
            )
        if not (np.isfinite(exchange.sent).all() and np.isfinite(exchange.pseudo_gradient).all()):
            raise DataError("a model holds NaN or infinity", where=f"client {exchange.client}, round {exchange.round}")
        rounds[exchange.round] = exchange
        models = (exchange.sent, exchange.returned) if exchange.kind == "model" else (exchange.sent,)
        units |= {float(np.finfo(model.dtype).eps) for model in models}
    if not rounds:
        raise Refused("the client has no exchange", mend="Name another client.")
    ordered = [rounds[number] for number in sorted(rounds)]
    sent = np.stack([exchange.sent for exchange in ordered]).astype(np.float64)
    gradient = np.stack([exchange.pseudo_gradient for exchange in ordered])
    fine = max(units)
    coarse = fine if unit is None else max(fine, unit)
    # A model is rounded where it is returned, a gradient itself; coarser numbers are those of a difference.
    rounded = gradient if ordered[0].kind == "gradient" else sent - gradient
    moves = np.sqrt((gradient**2).mean(axis=0))
    size = fine * np.sqrt((rounded**2).mean(axis=0)) + coarse * moves
    return Answers(sent, gradient, np.maximum(size, np.finfo(float).tiny), coarse)


def condition(answers: Answers) -> float:
    """Condition number of [g 1] with columns of norm 1; infinite with fewer rows than columns."""
    matrix, _ = answers.design
    return math.inf if matrix.shape[0] < matrix.shape[1] else float(np.linalg.cond(matrix))


def row_space(answers: Answers) -> tuple[Float64[ndarray, "dim rank"], bool]:
    """The space in which all g lie, up to rounding.

    Returns:
        An orthonormal basis, and whether w was moved in all of it, so that the messages tell where the answer
        vanishes. They do not if g − mean g has a smaller rank than g: there are too few messages, or all clients take
        part in every round and the models of successive rounds approach their limit along ever fewer directions.
        Neither do they if a singular value is no larger than a few times what rounding makes.
    """
    noisy = answers.gradient / answers.rounding
    noise = math.sqrt(noisy.shape[0]) + math.sqrt(noisy.shape[1])  # largest singular value of a matrix of unit noise
    _, values, axes = np.linalg.svd(noisy, full_matrices=False)
    rank = int((values > _NOISE * noise).sum())
    moved = int((np.linalg.svd(noisy - noisy.mean(axis=0), compute_uv=False) > _NOISE * noise).sum())
    clear = rank == len(values) or bool(values[rank] < _ROUNDING * noise)
    return np.linalg.qr(answers.rounding[:, None] * axes[:rank].T)[0], moved == rank and clear


def project(answers: Answers, basis: Float64[ndarray, "dim rank"]) -> Answers:
    """The same messages in the coordinates of a basis."""
    return replace(
        answers,
        sent=answers.sent @ basis,
        gradient=answers.gradient @ basis,
        rounding=np.sqrt((basis**2).T @ answers.rounding**2),
    )


def fit(answers: Answers, solver: Solver, generator: np.random.Generator, trials: int) -> Fit:
    """Solve.

    Args:
        answers: at least as many as unknowns in a column, D + 1, but for ``ridge`` and ``truncated``.
        solver: ``auto`` is the one of `least_squares` and `forward` with the smaller left-out error.
        generator: for ``subset``.
        trials: of ``subset``.
    """
    if solver == "subset":
        return _subset(answers, generator, trials)
    if solver in ("ridge", "truncated"):
        return _shrunk(answers, solver)
    if solver != "auto":
        return _least_squares(answers) if solver == "least_squares" else _forward(answers)
    fits = [_least_squares(answers), _forward(answers)]
    return min(fits, key=lambda found: math.inf if found.left_out is None else found.left_out)


def _least_squares(answers: Answers) -> Fit:
    matrix, scale = answers.design
    q, r = qr(matrix, mode="economic")
    slopes = solve_triangular(r, q.T @ answers.sent) / scale[:, None]
    left = answers.sent - matrix @ (slopes * scale[:, None])
    last = np.zeros(len(scale))
    last[-1] = 1.0
    weights = q @ solve_triangular(r, last, trans="T") / scale[-1]  # of the rounds in w*
    rounded = float(np.linalg.norm(slopes[:-1].T * answers.rounding))
    spread = float(np.linalg.norm(weights)) * max(rounded, scatter(left, len(scale)))
    error = math.hypot(spread, attenuation(answers.sent, answers.gradient))
    return Fit(slopes[-1], error, left_out(answers.sent, left, (q**2).sum(axis=1), len(scale)), "least_squares")


def _forward(answers: Answers) -> Fit:
    center, level = answers.sent.mean(axis=0), answers.gradient.mean(axis=0)
    q, r = qr(answers.sent - center, mode="economic")
    try:
        slopes = solve_triangular(r, q.T @ (answers.gradient - level))  # A'
        inverse = np.linalg.inv(slopes.T)
    except np.linalg.LinAlgError:
        return Fit(center, math.inf, math.inf, "forward")
    move = -inverse @ level
    left = (answers.gradient - level - (answers.sent - center) @ slopes) @ inverse.T
    weights = 1 / len(q) + q @ solve_triangular(r, move, trans="T")  # of the rounds in what is predicted at w*
    rounded = float(np.linalg.norm(inverse * answers.rounding))
    error = float(np.linalg.norm(weights)) * max(rounded, scatter(left, len(center) + 1))
    leverage = 1 / len(q) + (q**2).sum(axis=1)
    return Fit(center + move, error, left_out(answers.sent, left, leverage, len(center) + 1), "forward")


def _subset(answers: Answers, generator: np.random.Generator, trials: int) -> Fit:
    rounds, columns = answers.sent.shape[0], answers.sent.shape[1] + 1
    matrix, _ = answers.design
    draws = [np.sort(generator.choice(rounds, columns, replace=False)) for _ in range(trials)]
    best = min(draws, key=lambda rows: float(np.linalg.cond(matrix[rows])))
    found = _least_squares(replace(answers, sent=answers.sent[best], gradient=answers.gradient[best]))
    return replace(found, solver="subset")


def _shrunk(answers: Answers, solver: Literal["ridge", "truncated"]) -> Fit:
    """Shrink slopes along the principal directions of scaled g, as far as predicts left-out rounds best."""
    rounds = len(answers.sent)
    center, level = answers.sent.mean(axis=0), answers.gradient.mean(axis=0)
    scale = np.maximum(np.linalg.norm(answers.gradient - level, axis=0), np.finfo(float).tiny)
    u, values, axes = np.linalg.svd((answers.gradient - level) / scale, full_matrices=False)
    values = np.maximum(values, np.finfo(float).tiny)
    if solver == "ridge":
        shares = [values**2 / (values**2 + strength) for strength in _STRENGTHS * values[0] ** 2]
    else:
        shares = [(np.arange(len(values)) < kept).astype(float) for kept in range(min(len(values), rounds - 1) + 1)]
    onto = u.T @ (answers.sent - center)
    lacking = attenuation(answers.sent, answers.gradient)

    def fitted(share: Float64[ndarray, "directions"]) -> Fit:
        left = answers.sent - center - (u * share) @ onto
        leverage = 1 / rounds + (u**2) @ share
        direction = share / values * (axes @ (-level / scale))
        weights = 1 / rounds + u @ direction
        slopes = (axes.T * (share / values)) @ onto / scale[:, None]
        rounded = float(np.linalg.norm(slopes.T * answers.rounding))
        spread = max(rounded, scatter(left, 1 + round(float(share.sum()))))
        error = math.hypot(float(np.linalg.norm(weights)) * spread, lacking)
        return Fit(center + direction @ onto, error, left_out(answers.sent, left, leverage, 2), solver)

    fits = [fitted(share) for share in shares]
    return min(fits, key=lambda found: math.inf if found.left_out is None else found.left_out)

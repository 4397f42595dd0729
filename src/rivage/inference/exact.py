"""The best fixed allocation itself, where that can be found: by trying all of them, or by branch and bound.

To place whole models is NP-hard. `exhaustive` tries every choice of whole models that fills its nodes, for tests and
networks that fit on a page. `integral_optimum` gives the program of `rivage.inference.optimum`, with whole fractions,
to HiGHS: the relaxation is tight enough that networks of tens of nodes take seconds. Stopped early it still says
between what numbers the optimum lies. Capacities are given; with throughput that types share as is best this is
`rivage.inference.pooled.pooled_exact`.

References:
    Huangfu, Hall. Parallelizing the dual revised simplex method. Mathematical Programming Computation, 2018 (HiGHS).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray
from scipy.optimize import Bounds, LinearConstraint, milp

from rivage.core.errors import ConfigError, require
from rivage.inference.gain import Slot
from rivage.inference.instance import Instance
from rivage.inference.optimum import transport_program
from rivage.inference.patterns import Patterns

__all__ = ["Integral", "exhaustive", "integral_optimum"]

_MOST = 1_000_000
_ROUNDING = 1e-9  # of a budget


@dataclass(frozen=True, slots=True, eq=False)
class Integral:
    """A fixed allocation, and how good any could be.

    Args:
        loaded: the best that was found.
        value: its mean gain of a slot.
        bound: no allocation gains more; ``value`` up to rounding where the search came to its end.
        seconds: it took.
    """

    loaded: Bool[ndarray, "nodes models"]
    value: float
    bound: float
    seconds: float


def exhaustive(instance: Instance, slots: Sequence[Slot], weights: Float64[ndarray, "slots"] | None = None) -> Integral:
    """The best allocation by trying all that nothing can be added to; of equal ones the first.

    Raises:
        ConfigError: when there are more than a million.
    """
    started = time.perf_counter()
    patterns = Patterns.of(instance, slots, weights)
    useful = np.zeros(instance.pinned.size, bool)
    useful[patterns.place] = True
    useful = useful.reshape(instance.shape) & instance.free
    choices = [list(_fullest(instance, node, np.flatnonzero(useful[node]))) for node in range(instance.shape[0])]
    if math.prod(map(len, choices)) > _MOST:
        raise ConfigError(f"{math.prod(map(len, choices)):.2g} allocations", mend="Use integral_optimum.")
    best, loaded = 0.0, instance.pinned
    for chosen in product(*choices):
        x = instance.pinned.copy()
        for node, models in enumerate(chosen):
            x[node, models] = True
        gain = patterns.gain(x)
        if gain > best:
            best, loaded = gain, x
    return Integral(loaded, best, best, time.perf_counter() - started)


def integral_optimum(
    instance: Instance,
    slots: Sequence[Slot],
    weights: Float64[ndarray, "slots"] | None = None,
    *,
    seconds: float = 60.0,
    gap: float = 0.0,
) -> Integral:
    """The best allocation by branch and bound.

    Args:
        instance: of all slots.
        slots: with their capacities.
        weights: how often each counts; all equal when not given.
        seconds: > 0, after which the best so far does.
        gap: >= 0, relative, between the costs of the best so far and of the bound, that does as well.

    Raises:
        ConfigError: when HiGHS finds nothing in time.
    """
    require(seconds, "seconds", above=0.0)
    require(gap, "gap", least=0.0)
    started = time.perf_counter()
    program = transport_program(Patterns.of(instance, slots, weights))
    patterns, whole = program.patterns, len(program.places)
    if not whole:
        return Integral(instance.pinned, 0.0, 0.0, time.perf_counter() - started)
    assert program.equal is not None
    result = milp(
        program.cost,
        constraints=[
            LinearConstraint(program.upper[0], -np.inf, program.upper[1]),
            LinearConstraint(program.equal[0], program.equal[1], program.equal[1]),
        ],
        integrality=np.concatenate([np.zeros(len(program.cost) - whole), np.ones(whole)]),
        bounds=Bounds(0.0, program.high),
        options={"time_limit": seconds, "mip_rel_gap": gap},
    )
    if result.x is None:
        raise ConfigError(f"HiGHS stopped without an allocation: {result.message}", mend="Give more seconds.")
    loaded = instance.pinned.copy()
    loaded.ravel()[program.places] = result.x[-whole:] > 0.5
    value = patterns.gain(loaded)
    bound = patterns.base_price - program.scale * float(result.mip_dual_bound)
    return Integral(loaded, value, max(bound, value), time.perf_counter() - started)


def _fullest(instance: Instance, node: int, models: Int64[ndarray, "n"]) -> Iterator[Int64[ndarray, "k"]]:
    """Sets of models that fit on a node and leave no room for another."""
    room, sizes = instance.free_budgets[node] * (1 + _ROUNDING), instance.sizes[node, models]
    if len(models) > 14:
        raise ConfigError(
            f"{len(models)} models to choose from on node {instance.node_name(node)}", mend="Use integral_optimum."
        )
    for number in range(2 ** len(models)):
        chosen = (number >> np.arange(len(models))) % 2 == 1
        left = room - sizes[chosen].sum()
        if left >= 0 and not (sizes[~chosen] <= left).any():
            yield models[chosen]

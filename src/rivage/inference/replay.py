"""The loop of inference delivery: slots of requests meet what a policy has loaded, and meters are read.

The meters are those of Si Salem, Castellano, Neglia, Pianese, Araldo. Towards inference delivery networks. IEEE/ACM
Transactions on Networking 32(1), 2024: with G_t the gain of slot t and x_t what is loaded in it,

    NTAG = (1/T) Σ_t G_t/‖r_t‖₁                                    (normalised time-averaged gain)
    MU   = (1/T) Σ_t Σ_v Σ_m s_m^v max(0, x_{t,m}^v − x_{t−1,m}^v)   (model updates, size fetched per slot)

x_0 is what is pinned, so the first filling counts. Beside them stands what a user feels: latency, accuracy, the share
of requests answered within their deadline, and where they were answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.inference.gain import Slot, contend
from rivage.inference.instance import Instance
from rivage.inference.policy import DeliveryPolicy, Seen
from rivage.inference.regret import LinearRegret

__all__ = ["Delivered", "Meters", "deliver", "require_feasible"]

Matrix = Float64[ndarray, "nodes models"]
QUANTILES = (0.5, 0.95, 0.99)
_ROUNDING = 1e-9


@dataclass(slots=True, eq=False)
class Meters:
    """Sums over the slots so far.

    Args:
        instance: the network.
        slots: how many there were.
        cost: of all requests, C.
        base: the same with pinned models alone.
        fractional: gain of the fractions that the loaded models were drawn from; of the loaded ones without.
        normalized: Σ G/‖r‖₁ over slots with requests.
        moved: size of the models fetched.
        loads: their number.
        served: requests that each possibility served.
    """

    instance: Instance
    slots: int = 0
    cost: float = 0.0
    base: float = 0.0
    fractional: float = 0.0
    normalized: float = 0.0
    moved: float = 0.0
    loads: int = 0
    served: Float64[ndarray, "ranks"] = field(init=False)

    def __post_init__(self) -> None:
        self.served = np.zeros(len(self.instance.ranking))

    def read(self, seen: Seen, before: Bool[ndarray, "nodes models"], fractions: Matrix | None) -> None:
        """Add one slot; ``before`` is what was loaded in the slot before."""
        slot, fetched = seen.slot, seen.loaded & ~before
        cost, requests = float(seen.served @ self.instance.ranking.cost), float(slot.requests.sum())
        self.slots += 1
        self.cost += cost
        self.base += slot.base_cost
        self.fractional += slot.base_cost - cost if fractions is None else slot.gain(fractions)
        self.normalized += (slot.base_cost - cost) / requests if requests else 0.0
        self.moved += float(self.instance.sizes[fetched].sum())
        self.loads += int(fetched.sum())
        self.served += seen.served

    @property
    def requests(self) -> float:
        """Of all slots."""
        return float(self.served.sum())

    def point(self) -> dict[str, Any]:
        """The numbers as an event; means are None without requests."""
        ranking, requests = self.instance.ranking, self.requests
        mean = (lambda values: float(self.served @ values) / requests) if requests else (lambda values: None)
        return {
            "event": "point",
            "slots": self.slots,
            "requests": requests,
            "cost": self.cost,
            "base": self.base,
            "gain": self.base - self.cost,
            "fractional": self.fractional,
            "ntag": self.normalized / self.slots,
            "moved": self.moved,
            "loads": self.loads,
            "latency_ms": mean(ranking.latency_ms),
            "latency_quantiles_ms": _quantiles(ranking.latency_ms, self.served),
            "accuracy": mean(self.instance.accuracy[ranking.model]),
            "in_time": mean(self._in_time()),
            "by_node": np.bincount(ranking.node, self.served, minlength=len(self.instance.budgets)).tolist(),
        }

    def _in_time(self) -> Float64[ndarray, "ranks"]:
        ranking, deadlines = self.instance.ranking, self.instance.deadline_ms
        if deadlines is None:
            return np.ones(len(ranking))
        in_time: Float64[ndarray, "ranks"] = (ranking.latency_ms <= deadlines[ranking.type]).astype(np.float64)
        return in_time


@dataclass(frozen=True, slots=True)
class Delivered:
    """How a replay went.

    Args:
        points: one event per point, see `Meters.point`, with ``regret`` and ``bound`` of the policy, None without.
        seconds: spent in the policy.
        loaded: in the last slot.
        state: of the policy, at the end.
        slots: every slot with its capacities, where they were to be kept.
    """

    points: tuple[dict[str, Any], ...]
    seconds: float
    loaded: Bool[ndarray, "nodes models"]
    state: Any
    slots: tuple[Slot, ...] = ()

    @property
    def last(self) -> dict[str, Any]:
        """The point at the end."""
        return self.points[-1]


def deliver(
    policy: DeliveryPolicy,
    instance: Instance,
    batches: Iterable[Float64[ndarray, "types"]],
    *,
    streams: Streams,
    every: int = 1,
    keep: bool = False,
    observe: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Delivered:
    """Let a policy meet slots of requests; the only loop of inference delivery.

    Args:
        policy: decides.
        instance: the network.
        batches: requests of each type, slot by slot.
        streams: randomness of the policy.
        every: slots between points; the end is a point too.
        keep: whether to keep the slots with their capacities, O(slots · possibilities).
        observe: called with every event.

    Raises:
        ConfigError: when there is no slot, or a policy loads more than fits.
        DataError: for requests that cannot be served.
    """
    require(every, "every", least=1)
    slots = list(batches)
    if not slots:
        raise ConfigError("there is no slot of requests", mend="Give at least one.")
    started = time.perf_counter()
    state = policy.init(instance, streams, slots=len(slots))
    if hasattr(policy, "foresee"):
        policy.foresee(state, slots)
    spent, meters, before = time.perf_counter() - started, Meters(instance), instance.pinned
    regret = LinearRegret(instance) if hasattr(policy, "fractions") else None
    points, kept = list[dict[str, Any]](), list[Slot]()
    for number, requests in enumerate(slots, 1):
        started = time.perf_counter()
        loaded = policy.act(state)
        fractions, iterate = _fractions(policy, state)
        spent += time.perf_counter() - started
        require_feasible(instance, loaded)
        slot, served = contend(instance, requests, loaded)
        seen = Seen(slot, loaded, served)
        meters.read(seen, before, fractions)
        if regret is not None and fractions is not None and iterate is not None:
            regret.read(slot, iterate, fractions)
        started = time.perf_counter()
        state = policy.update(state, seen)
        spent += time.perf_counter() - started
        before = loaded
        if keep:
            kept.append(slot)
        if number % every == 0 or number == len(slots):
            points.append({**meters.point(), **_promised(policy, state, regret)})
            observe(points[-1])
    return Delivered(tuple(points), spent, before, state, tuple(kept))


def _fractions(policy: Any, state: Any) -> tuple[Matrix | None, Matrix | None]:
    """What the loaded models are drawn from, and where the next step starts; None for policies without fractions."""
    if not hasattr(policy, "fractions"):
        return None, None
    fractions = policy.fractions(state)
    return fractions, policy.iterate(state) if hasattr(policy, "iterate") else fractions


def _promised(policy: Any, state: Any, regret: LinearRegret | None) -> dict[str, float | None]:
    """The regret so far, and what the policy says it cannot exceed."""
    bound = policy.bound(state) if hasattr(policy, "bound") else None
    factor = float(policy.factor(state)) if hasattr(policy, "factor") else 1.0
    return {
        "regret": None if regret is None else regret.value(factor),
        "bound": None if bound is None else float(bound),
    }


def require_feasible(instance: Instance, loaded: Bool[ndarray, "nodes models"]) -> None:
    """Refuse an allocation that no node could hold: memory is not a matter of expectation.

    Raises:
        ConfigError: naming node and overflow.
    """
    if (loaded & ~instance.usable).any() or (instance.pinned & ~loaded).any():
        raise ConfigError("an unusable model is loaded, or a pinned one is not", mend="Load usable and pinned models.")
    held = np.where(loaded, instance.sizes, 0.0).sum(axis=1)
    over = np.flatnonzero(held > instance.budgets * (1 + _ROUNDING))
    if over.size:
        node = int(over[0])
        raise ConfigError(
            f"models of size {held[node]:g} on node {instance.node_name(node)}, budget {instance.budgets[node]:g}",
            mend="Round strictly.",
        )


def _quantiles(values: Float64[ndarray, "n"], weights: Float64[ndarray, "n"]) -> list[float | None]:
    """The least value below which at least each share of the weights lies."""
    total = float(weights.sum())
    if not total:
        return [None] * len(QUANTILES)
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    places = np.searchsorted(reached, np.array(QUANTILES) * total * (1 - _ROUNDING))
    return [float(values[order[min(place, len(order) - 1)]]) for place in places.tolist()]

"""What the silos of a network do in a round, and how long each message between two of them takes.

A round of a silo is s local steps of T_c each, then a model of M bits to every silo that waits for it (Marfoq, Xu,
Neglia, Vidal. Throughput-optimal topology design for cross-silo federated learning. NeurIPS 2020, arXiv 2010.12229):

    d(i, j) = s T_c(i) + l(i, j) + M / min(C_UP(i) / out-degree of i, C_DN(j) / in-degree of j, A(i, j)),
    d(i, i) = s T_c(i),

with l and A of a `rivage.graphs.Connectivity` and the degrees of the overlay in use. Access links are full duplex.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray
from numpy.typing import ArrayLike

from rivage.core.errors import ConfigError, RivageError, require
from rivage.core.settings import combine
from rivage.graphs.path_rules import Connectivity

__all__ = ["Silos"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Silos:
    """The silos, the network between them, and the work of a round. Times are in ms, sizes in bits.

    Args:
        connectivity: latency l and available bandwidth A of every ordered pair.
        model_bits: M, > 0, what one silo sends to another in a round.
        step_ms: T_c of each silo, the time of one local step, >= 0.
        access_up_bps: C_UP of each silo, > 0; inf where the access link is never the bottleneck.
        access_down_bps: C_DN likewise.
        local_steps: s, per round, >= 0.

    Raises:
        ConfigError: naming all that is wrong.

    Example:
        >>> from rivage.graphs import PathRule, Underlay, connectivity
        >>> line = Underlay.of(["a", "b", "c"], [("a", "b"), ("b", "c")], distance_km=[1000, 3000])
        >>> silos = Silos.of(connectivity(line, PathRule.published()), model_bits=1e6, step_ms=5, access_bps=1e8)
        >>> silos.delay_ms(np.array([[0, 1]]), sending=2).tolist()  # 5 + 12.5 + 2 · 10
        [37.5]
    """

    connectivity: Connectivity
    model_bits: float
    step_ms: Float64[ndarray, "silos"]
    access_up_bps: Float64[ndarray, "silos"]
    access_down_bps: Float64[ndarray, "silos"]
    local_steps: int = 1

    def __post_init__(self) -> None:
        require(self.model_bits, "model_bits", above=0)
        require(self.local_steps, "local_steps", least=0)
        problems: list[RivageError] = list(self._problems()) or list(self._endless())
        if problems:
            raise combine(problems, f'silos of "{self.connectivity.name}"')

    @classmethod
    def of(
        cls,
        connectivity: Connectivity,
        *,
        model_bits: float,
        step_ms: ArrayLike,
        access_bps: ArrayLike = np.inf,
        access_down_bps: ArrayLike | None = None,
        local_steps: int = 1,
    ) -> Silos:
        """Silos from plain numbers: one for all, or one each. Downlinks are as fast as uplinks unless given.

        Raises:
            ConfigError: naming all that is wrong.
        """
        silos = len(connectivity)
        return cls(
            connectivity=connectivity,
            model_bits=model_bits,
            step_ms=_spread(step_ms, silos),
            access_up_bps=_spread(access_bps, silos),
            access_down_bps=_spread(access_bps if access_down_bps is None else access_down_bps, silos),
            local_steps=local_steps,
        )

    def __len__(self) -> int:
        return len(self.connectivity)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the silos."""
        return self.connectivity.names

    @property
    def name(self) -> str:
        """Of the network."""
        return self.connectivity.name

    @property
    def work_ms(self) -> Float64[ndarray, "silos"]:
        """The delay of each silo's loop: s T_c."""
        return self.local_steps * self.step_ms

    def delay_ms(
        self,
        arcs: Int64[ndarray, "arcs 2"],
        *,
        sending: ArrayLike = 1,
        receiving: ArrayLike = 1,
    ) -> Float64[ndarray, "arcs"]:
        """d(i, j) of arcs between different silos.

        Args:
            arcs: senders and receivers.
            sending: to how many its sender sends at once, one number for all arcs or one each.
            receiving: from how many its receiver receives.
        """
        one, other = arcs.T
        inverse = np.maximum(sending / self.access_up_bps[one], receiving / self.access_down_bps[other])
        slowest = np.maximum(inverse, 1 / self._available[one, other])
        return np.asarray(
            self.work_ms[one] + self.connectivity.latency_ms[one, other] + 1000 * self.model_bits * slowest
        )

    def single_delays_ms(self, *, access: bool = True) -> Float64[ndarray, "silos silos"]:
        """d(i, j) of all pairs at degrees of 1, or without access links: none is faster. Loops on the diagonal."""
        pairs = np.stack(np.divmod(np.arange(len(self) ** 2), len(self)), axis=1)
        some = 1 if access else 0
        delays = self.delay_ms(pairs, sending=some, receiving=some).reshape(len(self), len(self))
        np.fill_diagonal(delays, self.work_ms)
        return delays

    def reordered(self, order: Int64[ndarray, "silos"]) -> Silos:
        """The same silos in another order, or some of them."""
        every, square = self.connectivity, np.ix_(order, order)
        return replace(
            self,
            connectivity=Connectivity(
                names=tuple(every.names[v] for v in order),
                latency_ms=every.latency_ms[square],
                available_bps=self._available[square],
                hops=None if every.hops is None else every.hops[square],
                name=every.name,
            ),
            step_ms=self.step_ms[order],
            access_up_bps=self.access_up_bps[order],
            access_down_bps=self.access_down_bps[order],
        )

    @property
    def _available(self) -> Float64[ndarray, "silos silos"]:
        available = self.connectivity.available_bps
        assert available is not None, "checked when made"
        return available

    def _problems(self) -> Iterator[ConfigError]:
        if self.connectivity.available_bps is None:
            mend = "Give the links capacities, the rule a core_bps, or a matrix of bandwidths."
            yield ConfigError("available_bps is not known", mend=mend)
        for field, need in (("step_ms", ">= 0"), ("access_up_bps", "> 0"), ("access_down_bps", "> 0")):
            values = getattr(self, field)
            if values.shape != (len(self),):
                mend = f"Give one number for each of the {len(self)} silos."
                yield ConfigError(f"{field} has shape {values.shape}", mend=mend)
                continue
            good = (values >= 0) & (values < np.inf) if field == "step_ms" else values > 0
            if not good.all():
                worst = int(np.argmin(good))
                yield ConfigError(f'{field} of "{self.names[worst]}" is {values[worst]}', mend=f"Give a number {need}.")

    def _endless(self) -> Iterator[ConfigError]:
        """Delays too long for a number, with all silos at each other's access links."""
        rates = (self.access_up_bps.min(), self.access_down_bps.min())
        with np.errstate(over="ignore"):
            longest = 1000 * self.model_bits * max(len(self) / min(rates), float((1 / self._available).max()))
        if not np.isfinite(longest):
            mend = "Give bits, bits per second and milliseconds."
            yield ConfigError(f"a model of {self.model_bits:g} bits takes for ever to send", mend=mend)


def _spread(value: ArrayLike, length: int) -> Float64[ndarray, "length"]:
    array = np.asarray(value, np.float64)
    return np.full(length, array) if array.ndim == 0 else array

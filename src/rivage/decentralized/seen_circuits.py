"""Short circuits, found by putting silos in and leaving silos out: what a bound for a silo cannot exceed."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

__all__ = ["SeenCircuits", "improved"]

_TIE = 1e-12  # relative: means that differ by rounding only
_TRIED = 60  # circuits into which a silo is put


class SeenCircuits:
    """Circuits that were seen, and the least of their means for each silo: no bound for it can be larger."""

    def __init__(self, delays: Float64[ndarray, "silos silos"]) -> None:
        self.delays = delays
        self.means, self.circuits = np.full(len(delays), np.inf), list[list[int]]()
        for silo in range(len(delays)) if len(delays) > 1 else ():
            self.note(*improved(delays, [silo]))

    def note(self, circuit: list[int], mean: float) -> None:
        """Keep a circuit, if it is the best for one of its silos."""
        better = mean < self.means[circuit]
        if better.any():
            self.means[circuit] = np.minimum(self.means[circuit], mean)
            self.circuits.append(circuit)

    def through(self, silo: int) -> float:
        """The least mean through a silo, after it was put into all circuits, which then leave out what slows them."""
        for circuit in self.circuits[-_TRIED:]:
            if silo in circuit:
                place = circuit.index(silo)
                self.note(*improved(self.delays, circuit[place:] + circuit[:place]))
            else:
                more = self.delays[circuit, silo] + self.delays[silo, np.roll(circuit, -1)]
                place = int(np.argmin(more - self.delays[circuit, np.roll(circuit, -1)])) + 1
                self.note(*improved(self.delays, [silo, *circuit[place:], *circuit[:place]]))
        return float(self.means[silo])


def improved(delays: Float64[ndarray, "silos silos"], circuit: list[int]) -> tuple[list[int], float]:
    """A circuit through the first silo of another one: silos are put in or left out while the mean falls; and its mean.

    A single silo is no circuit: another one is put in first.
    """
    circuit, mean = list(circuit), np.inf
    while True:
        silos = np.array(circuit)
        along = delays[silos, np.roll(silos, -1)] if len(silos) > 1 else np.zeros(1)
        mean = float(along.mean()) if len(silos) > 1 else np.inf
        place, node, longer = _put_in(delays, silos, along)
        out, shorter = _left_out(delays, silos, along)
        if min(longer, shorter) >= mean * (1 - _TIE):
            return circuit, mean
        if longer < shorter:
            circuit.insert(place + 1, node)
        else:
            del circuit[out]


def _put_in(delays: ndarray, silos: ndarray, along: ndarray) -> tuple[int, int, float]:
    """After which place to put which silo, and the mean then."""
    more = delays[silos] + delays[:, np.roll(silos, -1)].T - along[:, None]
    more[:, silos] = np.inf
    place, node = divmod(int(np.argmin(more)), len(delays))
    return place, node, float(along.sum() + more[place, node]) / (len(silos) + 1)


def _left_out(delays: ndarray, silos: ndarray, along: ndarray) -> tuple[int, float]:
    """Which place but the first to leave out, and the mean then."""
    if len(silos) < 3:
        return 0, np.inf
    before = np.roll(along, 1)
    saved = before + along - delays[np.roll(silos, 1), np.roll(silos, -1)]
    out = 1 + int(np.argmax(saved[1:]))
    return out, float(along.sum() - saved[out]) / (len(silos) - 1)

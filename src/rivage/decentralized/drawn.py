"""MATCHA: a new overlay in every round, drawn from the matchings of a base graph.

Reference: Wang, Sahu, Yang, Joshi, Kar. MATCHA: speeding up decentralized SGD via matching decomposition sampling. ICC
2019, arXiv 1905.09435; as a contender in Marfoq et al., NeurIPS 2020, arXiv 2010.12229.

1. Split the base graph into matchings by a proper colouring (`rivage.graphs.matchings`).
2. Use matching j with probability p_j, independently, where p maximises the connectivity of the mean graph under a
   budget C_b of the matchings (`rivage.decentralized.activation`).
3. A round in which none is used is drawn again, as in the public code; `Matcha.mean_square` is that of the law so
   conditioned, `Matcha.contraction` the ρ of the plain law, which α minimises.
4. All wait for the slowest link in use, both ways, with the degrees of the links in use: that is a round's time, as
   published. The cycle time is its mean: exact where no degree matters, else over so many drawn rounds.

MATCHA draws from all pairs of silos, MATCHA+ from the links of the underlay. The published code runs 1,000 rounds and
divides by 999; here by their number. Where degrees do not matter, with D_j = max of d over matching j, descending,

    E = Σ_j D_j p_j Π_{l<j} (1 − p_l) / (1 − Π_l (1 − p_l)).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.decentralized.activation import activation, laplacians, mean_square, step_size
from rivage.decentralized.designs import Design
from rivage.decentralized.overlays import Overlay
from rivage.decentralized.silos import Silos
from rivage.graphs.matchings import matchings

__all__ = ["Matcha", "matcha", "matcha_law"]

_SAME = 1e-12  # relative: delays that do not depend on degrees


@dataclass(frozen=True, kw_only=True, eq=False)
class Matcha:
    """A law of overlays.

    Args:
        silos: the nodes.
        classes: the matchings, each a set of links.
        probabilities: p_j that each is used in a round, independently, but for rounds without any.
        alpha: W = I − α L of the links in use.
        contraction: ρ = ‖E W² − J‖₂ of the plain law.
        bound: what no other probabilities could exceed as connectivity of the mean graph (`activation`).
    """

    silos: Silos
    classes: list[Int64[ndarray, "links 2"]]
    probabilities: Float64[ndarray, "matchings"]
    alpha: float
    contraction: float
    bound: float

    def draw(self, rounds: int, rng: np.random.Generator) -> Bool[ndarray, "rounds matchings"]:
        """Which matchings are used in each round: at least one."""
        used = rng.random((rounds, len(self.classes))) < self.probabilities
        while (empty := ~used.any(axis=1)).any():
            used[empty] = rng.random((int(empty.sum()), len(self.classes))) < self.probabilities
        return used

    def links(self, used: Bool[ndarray, "matchings"]) -> Int64[ndarray, "links 2"]:
        """The links of the matchings in use."""
        return np.concatenate([edges for edges, on in zip(self.classes, used, strict=True) if on])

    def mixing(self, used: Bool[ndarray, "matchings"]) -> Float64[ndarray, "silos silos"]:
        """W of a round."""
        stack = laplacians(len(self.silos), self.classes)
        return np.asarray(np.eye(len(self.silos)) - self.alpha * stack[np.asarray(used)].sum(axis=0))

    def mean_square(self) -> Float64[ndarray, "silos silos"]:
        """E W² of rounds in which something is used."""
        plain = mean_square(laplacians(len(self.silos), self.classes), self.probabilities, self.alpha)
        none = float(np.prod(1 - self.probabilities))
        return np.asarray((plain - none * np.eye(len(plain))) / (1 - none))

    def round_ms(self, used: Bool[ndarray, "matchings"]) -> float:
        """Time of a round: its slowest link, in its slower direction."""
        return float(self._delays(self.links(used)).max())

    def expected_ms(self) -> float | None:
        """The mean time of a round, exactly; None where the delays depend on which links are in use."""
        alone = [self._delays(edges) for edges in self.classes]
        every = self._delays(np.concatenate(self.classes))
        if not np.allclose(np.concatenate(alone), every, rtol=_SAME, atol=0):
            return None
        slowest = np.array([delays.max() for delays in alone])
        order = np.argsort(-slowest)
        none = np.cumprod(np.append(1.0, 1 - self.probabilities[order]))
        return float((slowest * self.probabilities)[order] @ none[:-1] / (1 - none[-1]))

    def _delays(self, links: Int64[ndarray, "links 2"]) -> Float64[ndarray, "links"]:
        """The slower direction of each, all in use at once."""
        degrees = np.bincount(links.ravel(), minlength=len(self.silos))
        ways = [
            self.silos.delay_ms(arcs, sending=degrees[arcs[:, 0]], receiving=degrees[arcs[:, 1]])
            for arcs in (links, links[:, ::-1])
        ]
        return np.asarray(np.maximum(*ways))


def matcha_law(silos: Silos, links: Iterable[Sequence[int]] | None = None, *, budget: float = 0.5) -> Matcha:
    """The law of MATCHA for a base graph.

    Args:
        silos: at least two.
        links: of the base graph, as positions; all pairs by default. With those of the underlay it is MATCHA+.
        budget: C_b in (0, 1]: the share of the matchings that a round uses on average.

    Raises:
        ConfigError: for a single silo, budgets out of range, or a base graph that is not connected.
    """
    if len(silos) < 2:
        raise ConfigError("MATCHA for a single silo", mend="Give at least two.")
    pairs = combinations(range(len(silos)), 2) if links is None else links
    rank = np.argsort(sorted(range(len(silos)), key=silos.names.__getitem__))
    edges = np.array([sorted(pair, key=rank.__getitem__) for pair in pairs], np.int64).reshape(-1, 2)
    edges = edges[np.lexsort(rank[edges].T[::-1])]  # by name: the order of a file changes nothing
    classes = matchings(len(silos), rank[edges])
    names = np.argsort(rank)
    stack = laplacians(len(silos), classes)
    found = activation(stack, budget)
    alpha, contraction = step_size(stack, found.probabilities)
    return Matcha(
        silos=silos,
        classes=[names[edges] for edges in classes],
        probabilities=found.probabilities,
        alpha=alpha,
        contraction=contraction,
        bound=found.bound,
    )


def matcha(
    silos: Silos,
    links: Iterable[Sequence[int]] | None = None,
    *,
    budget: float = 0.5,
    rounds: int = 1_000,
    seed: int = 0,
    name: str = "matcha",
) -> Design:
    """MATCHA, or with the links of the underlay MATCHA+, and its mean time of a round.

    Args:
        silos: at least two.
        links: of the base graph; all pairs by default.
        budget: C_b.
        rounds: to draw where the mean time has no closed form, >= 2.
        seed: of the draws.
        name: of the design.

    Raises:
        ConfigError: as `matcha_law`.
    """
    require(rounds, "rounds", least=2)
    law = matcha_law(silos, links, budget=budget)
    overlay = Overlay.links(silos, np.concatenate(law.classes).tolist(), name)
    exact = law.expected_ms()
    times = np.zeros(rounds)
    if exact is None:
        times[:] = [law.round_ms(used) for used in law.draw(rounds, Streams(seed).numpy("matcha"))]
    return Design(
        name=name,
        cycle_time_ms=float(times.mean()) if exact is None else exact,
        overlay=overlay,
        critical_circuit=(),
        spectral_gap=1 - float(np.sqrt(law.contraction)),
        max_degree=overlay.max_degree,
        error_ms=float(times.std(ddof=1) / np.sqrt(rounds)),
    )

"""The designers of overlays that a study can name, with their settings.

A plug-in registers its own under the entry-point group of `DESIGNERS`: a frozen dataclass of settings with a method
`Designer.design`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from rivage.core.errors import ConfigError, require, require_one_of
from rivage.core.registry import Registry
from rivage.decentralized import classical
from rivage.decentralized.designs import Design, design_of
from rivage.decentralized.directed_search import DirectedSearch, Watch
from rivage.decentralized.drawn import matcha
from rivage.decentralized.overlays import Overlay
from rivage.decentralized.silos import Silos

__all__ = [
    "DESIGNERS",
    "DeltaMbst",
    "Designer",
    "Directed",
    "Given",
    "Links",
    "MatchaDraws",
    "Mst",
    "Ring",
    "Searcher",
    "Star",
    "named",
]

DESIGNERS = Registry(
    "rivage.overlays",
    "overlay",
    {
        "delta_mbst": "rivage.decentralized.designers:DeltaMbst",
        "directed": "rivage.decentralized.designers:Directed",
        "family": "rivage.decentralized.family_designers:Family",
        "given": "rivage.decentralized.designers:Given",
        "matcha": "rivage.decentralized.designers:MatchaDraws",
        "mst": "rivage.decentralized.designers:Mst",
        "ring": "rivage.decentralized.designers:Ring",
        "sequence": "rivage.decentralized.family_designers:Sequence",
        "star": "rivage.decentralized.designers:Star",
    },
)
"""Kind -> settings that design an overlay."""

Links = list[tuple[int, int]]
"""Pairs of silos with a link of the underlay between them."""

_OPTIMAL = 1e-6  # relative: bounds are rounded down
_WORK = 50_000_000  # steps of a search times silos: about a minute of one core from 10 silos to 90

MARFOQ = {
    "key": "marfoq20",
    "authors": "Othmane Marfoq and Chuan Xu and Giovanni Neglia and Richard Vidal",
    "title": "Throughput-Optimal Topology Design for Cross-Silo Federated Learning",
    "venue": "Advances in Neural Information Processing Systems",
    "year": 2020,
    "arxiv": "2010.12229",
}
WANG = {
    "key": "wang19",
    "authors": "Jianyu Wang and Anit Kumar Sahu and Zhouyi Yang and Gauri Joshi and Soummya Kar",
    "title": "MATCHA: Speeding Up Decentralized SGD via Matching Decomposition Sampling",
    "venue": "Indian Control Conference",
    "year": 2019,
    "arxiv": "1905.09435",
}


class Designer(Protocol):
    """Settings that make an overlay for silos."""

    def require(self, silos: Silos, links: Links | None = None) -> None:
        """Refuse silos that the settings do not fit, before any work is done.

        Raises:
            ConfigError: for names that are not among the silos, for one.
        """
        ...

    def design(self, silos: Silos, links: Links | None = None, *, seed: int = 0, least_ms: float = 0.0) -> Design:
        """The overlay and what it is worth.

        Args:
            silos: the network and the work.
            links: of the underlay; None where it is not known.
            seed: of whatever is drawn.
            least_ms: a bound below which no cycle time lies, at which a search may stop.
        """
        ...


@runtime_checkable
class Searcher(Designer, Protocol):
    """A designer that takes long, and can tell how far it is."""

    def search(
        self,
        silos: Silos,
        links: Links | None = None,
        *,
        seed: int = 0,
        least_ms: float = 0.0,
        watch: Watch | None = None,
    ) -> Design:
        """The same as `Designer.design`; ``watch`` is told now and then how far it is."""
        ...


class _AnySilos:
    """Settings that fit all silos."""

    __slots__ = ()

    def require(self, silos: Silos, links: Links | None = None) -> None:
        """Nothing to refuse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Star:
    """FedAvg with one silo's machine as server.

    Args:
        hub: ``"best"``: least cycle time; ``"closeness"``: least sum of latencies; ``"first"`` of the file, as in the
            published tables; or the name of a silo.
    """

    reference: ClassVar[Mapping[str, Any]] = {**MARFOQ, "part": "Section 3"}
    hub: str = "best"

    def require(self, silos: Silos, links: Links | None = None) -> None:
        """Refuse unknown hubs."""
        classical.hub_of(silos, self.hub)

    def design(self, silos: Silos, links: Links | None = None, *, seed: int = 0, least_ms: float = 0.0) -> Design:
        """See `rivage.decentralized.classical.star`."""
        return classical.star(silos, self.hub)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mst(_AnySilos):
    """The lightest spanning tree, both ways."""

    reference: ClassVar[Mapping[str, Any]] = {**MARFOQ, "part": "Section 3"}

    def design(self, silos: Silos, links: Links | None = None, *, seed: int = 0, least_ms: float = 0.0) -> Design:
        """See `rivage.decentralized.classical.mst`."""
        return classical.mst(silos)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaMbst(_AnySilos):
    """The fastest of trees of bounded degree and of Hamiltonian paths."""

    reference: ClassVar[Mapping[str, Any]] = {**MARFOQ, "part": "Algorithm 1"}

    def design(self, silos: Silos, links: Links | None = None, *, seed: int = 0, least_ms: float = 0.0) -> Design:
        """See `rivage.decentralized.classical.delta_mbst`."""
        return classical.delta_mbst(silos)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring(_AnySilos):
    """Christofides' ring in its faster direction.

    Args:
        improve: by 2-opt and Or-opt.
    """

    reference: ClassVar[Mapping[str, Any]] = {**MARFOQ, "part": "Section 3"}
    improve: bool = True

    def design(self, silos: Silos, links: Links | None = None, *, seed: int = 0, least_ms: float = 0.0) -> Design:
        """See `rivage.decentralized.classical.ring`."""
        return classical.ring_2opt(silos) if self.improve else classical.ring(silos)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchaDraws:
    """MATCHA: another overlay in every round, drawn from the matchings of a base graph.

    Args:
        base: ``"all"`` pairs of silos, or the ``"links"`` of the underlay: MATCHA+.
        budget: share of the matchings that a round uses on average, in (0, 1].
        rounds: to draw where the mean time of a round has no closed form, >= 2.
    """

    reference: ClassVar[Mapping[str, Any]] = WANG
    base: Literal["all", "links"] = "all"
    budget: float = 0.5
    rounds: int = 1_000

    def __post_init__(self) -> None:
        require_one_of(self.base, "base", ("all", "links"))
        require(self.rounds, "rounds", least=2)
        if not 0 < self.budget <= 1:
            raise ConfigError(f"budget is {self.budget}", mend="Give a share above 0, of at most 1.")

    def require(self, silos: Silos, links: Links | None = None) -> None:
        """Refuse a single silo, and MATCHA+ without links."""
        if len(silos) < 2:
            raise ConfigError("there is a single silo, and nothing to draw from", mend="Leave this overlay out.")
        if self.base == "links" and links is None:
            raise ConfigError('base is "links", but the links of the network are not known', mend='Use base = "all".')

    def design(self, silos: Silos, links: Links | None = None, *, seed: int = 0, least_ms: float = 0.0) -> Design:
        """See `rivage.decentralized.drawn.matcha`."""
        self.require(silos, links)
        base = links if self.base == "links" else None
        return matcha(silos, base, budget=self.budget, rounds=self.rounds, seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Directed(_AnySilos):
    """The best directed overlay that a local search finds.

    Args:
        seconds: when to stop, > 0.
        steps: after how many steps to stop, >= 1; ``"auto"``: as many as take about a minute.
        arcs: ``"few"``: every arc is needed; ``"free"``: also all that cost no time, which mix faster.
    """

    reference: ClassVar[Mapping[str, Any]] = {**MARFOQ, "part": "the problem MCT; the search is ours"}
    seconds: float = 70.0
    steps: int | None = field(default=None, metadata={"none": "auto"})
    arcs: Literal["few", "free"] = "few"

    def __post_init__(self) -> None:
        DirectedSearch(seconds=self.seconds, steps=self.steps, arcs=self.arcs)

    def design(self, silos: Silos, links: Links | None = None, *, seed: int = 0, least_ms: float = 0.0) -> Design:
        """See `rivage.decentralized.directed_search`."""
        return self.search(silos, links, seed=seed, least_ms=least_ms)

    def search(
        self,
        silos: Silos,
        links: Links | None = None,
        *,
        seed: int = 0,
        least_ms: float = 0.0,
        watch: Watch | None = None,
    ) -> Design:
        """`design`, while ``watch`` is told how far it is."""
        steps = _auto_steps(len(silos)) if self.steps is None else self.steps
        target = least_ms * (1 + _OPTIMAL)
        search = DirectedSearch(seconds=self.seconds, steps=steps, seed=seed, target_ms=target, arcs=self.arcs)
        return search.design(silos, watch).design


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An overlay of one's own.

    Args:
        arcs: pairs of names, from and to.
        both: whether each is there in both directions.
    """

    arcs: tuple[tuple[str, str], ...]
    both: bool = False

    def require(self, silos: Silos, links: Links | None = None) -> None:
        """Refuse unknown names, and arcs that do not make the silos strongly connected."""
        self._overlay(silos)

    def design(self, silos: Silos, links: Links | None = None, *, seed: int = 0, least_ms: float = 0.0) -> Design:
        """What it is worth."""
        return design_of(self._overlay(silos))

    def _overlay(self, silos: Silos) -> Overlay:
        back = [(other, one) for one, other in self.arcs] if self.both else []
        return Overlay.named(silos, [*self.arcs, *back], "given")


def _auto_steps(silos: int) -> int:
    """About a minute's, but no more than there are sets of arcs."""
    most = _WORK // silos
    return most if silos > 6 else min(most, 2 ** (silos * (silos - 1)))


def named(design: Design, name: str) -> Design:
    """The same under the name it has in a study."""
    return replace(design, name=name, overlay=replace(design.overlay, name=name))

"""From the overlay of a method to its plan: the weights that it needs, or why it cannot train over this overlay.

=========== ================================ =======================================================
needs       what W must be                   overlays
=========== ================================ =======================================================
symmetric   one symmetric W for all rounds   whose arcs go both ways; stars
doubly      rows and columns sum to 1        all; uneven directed ones get `balanced` weights
column      columns sum to 1                 all
=========== ================================ =======================================================
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from rivage.core.errors import ConfigError
from rivage.decentralized.designers import Links, MatchaDraws
from rivage.decentralized.drawn import matcha_law
from rivage.decentralized.gossip import GossipAlgorithm
from rivage.decentralized.mixing_plan import Drawn, Exact, MixingPlan, Weighting, fixed
from rivage.decentralized.overlays import Overlay

__all__ = ["Planned", "plan_of"]


@runtime_checkable
class Planned(Protocol):
    """A designer of overlays that differ from round to round, with a plan of its own."""

    def plan(self, silos: int) -> MixingPlan:
        """Doubly stochastic weights for so many silos."""
        ...


def plan_of(
    algorithm: GossipAlgorithm,
    overlay: Overlay,
    hub: int | None = None,
    *,
    links: Links | None = None,
    seed: int = 0,
) -> MixingPlan:
    """The plan of a method over what its designer made.

    Args:
        algorithm: with the settings of its overlay.
        overlay: the arcs that are ever in use.
        hub: of a star.
        links: of the underlay, where it is known.
        seed: of overlays that are drawn.

    Raises:
        ConfigError: when the method cannot train over such an overlay.
    """
    designer = algorithm.overlay
    if hub is not None:
        return Exact(silos=len(overlay), hub=hub)
    if isinstance(designer, MatchaDraws):
        _require_constant(algorithm, overlay)
        base = links if designer.base == "links" else None
        return Drawn(law=matcha_law(overlay.silos, base, budget=designer.budget), seed=seed)
    if isinstance(designer, Planned):
        _require_constant(algorithm, overlay)
        return designer.plan(len(overlay))
    if algorithm.needs == "symmetric" and not overlay.is_undirected:
        raise ConfigError(
            "silos send to others from which they receive nothing, and this method needs symmetric weights",
            where=f'overlay "{overlay.name}"',
            mend="Use an overlay whose arcs go both ways (mst, delta_mbst, star), or another method.",
        )
    weighting: Weighting = getattr(algorithm, "mixing", "metropolis")
    return fixed(overlay, column=algorithm.needs == "column", weighting=weighting)


def _require_constant(algorithm: GossipAlgorithm, overlay: Overlay) -> None:
    if algorithm.needs == "symmetric":
        raise ConfigError(
            "the overlay changes from round to round, and this method needs one that stays",
            where=f'overlay "{overlay.name}"',
            mend="Use one that stays (mst, delta_mbst, star), or another method.",
        )

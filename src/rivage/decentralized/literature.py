"""The overlays of the literature beside one another, on one network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rivage.decentralized.classical import delta_mbst, mst, ring, ring_2opt, star
from rivage.decentralized.designs import Design
from rivage.decentralized.drawn import matcha
from rivage.decentralized.silos import Silos

__all__ = ["contenders"]


def contenders(silos: Silos, links: Iterable[Sequence[int]] | None = None, *, seed: int = 0) -> dict[str, Design]:
    """STAR at the published and at the best hub, MST, δ-MBST, RING with and without local search, MATCHA, MATCHA+.

    Args:
        silos: the network and the work.
        links: of the underlay, as positions among the silos; without them there is no MATCHA+.
        seed: of MATCHA's rounds.

    Returns:
        Designs by name, in the order above. A single silo has no MATCHA.
    """
    designs = {
        "star": star(silos, "first"),
        "star_best": star(silos, "best"),
        "mst": mst(silos),
        "delta_mbst": delta_mbst(silos),
        "ring": ring(silos),
        "ring_2opt": ring_2opt(silos),
    }
    if len(silos) > 1:
        designs["matcha"] = matcha(silos, seed=seed)
        if links is not None:
            designs["matcha_plus"] = matcha(silos, links, seed=seed, name="matcha_plus")
    return designs

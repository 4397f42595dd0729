"""Training without a server: overlays over a network, and how long their rounds take.

Names are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivage.decentralized.classical import delta_mbst, mst, ring, ring_2opt, star
    from rivage.decentralized.cycle_time import critical_cycle, cycle_time_ms, start_times_ms
    from rivage.decentralized.designs import Design, design_of, mixing_of
    from rivage.decentralized.drawn import Matcha, matcha, matcha_law
    from rivage.decentralized.literature import contenders
    from rivage.decentralized.overlays import Overlay
    from rivage.decentralized.silos import Silos

_HOMES = {
    "Design": "designs",
    "Matcha": "drawn",
    "Overlay": "overlays",
    "Silos": "silos",
    "contenders": "literature",
    "critical_cycle": "cycle_time",
    "cycle_time_ms": "cycle_time",
    "delta_mbst": "classical",
    "design_of": "designs",
    "matcha": "drawn",
    "matcha_law": "drawn",
    "mixing_of": "designs",
    "mst": "classical",
    "ring": "classical",
    "ring_2opt": "classical",
    "star": "classical",
    "start_times_ms": "cycle_time",
}

__all__ = [
    "Design",
    "Matcha",
    "Overlay",
    "Silos",
    "contenders",
    "critical_cycle",
    "cycle_time_ms",
    "delta_mbst",
    "design_of",
    "matcha",
    "matcha_law",
    "mixing_of",
    "mst",
    "ring",
    "ring_2opt",
    "star",
    "start_times_ms",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

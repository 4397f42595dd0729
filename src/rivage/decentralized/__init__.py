"""Training without a server: overlays over a network, how long their rounds take, and the methods that train over them.

Names are loaded on first use; what designs overlays needs no PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivage.decentralized.classical import delta_mbst, mst, ring, ring_2opt, star
    from rivage.decentralized.clock import Clock, Replay
    from rivage.decentralized.cycle_time import critical_cycle, cycle_time_ms, start_times_ms
    from rivage.decentralized.degree_advice import Advice, advise_degree
    from rivage.decentralized.designers import DESIGNERS
    from rivage.decentralized.designs import Design, design_of, mixing_of
    from rivage.decentralized.dfedem import DFedEM
    from rivage.decentralized.directed_search import DirectedSearch
    from rivage.decentralized.dpsgd import DPASGD, DPSGD
    from rivage.decentralized.drawn import Matcha, matcha, matcha_law
    from rivage.decentralized.exact_diffusion import ExactDiffusion
    from rivage.decentralized.fair_sharing import fair_cycle_time_ms
    from rivage.decentralized.gossip import GossipAlgorithm
    from rivage.decentralized.gradient_tracking import GradientTracking, PushDIGing
    from rivage.decentralized.literature import contenders
    from rivage.decentralized.lower_bounds import LowerBound, lower_bound
    from rivage.decentralized.mixing_plan import MixingPlan
    from rivage.decentralized.overlays import Overlay
    from rivage.decentralized.planning import plan_of
    from rivage.decentralized.probing import forecasts, probe
    from rivage.decentralized.push_sum import PushSum
    from rivage.decentralized.session import SiloSession
    from rivage.decentralized.silo_settings import SiloSettings
    from rivage.decentralized.silo_trial import SiloTrial
    from rivage.decentralized.silos import Silos
    from rivage.decentralized.stragglers import design_times, iteration_times, overlay_times
    from rivage.decentralized.waiting import Server, Waits

_HOMES = {
    "Advice": "degree_advice",
    "Clock": "clock",
    "DESIGNERS": "designers",
    "DPASGD": "dpsgd",
    "DPSGD": "dpsgd",
    "DFedEM": "dfedem",
    "Design": "designs",
    "DirectedSearch": "directed_search",
    "ExactDiffusion": "exact_diffusion",
    "GossipAlgorithm": "gossip",
    "GradientTracking": "gradient_tracking",
    "LowerBound": "lower_bounds",
    "Matcha": "drawn",
    "MixingPlan": "mixing_plan",
    "Overlay": "overlays",
    "PushDIGing": "gradient_tracking",
    "PushSum": "push_sum",
    "Replay": "clock",
    "Server": "waiting",
    "SiloSession": "session",
    "SiloSettings": "silo_settings",
    "SiloTrial": "silo_trial",
    "Silos": "silos",
    "Waits": "waiting",
    "advise_degree": "degree_advice",
    "contenders": "literature",
    "critical_cycle": "cycle_time",
    "cycle_time_ms": "cycle_time",
    "delta_mbst": "classical",
    "design_of": "designs",
    "design_times": "stragglers",
    "fair_cycle_time_ms": "fair_sharing",
    "forecasts": "probing",
    "iteration_times": "stragglers",
    "lower_bound": "lower_bounds",
    "matcha": "drawn",
    "matcha_law": "drawn",
    "mixing_of": "designs",
    "mst": "classical",
    "overlay_times": "stragglers",
    "plan_of": "planning",
    "probe": "probing",
    "ring": "classical",
    "ring_2opt": "classical",
    "star": "classical",
    "start_times_ms": "cycle_time",
}

__all__ = [
    "DESIGNERS",
    "DPASGD",
    "DPSGD",
    "Advice",
    "Clock",
    "DFedEM",
    "Design",
    "DirectedSearch",
    "ExactDiffusion",
    "GossipAlgorithm",
    "GradientTracking",
    "LowerBound",
    "Matcha",
    "MixingPlan",
    "Overlay",
    "PushDIGing",
    "PushSum",
    "Replay",
    "Server",
    "SiloSession",
    "SiloSettings",
    "SiloTrial",
    "Silos",
    "Waits",
    "advise_degree",
    "contenders",
    "critical_cycle",
    "cycle_time_ms",
    "delta_mbst",
    "design_of",
    "design_times",
    "fair_cycle_time_ms",
    "forecasts",
    "iteration_times",
    "lower_bound",
    "matcha",
    "matcha_law",
    "mixing_of",
    "mst",
    "overlay_times",
    "plan_of",
    "probe",
    "ring",
    "ring_2opt",
    "star",
    "start_times_ms",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

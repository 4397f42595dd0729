"""The networks and demands on which policies of inference delivery are compared, and how each policy may be tuned.

All of it was written down before the first comparison ran, see docs/explanation/delivery-compared.md. Networks, demands
and settings that turned out to be missing are not added here; what was tried afterwards is marked so on that page.

Twenty kinds of objects are asked for, each with a detector in five sizes (catalog ``yolov4-coco``). Slots last a
minute, there are 240 of them. A *cell* is a network with a profile of popularity; `scene` draws who asks for what, and
the requests, from a seed.

============ ==================================================================================== ====================
network      nodes and memory                                                                     load
============ ==================================================================================== ====================
topology I   24 base stations of 150 MB and 4 offices of 500 MB (gtx), 2 data centres of 1000 MB   7500 requests/s,
             (titan), cloud; α = 1: the size and load that are remembered of the publication       10 tasks per station
tree         12 edges of 270 MB (gtx), 3 offices of 520 MB (titan), cloud, round trips 10 and 60   600 requests/s,
             ms; α = 2: one large detector or eleven small ones, for fifteen tasks                 15 tasks per edge
GÉANT        39 nodes of 300 MB (gtx), all detectors in Germany (v100), 0.0085 ms per km and 4 ms  1560 requests/s,
             per link; α = 1.5                                                                     6 tasks per node
============ ==================================================================================== ====================

A small detector on a gtx answers 111 requests per second, a large one 19 to 37: a station of Topology I is asked 312
times per second and is short of both. On the others popular tasks are too much for one large detector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import get_args

from jaxtyping import Float64
from numpy import ndarray

from rivage.core.seeding import Streams
from rivage.data.files import Publication
from rivage.graphs.path_rules import latency_from_distance
from rivage.graphs.tiered import tiers, topology_one
from rivage.graphs.underlay import Underlay
from rivage.graphs.underlay_files import load_underlay
from rivage.inference.catalog import load_catalog
from rivage.inference.demand import Popularity, Profile
from rivage.inference.greedy import StaticGreedy
from rivage.inference.infida import INFIDA
from rivage.inference.infida_offline import INFIDAOffline
from rivage.inference.instance import Instance
from rivage.inference.model_caches import ModelCaches
from rivage.inference.olag import OLAG
from rivage.inference.policy import DeliveryPolicy
from rivage.inference.rolling import RollingPlan
from rivage.inference.scene import Asked, Site, build_instance
from rivage.inference.simple import Anchor

__all__ = [
    "CANDIDATES",
    "FORESIGHT",
    "IN_PRACTICE",
    "NETWORKS",
    "PROFILES",
    "SLOTS",
    "TEST_SEEDS",
    "TUNING_SEEDS",
    "Scene",
    "Setting",
    "scene",
]

SLOTS = 240
TASKS = 20
TUNING_SEEDS = (1000, 1001)
TEST_SEEDS = tuple(range(12))
NETWORKS = ("topology I", "tree", "GÉANT")
PROFILES: tuple[Profile, ...] = get_args(Profile)
_PERIODS: Mapping[Profile, int] = {"fixed": 60, "sliding": 60, "bursty": 30, "reversing": 20}

GEANT = Publication(
    kind="geant",
    folder="underlays",
    origin="https://github.com/omarfoq/communication-in-cross-silo-fl (graph_utils/data, Apache-2.0)",
    hashes={"geantdistance.gml": "51fa3a65a900a7397992ce64dbf28f47a6e3e7ae4bc67ea4539050ad9d2785e1"},
)

CANDIDATES: Mapping[str, tuple[DeliveryPolicy, ...]] = {
    "INFIDA": tuple(INFIDA(scale=scale) for scale in (0.3, 1.0, 3.0, 10.0)),
    "OLAG": tuple(OLAG(memory=memory) for memory in (0.0, 0.5, 0.8, 0.95)),
    "rolling plan": (
        RollingPlan(period=5, window=5),
        RollingPlan(period=10, window=10),
        RollingPlan(period=5, window=5, program="pooled"),
        RollingPlan(period=10, window=30, program="pooled"),
    ),
    "model caches": (
        ModelCaches(rule="lru", most=2000),
        ModelCaches(rule="lru", fetch="first", most=2000),
        ModelCaches(rule="lfu", most=2000),
        ModelCaches(rule="gds", most=2000),
    ),
    "simple rules": (
        Anchor(rule="all_device"),
        Anchor(rule="nearest_edge"),
        Anchor(rule="best_accuracy"),
        Anchor(rule="smallest"),
    ),
}
"""Policies that see a slot when it is over, with four settings each; the default of INFIDA and OLAG is the second."""

FORESIGHT: Mapping[str, DeliveryPolicy] = {
    "static greedy": StaticGreedy(),
    "INFIDA offline": INFIDAOffline(steps=200, tolerance=0.01),
}
"""Policies that know all requests and change nothing: yardsticks, not rivals."""


IN_PRACTICE = INFIDA(scale=10.0, candidates=8, mixing=0.001)
"""Found after the comparison, on other seeds (1000, 1001, 2000 to 2002): one setting for all cells."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting:
    """A network with what its nodes hold, and its load.

    Args:
        underlay: the network.
        sites: memory and hardware.
        entries: where requests enter.
        rate_per_s: of all of them.
        tasks_per_entry: how many of the tasks are asked for at each.
        alpha: milliseconds that a point of accuracy is worth.
    """

    underlay: Underlay
    sites: tuple[Site, ...]
    entries: str | tuple[str, ...]
    rate_per_s: float
    tasks_per_entry: int
    alpha: float


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A draw of a cell.

    Args:
        instance: the network.
        requests: of each slot and type.
    """

    instance: Instance
    requests: Float64[ndarray, "slots types"]


def scene(
    network: str,
    profile: Profile,
    seed: int,
    *,
    slots: int = SLOTS,
    load: float = 1.0,
    memory: float = 1.0,
    alpha: float | None = None,
) -> Scene:
    """A cell with a seed; the rest is for claims that vary what the comparison holds fixed.

    Args:
        network: one of `NETWORKS`.
        profile: of popularity.
        seed: of who asks for what, and of the requests.
        slots: how many.
        load: times the requests.
        memory: times the memory of each node.
        alpha: in place of the network's own.

    Raises:
        DataError: when the file of GÉANT is not below RIVAGE_DATA, or is another one.
    """
    setting = _setting(network)
    demand = Popularity(
        rate_per_s=load * setting.rate_per_s,
        entries=setting.entries,
        profile=profile,
        period=_PERIODS[profile],
        tasks_per_entry=setting.tasks_per_entry,
        slots=slots,
    )
    catalog = load_catalog("yolov4-coco").copies(TASKS)
    drawn = demand.build(setting.underlay, catalog.tasks, 60.0, Streams(seed).child("demand"))
    sites = [
        Site(at=s.at, budget_mb=memory * s.budget_mb, hardware=s.hardware, repository=s.repository)
        for s in setting.sites
    ]
    instance = build_instance(
        setting.underlay,
        catalog,
        sites,
        Asked(entry=drawn.entry, task=drawn.task),
        alpha_ms_per_point=setting.alpha if alpha is None else alpha,
    )
    return Scene(instance, drawn.requests)


def _setting(network: str) -> Setting:
    match network:
        case "topology I":
            return Setting(
                underlay=topology_one(),
                sites=(
                    Site(at="base station", budget_mb=150, hardware="gtx"),
                    Site(at="central office", budget_mb=500, hardware="gtx"),
                    Site(at="ISP data centre", budget_mb=1000, hardware="titan"),
                    Site(at="cloud", hardware="titan", repository=True),
                ),
                entries="base station",
                rate_per_s=7500,
                tasks_per_entry=10,
                alpha=1.0,
            )
        case "tree":
            return Setting(
                underlay=tiers({"edge": 12, "office": 3, "cloud": 1}, [10, 60], name="tree"),
                sites=(
                    Site(at="edge", budget_mb=270, hardware="gtx"),
                    Site(at="office", budget_mb=520, hardware="titan"),
                    Site(at="cloud", hardware="titan", repository=True),
                ),
                entries="edge",
                rate_per_s=600,
                tasks_per_entry=15,
                alpha=2.0,
            )
    folder = GEANT.locate(None)
    GEANT.read(folder, "geantdistance.gml")
    underlay = _geant(folder)
    return Setting(
        underlay=underlay,
        sites=(Site(budget_mb=300, hardware="gtx"), Site(at="DE", hardware="v100", repository=True)),
        entries=tuple(name for name in underlay.names if name != "DE"),
        rate_per_s=1560,
        tasks_per_entry=6,
        alpha=1.5,
    )


@cache
def _geant(folder: Path) -> Underlay:
    underlay = load_underlay(folder / "geantdistance.gml")
    return underlay.with_links(latency_ms=latency_from_distance(underlay.known("distance_km")))

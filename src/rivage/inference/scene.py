"""From a network, a catalog and what its nodes can hold to an instance: who asks what where, over which paths.

Requests of a task that enter at a node follow the path of least round trip to the nearest repository of the task. All
problems of a scene are told at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, RivageError, nearest, require
from rivage.core.settings import combine
from rivage.graphs.network import Network
from rivage.graphs.paths import follow, next_hops, path_cost
from rivage.graphs.underlay import Underlay
from rivage.inference.catalog import Catalog
from rivage.inference.instance import Instance

__all__ = ["Asked", "Site", "build_instance", "nodes_at"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What some nodes can hold.

    Args:
        at: a tier, a node, or a list of nodes; "*" for all. Later sites replace what earlier ones say of a node.
        budget_mb: memory for models on each of them, >= 0; models of a repository come on top.
        hardware: class of their hardware, as the catalog calls it.
        repository: whether they always hold every model that they can run.
    """

    at: str | tuple[str, ...] = "*"
    budget_mb: float = 0.0
    hardware: str = "any"
    repository: bool = False

    def __post_init__(self) -> None:
        require(self.budget_mb, "budget_mb", least=0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """The request types of a scene.

    Args:
        entry: node where the requests of each type enter.
        task: number of the task of each type, among the catalog's.
        deadline_ms: of each type, inf without; None for no deadlines.
    """

    entry: Int64[ndarray, "types"]
    task: Int64[ndarray, "types"]
    deadline_ms: Float64[ndarray, "types"] | None = None


def nodes_at(underlay: Underlay, at: str | Sequence[str]) -> list[int]:
    """The nodes of a tier, or those that are named.

    Raises:
        ConfigError: for names that are neither.
    """
    if at == "*":
        return list(range(len(underlay)))
    if isinstance(at, str) and underlay.tiers and at in underlay.tiers:
        return [int(node) for node in underlay.tier(at)]
    names = [at] if isinstance(at, str) else list(dict.fromkeys(at))
    if unknown := [name for name in names if name not in underlay.names]:
        known = tuple(dict.fromkeys((*(underlay.tiers or ()), *underlay.names)))
        raise combine(
            [
                ConfigError(
                    f'"{name}" is neither a node nor a tier of "{underlay.name}"',
                    mend=nearest(name, known) or f"Known: {', '.join(known[:12])}{' …' if len(known) > 12 else ''}.",
                )
                for name in unknown
            ]
        )
    return [underlay.names.index(name) for name in names]


def build_instance(
    underlay: Underlay,
    catalog: Catalog,
    sites: Sequence[Site],
    asked: Asked,
    *,
    slot_s: float = 60.0,
    alpha_ms_per_point: float = 1.0,
    late_cost: float = 0.0,
) -> Instance:
    """The instance of a scene.

    Args:
        underlay: the network, with latencies.
        catalog: models to choose from.
        sites: what its nodes can hold; nodes that no site names hold nothing.
        asked: who asks what where.
        slot_s: seconds of a slot; throughputs are per slot.
        alpha_ms_per_point: milliseconds that 0.01 of accuracy is worth, >= 0.
        late_cost: what an answer after its deadline costs more, >= 0.

    Raises:
        ConfigError: listing everything that is wrong.
    """
    require(slot_s, "slot_s", above=0.0)
    equipped = _equip(underlay, catalog, sites)
    network = underlay.network("round_trip_ms")
    paths = _routes(network, catalog, equipped, asked)
    longest = max(len(path.nodes) for path in paths)
    rows, latency = np.full((len(paths), longest), -1, np.int64), np.full((len(paths), longest), np.inf)
    for row, times, path in zip(rows, latency, paths, strict=True):
        row[: len(path.nodes)], times[: len(path.nodes)] = path.nodes, path.latency_ms
    number = {task: place for place, task in enumerate(catalog.tasks)}
    return Instance(
        task=np.array([number[model.task] for model in catalog.models]),
        accuracy=np.array([model.accuracy for model in catalog.models]),
        sizes=equipped.sizes,
        delays_ms=equipped.delays,
        throughput=np.where(equipped.pinned, np.inf, equipped.rates * slot_s),
        budgets=equipped.budgets,
        pinned=equipped.pinned,
        asked=asked.task,
        paths=rows,
        latency_ms=latency,
        alpha=alpha_ms_per_point,
        deadline_ms=asked.deadline_ms,
        late_cost=late_cost,
        nodes=underlay.names,
        models=tuple(model.name for model in catalog.models),
        tasks=catalog.tasks,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Equipped:
    """Nodes with hardware: sizes, delays and rates of every model there, budgets, what is pinned."""

    sizes: Float64[ndarray, "nodes models"]
    delays: Float64[ndarray, "nodes models"]
    rates: Float64[ndarray, "nodes models"]
    budgets: Float64[ndarray, "nodes"]
    pinned: Bool[ndarray, "nodes models"]


def _equip(underlay: Underlay, catalog: Catalog, sites: Sequence[Site]) -> _Equipped:
    chosen, problems = dict[int, Site](), list[RivageError]()
    for number, site in enumerate(sites, 1):
        try:
            chosen |= dict.fromkeys(nodes_at(underlay, site.at), site)
            problems += [fault.at(f"[[sites]] {number}") for fault in _unable(catalog, site)]
        except RivageError as error:
            problems.append(error.at(f"[[sites]] {number}"))
    if not problems and not any(site.repository for site in chosen.values()):
        problems.append(
            ConfigError(
                "no site is a repository",
                where="[[sites]]",
                mend="Let one say repository = true: there every model is always found.",
            )
        )
    if problems:
        raise combine(problems)
    shape = len(underlay), len(catalog.models)
    equipped = _Equipped(
        np.full(shape, np.inf), np.zeros(shape), np.ones(shape), np.zeros(shape[0]), np.zeros(shape, bool)
    )
    for node, site in chosen.items():
        for place, model in enumerate(catalog.models):
            equipped.sizes[node, place] = size = model.size(site.hardware)
            if np.isfinite(size):
                equipped.delays[node, place] = model.delay(site.hardware) or 0.0
                equipped.rates[node, place] = model.throughput(site.hardware) or 1.0
                equipped.pinned[node, place] = site.repository
        kept = equipped.sizes[node, equipped.pinned[node]].sum()
        equipped.budgets[node] = site.budget_mb + kept
    return equipped


def _unable(catalog: Catalog, site: Site) -> Iterator[ConfigError]:
    """A class of hardware on which nothing runs, or memory that holds nothing."""
    sizes = {model.name: model.size(site.hardware) for model in catalog.models}
    known = catalog.hardware
    if known and site.hardware not in known:
        # Models with the same figures everywhere would run there, but a typing error would go unseen.
        mend = nearest(site.hardware, known) or f"Known classes: {', '.join(known)}."
        yield ConfigError(f'no model of "{catalog.name}" names hardware "{site.hardware}"', mend=mend)
    elif not np.isfinite(list(sizes.values())).any():
        yield ConfigError(
            f'no model of "{catalog.name}" runs on hardware "{site.hardware}"',
            mend="Give one its size and delay there.",
        )
    elif not site.repository and 0 < site.budget_mb < (least := min(sizes.values())):
        mend = f"The smallest model needs {least:g} MB; give as much, or 0 for nodes that hold nothing."
        yield ConfigError(f"no model fits into {site.budget_mb:g} MB", mend=mend)


@dataclass(frozen=True, slots=True)
class _Route:
    """Nodes of a path, and the round trip from the first to each."""

    nodes: list[int]
    latency_ms: list[float]


def _routes(network: Network, catalog: Catalog, equipped: _Equipped, asked: Asked) -> list[_Route]:
    """Shortest path of each type to the nearest repository of its task."""
    hops = {int(node): next_hops(network, int(node)) for node in np.flatnonzero(equipped.pinned.any(axis=1))}
    of_task = {
        number: np.array([model.task == task for model in catalog.models]) for number, task in enumerate(catalog.tasks)
    }
    homes = {
        number: [node for node in hops if equipped.pinned[node, models].any()] for number, models in of_task.items()
    }
    known = dict[tuple[int, tuple[int, ...]], _Route]()
    problems, paths = dict[str, ConfigError](), list[_Route]()
    for entry, task in zip(asked.entry.tolist(), asked.task.tolist(), strict=True):
        if not homes[task]:
            name = catalog.tasks[task]
            problems[name] = ConfigError(
                f'no repository can run a model of task "{name}"', mend="Give one hardware that its models know."
            )
            continue
        ends = tuple(homes[task])
        if (entry, ends) not in known:
            ways = [follow(network, hops[home], entry, home) for home in ends]
            best = min(ways, key=lambda way: (path_cost(network, np.array(way)), len(way), way))
            times = [path_cost(network, np.array(best[: stop + 1])) for stop in range(len(best))]
            known[entry, ends] = _Route(best, times)
        paths.append(known[entry, ends])
    if problems:
        raise combine(list(problems.values()))
    return paths

"""How long does a slot of INFIDA take, a replay on Topology I, and a plan for a large network?

Three bars. A slot with 10^4 request types of 200 ranks each, all of INFIDA counted (contention, gain, slope, step of
every node, drawing; not the meters): at most 50 ms on one core; beside it, the same gain and slope in vectorised NumPy.
600 slots on Topology I, 31 nodes, 20 tasks of 10 variants: less than 60 s. A plan with its bound and prices for 200
nodes, 2,000 request types on paths of at most 4 nodes, 10 variants per task: less than 5 minutes; its gap is told.

    python benchmarks/placement.py [--json]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import numpy as np

from rivage.core.seeding import Streams
from rivage.graphs.tiered import tiers, topology_one
from rivage.inference.catalog import Catalog, Model
from rivage.inference.demand import Demand, Popularity
from rivage.inference.gain import Slot, contend
from rivage.inference.infida import INFIDA
from rivage.inference.instance import Instance
from rivage.inference.planners import Relaxed, plan_cost
from rivage.inference.policy import Seen
from rivage.inference.pooled import pooled_optimum
from rivage.inference.replay import deliver
from rivage.inference.scene import Asked, Site, build_instance

SLOT_BAR_S, REPLAY_BAR_S, PLAN_BAR_S = 0.050, 60.0, 300.0
SLOTS = 20


def catalog(tasks: int, variants: int) -> Catalog:
    """Variants from small, fast and poor to large, slow and good; figures are made up."""
    quality = np.linspace(0.0, 1.0, variants)
    return Catalog(
        name="made up",
        models=tuple(
            Model(
                name=f"task {task} size {size}",
                task=f"task {task}",
                accuracy=float(0.4 + 0.3 * q**0.5),
                size_mb=float(20 * 15**q),
                delay_ms={"near": float(8 * 6**q), "far": float(3 * 5**q)},
            )
            for task in range(tasks)
            for size, q in enumerate(quality)
        ),
    )


def scene(underlay: Any, models: Catalog, budgets: dict[str, float], demand: Demand) -> Instance:
    """Nearby tiers have the slower hardware; the last one holds everything."""
    names = list(dict.fromkeys(underlay.tiers))
    sites = [Site(at=name, budget_mb=budgets[name], hardware="near") for name in names[:-1]]
    sites.append(Site(at=names[-1], hardware="far", repository=True))
    return build_instance(underlay, models, sites, Asked(entry=demand.entry, task=demand.task))


def slot_times() -> dict[str, float]:
    """Seconds of one slot: INFIDA with everything around it, and gain and slope alone, ours and NumPy's."""
    underlay = tiers({"edge": 500, "office": 20, "centre": 4, "region": 2, "cloud": 1}, [6, 10, 15, 40])
    models = catalog(20, 50)  # 4 nodes of 50 variants, and the cloud, which always has the model that answers last
    demand = Popularity(rate_per_s=20_000, entries="edge", slots=SLOTS, random=True).build(
        underlay, models.tasks, 60.0, Streams(0)
    )
    instance = scene(underlay, models, {"edge": 300.0, "office": 1000.0, "centre": 3000.0, "region": 5000.0}, demand)
    policy = INFIDA()
    state = policy.init(instance, Streams(0), slots=SLOTS)
    found: dict[str, list[float]] = {"slot": [], "gain and slope": [], "the same in NumPy": []}
    for requests in demand.requests:
        began = time.perf_counter()
        loaded = policy.act(state)
        slot, served = contend(instance, requests, loaded)
        _ = slot.base_cost - float(served @ instance.ranking.cost)
        state = policy.update(state, Seen(slot, loaded, served))
        found["slot"].append(time.perf_counter() - began)
        y = policy.iterate(state)
        began = time.perf_counter()
        ours = slot.gain(y), slot.slope(y).gradient
        found["gain and slope"].append(time.perf_counter() - began)
        began = time.perf_counter()
        theirs = plain(slot, y)
        found["the same in NumPy"].append(time.perf_counter() - began)
        assert abs(ours[0] - theirs[0]) <= 1e-6 * abs(ours[0]), "both compute the same gain"
        assert np.allclose(ours[1], theirs[1], rtol=1e-6, atol=1e-6 * ours[1].max()), "and the same slope"
    times = {name: statistics.median(values[3:]) for name, values in found.items()}
    return {"types": instance.types, "ranks": len(instance.ranking) / instance.types, **times}


def plain(slot: Slot, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Gain and slope by cumulative sums over all ranks at once."""
    ranking, first = slot.instance.ranking, slot.instance.ranking.first
    asked = slot.requests[ranking.type]

    def cost_of(allocation: np.ndarray) -> tuple[float, np.ndarray]:
        z = np.asarray(allocation, float).ravel()[ranking.place] * slot.capacity
        total = np.cumsum(z)
        before = total - z - np.concatenate([[0.0], total])[first[:-1]][ranking.type]
        served = np.clip(np.minimum(asked - before, z), 0.0, None)
        return float(served @ ranking.cost), before + z

    base, _ = cost_of(slot.instance.pinned)
    cost, reached = cost_of(y)
    enough = (reached >= asked * (1 - 1e-9)) & (asked > 0)
    ranks = np.arange(len(ranking))
    worst = np.minimum.reduceat(np.where(enough, ranks, len(ranking)), first[:-1])[ranking.type]
    behind = (ranks < worst) & (worst < len(ranking))
    drop = np.where(behind, ranking.cost[np.minimum(worst, len(ranking) - 1)] - ranking.cost, 0.0) * slot.capacity
    gradient = np.bincount(ranking.place, drop, minlength=y.size).reshape(y.shape)
    return base - cost, gradient


def replay_time() -> dict[str, float]:
    """Seconds of 600 slots on Topology I."""
    underlay, models = topology_one(), catalog(20, 10)
    demand = Popularity(rate_per_s=7500, entries="base station", slots=600, profile="sliding").build(
        underlay, models.tasks, 60.0, Streams(0)
    )
    budgets = {"base station": 300.0, "central office": 1000.0, "ISP data centre": 3000.0}
    instance = scene(underlay, models, budgets, demand)
    began = time.perf_counter()
    played = deliver(INFIDA(), instance, list(demand.requests), streams=Streams(0), every=60)
    return {"seconds": time.perf_counter() - began, "in the policy": played.seconds, "ntag": played.last["ntag"]}


def plan_time() -> dict[str, float]:
    """Seconds of a plan, and how far it is from the bound."""
    underlay = tiers({"edge": 160, "office": 32, "centre": 7, "cloud": 1}, [6, 15, 40])
    models = catalog(25, 10)
    demand = Popularity(rate_per_s=20_000, entries="edge", slots=1, tasks_per_entry=13, random=False).build(
        underlay, models.tasks, 60.0, Streams(0)
    )
    began = time.perf_counter()
    instance = scene(underlay, models, {"edge": 200.0, "office": 800.0, "centre": 3000.0}, demand)
    requests = demand.requests[0]
    relaxation = pooled_optimum(instance, requests)
    solved = time.perf_counter()
    cost = plan_cost(instance, requests, Relaxed().plan(instance, requests, relaxation, Streams(0)))
    return {
        "nodes": len(underlay),
        "types": instance.types,
        "seconds": time.perf_counter() - began,
        "bound": solved - began,
        "cost": cost / requests.sum(),
        "least": relaxation.cost / requests.sum(),
        "gap": cost / relaxation.cost - 1,
    }


def main() -> int:
    slot, replay, plan = slot_times(), replay_time(), plan_time()
    bars = {
        "slot": slot["slot"] <= SLOT_BAR_S,
        "replay": replay["seconds"] < REPLAY_BAR_S,
        "plan": plan["seconds"] < PLAN_BAR_S,
    }
    if "--json" in sys.argv:
        print(json.dumps({"slot": slot, "replay": replay, "plan": plan, "holds": bars}))
        return 0 if all(bars.values()) else 1
    print(f"slot: {slot['types']:,} types, {slot['ranks']:.0f} ranks each: {1e3 * slot['slot']:.1f} ms (bar 50 ms);")
    ours, numpy = slot["gain and slope"], slot["the same in NumPy"]
    print(f"      gain and slope alone {1e3 * ours:.1f} ms, in NumPy {1e3 * numpy:.1f} ms, {numpy / ours:.1f} times")
    print(
        f"replay: 600 slots on Topology I: {replay['seconds']:.1f} s (bar 60 s), policy {replay['in the policy']:.1f} s"
    )
    size = f"{plan['nodes']} nodes, {plan['types']:,} types"
    print(f"plan: {size}: {plan['seconds']:.1f} s (bar 300 s), {plan['bound']:.1f} s of them for the bound;")
    print(f"      {plan['cost']:.4g} ms per request, at least {plan['least']:.4g}: gap {100 * plan['gap']:.2g} %")
    return 0 if all(bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

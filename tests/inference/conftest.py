"""The golden network of the sheet: four nodes in line, three tasks, three models each."""

from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import Float64
from numpy import ndarray

from rivage.inference.gain import Slot
from rivage.inference.instance import Instance

REQUESTS = np.array([60.0, 20.0, 30.0, 10.0, 15.0, 5.0])


def line(alpha: float = 1.0, budgets: tuple[float, ...] = (2.0, 4.0, 5.0), *, keep_oversize: bool = True) -> Instance:
    """Nodes 0 – 1 – 2 – 3 at 6, 6 and 15 ms; node 3 holds everything. Model 3 · task + q has quality q."""
    delays = np.array([[8.0, 20, 60], [8, 20, 60], [3, 8, 25], [2, 6, 24]])
    sizes = np.tile([1.0, 2.0, 4.0], 3)
    pinned = np.zeros((4, 9), bool)
    pinned[3] = True
    latency = np.array([0.0, 6.0, 12.0, 27.0])
    paths = np.array([[0, 1, 2, 3], [1, 2, 3, -1]] * 3)
    return Instance(
        task=np.repeat(np.arange(3), 3),
        accuracy=np.tile([0.40, 0.58, 0.66], 3),
        sizes=np.tile(sizes, (4, 1)),
        delays_ms=np.tile(delays, (1, 3)),
        throughput=np.vstack([np.outer([30.0, 60.0, 120.0], np.tile([1.0, 1 / 2, 1 / 3], 3)), np.full(9, np.inf)]),
        budgets=np.array([*budgets, 21.0]),
        pinned=pinned,
        asked=np.repeat(np.arange(3), 2),
        paths=paths,
        latency_ms=np.array([latency, [*(latency[1:] - 6.0), np.inf]] * 3),
        alpha=alpha,
        keep_oversize=keep_oversize,
    )


def alone(instance: Instance, requests: Float64[ndarray, "types"] = REQUESTS) -> Slot:
    """A slot without contention: every model could serve its throughput of every type."""
    ranking = instance.ranking
    most = instance.throughput[ranking.node, ranking.model]
    return Slot(instance=instance, requests=requests, capacity=np.minimum(requests[ranking.type], most))


@pytest.fixture
def golden() -> Slot:
    """The slot of the sheet, α = 1."""
    return alone(line())

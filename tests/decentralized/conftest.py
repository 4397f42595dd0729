"""The three networks of Marfoq et al. with published rules, and small networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivage.decentralized import Silos
from rivage.graphs import Connectivity, PathRule, Underlay, connectivity, load_underlay

WORKLOADS = {  # bits of a model, ms of a step
    "Shakespeare": (3_385_747, 389.6),
    "FEMNIST": (4_843_243, 4.6),
    "Sent140": (19_269_416, 9.8),
    "iNaturalist": (44_961_717, 25.4),
}
FILES = {"Gaia": "gaia", "AWS": "amazon_us", "Geant": "geantdistance"}


@pytest.fixture
def underlay_of(data_root: Path) -> Callable[[str], Underlay]:
    return lambda name: load_underlay(data_root / "underlays" / f"{FILES[name]}.gml")


@pytest.fixture
def silos_of(underlay_of: Callable[[str], Underlay]) -> Callable[..., Silos]:
    """Silos of a published network: name, workload, bits per second of access, and changes."""

    def make(name: str, workload: str = "iNaturalist", access_bps: float = 1e10, **changes: Any) -> Silos:
        bits, step = WORKLOADS[workload]
        every = connectivity(underlay_of(name), PathRule.published(1e9))
        return Silos.of(every, **{"model_bits": bits, "step_ms": step, "access_bps": access_bps, **changes})

    return make


@pytest.fixture(scope="session")
def square_of() -> Callable[..., Silos]:
    """Silos in a square of 5,000 km with the latencies of light in fibre and one bandwidth: Euclidean delays."""

    def make(seed: int, silos: int, *, access_bps: float = np.inf, symmetric: bool = True) -> Silos:
        rng = np.random.default_rng(seed)
        places = rng.uniform(0, 5000, (silos, 2))
        latency = 0.0085 * np.hypot(*(places[:, None] - places).transpose(2, 0, 1)) + 4
        if not symmetric:
            latency = latency * rng.uniform(1, 1.5, latency.shape)
        np.fill_diagonal(latency, 0)
        available = np.where(np.eye(silos, dtype=bool), np.inf, 1e9)
        names = tuple(f"s{k}" for k in range(silos))
        every = Connectivity(names=names, latency_ms=latency, available_bps=available, name="square")
        return Silos.of(every, model_bits=2e7, step_ms=10, access_bps=access_bps)

    return make

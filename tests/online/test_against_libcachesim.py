"""Eviction policies against libCacheSim, request by request, where its package is installed.

It is GPL-3.0 and no dependency: these tests run in an environment into which somebody has installed ``libcachesim``,
or with RIVAGE_LIBCACHESIM naming the Python of another environment that has it. S3-FIFO and LFU-DA are not compared:
those of libCacheSim 0.3.5 decide otherwise than the papers' (S3-FIFO: see test_eviction.py) or than ours (LFU-DA).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from rivage.core.seeding import Streams
from rivage.online.adaptive_eviction import ARC
from rivage.online.eviction import FIFO, LRU, LFUInCache
from rivage.online.policy import CacheInstance, Policy

PROGRAM = """
import json, sys
import libcachesim as sim
facts = json.load(sys.stdin)
hits = {}
for name in facts["policies"]:
    cache = getattr(sim, name)(cache_size=facts["capacity"], hashpower=12)
    hits[name] = []
    request = sim.Request()
    request.obj_size = 1
    for item in facts["requests"]:
        request.obj_id = item
        hits[name].append(int(cache.get(request)))
json.dump(hits, sys.stdout)
"""
SAME: dict[str, Policy] = {"LRU": LRU(), "FIFO": FIFO(), "LFU": LFUInCache(), "ARC": ARC()}


@pytest.fixture(scope="module")
def python() -> str:
    """The interpreter that has libcachesim."""
    found = os.environ.get("RIVAGE_LIBCACHESIM", sys.executable if find_spec("libcachesim") else "")
    if not found:
        pytest.skip("libcachesim is not installed, and RIVAGE_LIBCACHESIM names no Python that has it")
    return found


def asked(kind: str) -> np.ndarray:
    random = np.random.default_rng(0)
    weights = 1 / np.arange(1, 301) ** 0.8
    if kind == "Zipf":
        return random.choice(300, 6000, p=weights / weights.sum())
    if kind == "changing":
        parts = [random.permutation(300)[random.choice(300, 1500, p=weights / weights.sum())] for _ in range(4)]
        return np.concatenate(parts)
    return np.concatenate([np.arange(3000) % 60, random.integers(0, 80, 3000)])


@pytest.mark.process
@pytest.mark.parametrize("kind", ["Zipf", "changing", "loops"])
def test_every_hit_is_the_same(python: str, kind: str, tmp_path: Path) -> None:
    requests, capacity = asked(kind), 40
    question = json.dumps({"policies": list(SAME), "capacity": capacity, "requests": requests.tolist()})
    command = [python, "-c", PROGRAM]
    done = subprocess.run(command, input=question, capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path)
    theirs = json.loads(done.stdout)
    instance = CacheInstance(items=300, capacity=capacity)
    for name, policy in SAME.items():
        state = policy.init(instance, Streams(0))
        ours = [int(policy.run_block(state, requests[i : i + 1]).hits) for i in range(len(requests))]
        assert ours == theirs[name], name

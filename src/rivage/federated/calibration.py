"""How many bytes of parameters a tile should hold on this machine: measured once, then remembered.

A tile's parameters are read and written at every step; how many of them are best worked on together depends on the
caches and on the overhead of one operation. The measurement is about half a second of training steps of a small dense
layer in stacks of different heights. Its result is kept in the user's cache folder, so that later runs on the same
machine cut the same tiles and round the same way.
"""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import torch

from rivage.core.errors import StoreError
from rivage.core.store import read_json, write_json

__all__ = ["DEFAULT_TILE_BYTES", "best_tile_bytes", "tile_bytes"]

DEFAULT_TILE_BYTES = 4 << 20
_CANDIDATES = (1 << 20, 2 << 20, 4 << 20, 8 << 20, 16 << 20)
_CLEARLY = (
    0.9  # another size is taken only if it needs less than this share of the default's time: noise decides nothing
)
_ROWS, _BATCH, _IN, _OUT = 32, 10, 784, 160  # half a MiB per row
_REPEATS = 7


@lru_cache(maxsize=1)
def tile_bytes() -> int:
    """The size to use: ``RIVAGE_TILE_BYTES``, or what was measured on this machine, now or before."""
    if forced := os.environ.get("RIVAGE_TILE_BYTES", ""):
        return int(forced)
    path = _cache_folder() / "machine.json"
    key = f"{platform.machine()} {_processor()} torch {torch.__version__}"
    try:
        known = dict(read_json(path))
        return int(known[key])
    except (StoreError, KeyError, TypeError, ValueError):
        known = {}
    found = best_tile_bytes({size: _seconds(size) for size in _CANDIDATES})
    with suppress(OSError):  # a machine whose cache cannot be written measures anew each time
        write_json(path, {**known, key: found})
    return found


def best_tile_bytes(seconds: dict[int, float]) -> int:
    """The fastest size, or the default where none is clearly faster."""
    fastest = min(seconds, key=lambda size: (seconds[size], size))
    return fastest if seconds[fastest] < _CLEARLY * seconds[DEFAULT_TILE_BYTES] else DEFAULT_TILE_BYTES


def _seconds(size: int) -> float:
    """Time of one training step of all rows, in tiles of this size."""
    rows = max(1, size // (_OUT * _IN * 4))
    x = torch.ones(rows, _BATCH, _IN)
    tiles = [torch.zeros(min(rows, _ROWS - start), _OUT, _IN) for start in range(0, _ROWS, rows)]
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        for weight in tiles:
            for _ in range(3):
                signal = torch.bmm(x[: len(weight)], weight.transpose(1, 2))
                weight.baddbmm_(signal.transpose(1, 2), x[: len(weight)], alpha=-1)
        times.append(time.perf_counter() - started)
    return min(times)


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rivage"


def _processor() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")

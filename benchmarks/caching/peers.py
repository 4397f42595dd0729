"""What others bring: libCacheSim (GPL-3.0) and cachetools, each in an environment of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from typing import Any

from worker import Serve, Trace


def contestant(label: str) -> tuple[Callable[[Trace], Iterator[Serve]], dict[str, str]]:
    """Who plays under this label, and versions."""
    package, _, rest = label.partition(" ")
    policy, _, table = rest.partition(", ")
    name = policy.replace("-", "")
    make = partial(_simulated, name, not table) if package == "libCacheSim" else partial(_embedded, name)
    return make, {package: version(package.lower())}


def _simulated(policy: str, fitted: bool, trace: Trace) -> Iterator[Any]:
    """LibCacheSim reads its own format by a memory map; the whole loop is compiled."""
    import libcachesim

    options = libcachesim.ReaderInitParam(ignore_obj_size=True)
    reader = libcachesim.TraceReader(
        trace=str(trace.file), trace_type=libcachesim.TraceType.ORACLE_GENERAL_TRACE, reader_init_params=options
    )
    yield None
    # Its hash table has 2^24 places unless told otherwise, which is slower for caches that are smaller.
    table = {"hashpower": math.ceil(math.log2(trace.capacity)) + 1} if fitted else {}
    cache = getattr(libcachesim, policy)(cache_size=trace.capacity, **table)

    def serve(first: int, end: int) -> tuple[int, None]:
        missed, _ = cache.process_trace(reader, first, end - first)
        return round((1 - missed) * (end - first)), None

    yield serve


def _embedded(policy: str, trace: Trace) -> Iterator[Any]:
    """Cachetools as its users write it, values of None."""
    import cachetools

    requests = trace.numbers.tolist()
    yield None
    cache = getattr(cachetools, f"{policy}Cache")(maxsize=trace.capacity)

    def serve(first: int, end: int) -> tuple[int, int]:
        hits = 0
        for key in requests[first:end]:
            if key in cache:
                cache[key]
                hits += 1
            else:
                cache[key] = None
        return hits, end - first - hits

    yield serve

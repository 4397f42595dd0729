"""A trace in a file is played in memory that does not grow with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

LIMIT_MB = 200  # of 10^6 bytes; 199 were measured
PROBE = """
import resource, sys
for name in ("coverage", "yaml", "charset_normalizer"):
    sys.modules[name] = None  # Numba and NumPy import them where they are installed: 8 MB that users do not have
from rivage.cli.app import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, file=sys.stderr)
sys.exit(code)
"""


def peak_mb(trace: Path, folder: Path, *more: str) -> tuple[float, dict[str, Any]]:
    """The most memory that a process which plays a trace has held, and its answer."""
    words = ["play", "--trace", str(trace), *more, "--json", "--quiet", "--fresh", "--out", str(folder)]
    done = subprocess.run([sys.executable, "-c", PROBE, *words], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return float(done.stderr.splitlines()[-1]), json.loads(done.stdout)


@pytest.mark.process
def test_ten_times_the_requests_take_no_more_memory(tmp_path: Path) -> None:
    requests = (np.random.default_rng(0).zipf(1.2, 2_000_000) - 1) % 5_000
    peaks = []
    for count in (200_000, 2_000_000):
        path = tmp_path / f"{count}.int32be"
        path.write_bytes(requests[:count].astype(">i4").tobytes())
        peaks.append(peak_mb(path, tmp_path / "runs", "--capacity", "5%", "--policies", "ogb,lru,static")[0])
    assert peaks[1] < peaks[0] + 8, "2 million requests are 16 MB as numbers of 64 bits"


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_five_million_requests_of_a_real_trace(data_root: Path, tmp_path: Path) -> None:
    """The policies of `rivage play` without options, and the report; hit ratios beside the trace, by libCacheSim."""
    trace = data_root / "traces" / "orm-busy.trace.xz"
    peak_mb(trace, tmp_path, "--capacity", "3817")  # compiles what is not compiled yet, which takes 50 MB more
    peak, answer = peak_mb(trace, tmp_path, "--capacity", "3817")
    print(f"peak {peak:.0f} MB")
    assert peak < LIMIT_MB, "Numba and what it imports and compiles for itself are 160 MB of it"
    policies = answer["policies"]
    assert sorted(policies) == ["adaptive", "lru", "ogb", "s3fifo", "static"]
    assert Path(answer["report"]).is_file()
    assert policies["lru"]["hit_ratio"] == pytest.approx(0.8413, abs=1e-4)
    assert policies["s3fifo"]["hit_ratio"] == pytest.approx(0.8524, abs=3e-3)
    assert policies["ogb"]["regret"] <= policies["ogb"]["regret_bound"]

"""A trace in a file is played in memory that does not grow with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

LIMIT_MB = 200
PROBE = """
import resource, sys
sys.modules["matplotlib"] = None  # drawing the report is another matter: 25 MB, whatever the trace
from rivage.cli.app import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr)
sys.exit(code)
"""


def peak_mb(trace: Path, folder: Path, policies: str) -> tuple[float, dict[str, object]]:
    """The most memory that a process which plays a trace has held, and its answer."""
    words = ["play", "--trace", str(trace), "--capacity", "5%", "--policies", policies, "--json", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words, "--out", str(folder)], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return float(done.stderr.splitlines()[-1]), json.loads(done.stdout)


@pytest.mark.process
def test_ten_times_the_requests_take_no_more_memory(tmp_path: Path) -> None:
    requests = (np.random.default_rng(0).zipf(1.2, 2_000_000) - 1) % 5_000
    peaks = []
    for count in (200_000, 2_000_000):
        path = tmp_path / f"{count}.int32be"
        path.write_bytes(requests[:count].astype(">i4").tobytes())
        peaks.append(peak_mb(path, tmp_path / "runs", "ogb,lru")[0])
    assert peaks[1] < peaks[0] + 8, "2 million requests are 16 MB as numbers of 64 bits"


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_five_million_requests_of_a_real_trace(data_root: Path, tmp_path: Path) -> None:
    """Policies that do not foresee; hit ratios beside the trace, by libCacheSim at 3,817 items."""
    trace = data_root / "traces" / "orm-busy.trace.xz"
    peak, answer = peak_mb(trace, tmp_path, "ogb,lru,fifo,s3fifo")
    print(f"peak {peak:.0f} MB")
    assert peak < LIMIT_MB, "Numba with its kernels and NumPy alone are 150 MB of it"
    policies = answer["policies"]
    assert isinstance(policies, dict)
    assert policies["lru"]["hit_ratio"] == pytest.approx(0.8413, abs=1e-4)
    assert policies["fifo"]["hit_ratio"] == pytest.approx(0.8316, abs=1e-4)
    assert policies["s3fifo"]["hit_ratio"] == pytest.approx(0.8524, abs=3e-3)
    assert policies["ogb"]["regret"] <= policies["ogb"]["regret_bound"]

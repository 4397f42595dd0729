"""Machines in network namespaces, with links of known latency and rate between them: what is measured is what is there.

The network is `shaped_network`, in user space: many kernels, and that of the machine these tests were written on, come
without netem.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rivage.core.errors import ConfigError, ProtocolError
from rivage.core.store import read_jsonl
from rivage.decentralized import Silos
from rivage.decentralized.classical import ring_2opt
from rivage.graphs import load_connectivity, load_underlay
from rivage.studies.measuring.hosts import Host, Hosts, Probing
from rivage.studies.measuring.pairs import measure
from rivage.studies.measuring.results import RESULTS

pytestmark = [pytest.mark.slow, pytest.mark.process]

WIRE = 1448 / 1500
"""Share of a packet of 1500 bytes that is not headers of IP and TCP."""


@contextmanager
def shaped(latency_ms: list[list[float]], bps: list[list[float]], probing: Probing) -> Iterator[Hosts]:
    """Machines with such links between them."""
    if os.geteuid() != 0 or not shutil.which("ip") or not Path("/dev/net/tun").exists():
        pytest.skip("network namespaces need root, the program ip, and /dev/net/tun")
    names = [f"rivage{os.getpid()}-{place}" for place in range(len(bps))]
    addresses = [f"10.213.7.{place + 1}" for place in range(len(bps))]
    wanted = {"names": names, "addresses": addresses, "latency_ms": latency_ms, "bps": bps, "queue_ms": 200}
    program = Path(__file__).with_name("shaped_network.py")
    with subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as network:
        assert network.stdin is not None
        assert network.stdout is not None
        assert network.stderr is not None
        network.stdin.write(json.dumps(wanted) + "\n")
        network.stdin.flush()
        if not network.stdout.readline():
            pytest.skip(f"network namespaces are not permitted: {network.stderr.read()[-200:]}")
        hosts = [
            Host(name=name, address=address, command=f"ip netns exec {name}", python=sys.executable)
            for name, address in zip(names, addresses, strict=True)
        ]
        try:
            yield Hosts(hosts=tuple(hosts), name="shaped", probing=probing)
        finally:
            network.stdin.close()
            network.wait(20)


def test_known_links_both_ways(tmp_path: Path) -> None:
    latency = [[0, 20, 5], [20, 0, 30], [15, 10, 0]]
    rates = [[1, 50, 20], [10, 1, 30], [20, 40, 1]]
    bps = [[rate * 1e6 for rate in row] for row in rates]
    with shaped(latency, bps, Probing(seconds=3)) as hosts:
        measured = measure(hosts, tmp_path)
    every = load_connectivity(measured.latency, measured="round_trip_ms", bandwidth=measured.bandwidth)
    off = ~np.eye(3, dtype=bool)
    round_trips = np.add(latency, np.transpose(latency))[off]
    medians = 2 * every.latency_ms[off]
    assert medians.tolist() == pytest.approx(round_trips.tolist(), rel=0.1, abs=4), (
        "packets are carried when it is idle"
    )
    fastest = [line["min_ms"] for line in read_jsonl(tmp_path / RESULTS) if line["event"] == "latency"]
    assert sorted(fastest) == pytest.approx(sorted(round_trips.tolist()), rel=0.1)
    assert every.available_bps is not None
    assert every.available_bps[off].tolist() == pytest.approx((np.array(bps)[off] * WIRE).tolist(), rel=0.15)
    links = np.where(off, bps, 0) * WIRE
    up, down = measured.access_up_bps.values(), measured.access_down_bps.values()
    assert list(up) == pytest.approx(links.sum(1).tolist(), rel=0.15), "links of their own, no access link between"
    assert list(down) == pytest.approx(links.sum(0).tolist(), rel=0.15)
    one_way = np.add(latency, np.transpose(latency)) / 2
    truth = replace(every, latency_ms=one_way, available_bps=np.where(off, links, np.inf))
    seen, true = (ring_2opt(Silos.of(each, model_bits=4e6, step_ms=10)) for each in (every, truth))
    assert seen.overlay.arcs.tolist() == true.overlay.arcs.tolist(), "the overlay of what was measured is the right one"
    assert seen.cycle_time_ms == pytest.approx(true.cycle_time_ms, rel=0.1)
    with pytest.raises(ConfigError, match="differs by direction"):
        load_underlay(measured.latency, measured="round_trip_ms", bandwidth=measured.bandwidth)


def test_a_transfer_that_is_over_too_soon_is_told(tmp_path: Path) -> None:
    class Notices:
        def on_event(self, event: dict[str, object]) -> None:
            told.append(str(event.get("text")))

    told: list[str] = []
    latency, bps = [[25.0] * 2] * 2, [[1.0, 1e7], [2e6, 1.0]]
    with shaped(latency, bps, Probing(seconds=3, megabytes=0.5)) as hosts:
        measure(hosts, tmp_path, Notices())
    one, other = hosts.names
    assert f"{one} to {other}: over too soon to get up to speed; raise megabytes or seconds" in told
    assert not any(text.startswith(f"{other} to {one}: ") for text in told), "2 s at 2 Mbit/s"


def test_a_machine_that_goes_away(tmp_path: Path) -> None:
    class Killer:
        def on_event(self, event: dict[str, object]) -> None:
            if event["event"] == "point" and event["done"] == 7:
                found = subprocess.run(
                    ["ip", "netns", "pids", hosts.names[2]], capture_output=True, text=True, check=True
                )
                for process in found.stdout.split():
                    os.kill(int(process), signal.SIGKILL)

    latency, bps = [[1.0] * 3] * 3, [[1e7] * 3] * 3
    with shaped(latency, bps, Probing(seconds=0.5, patience_s=3)) as hosts:
        with pytest.raises(ProtocolError) as caught:
            measure(hosts, tmp_path, Killer())
        assert f"{hosts.names[2]}: the command ended with exit code -9" in str(caught.value)
        assert measure(hosts, tmp_path).bandwidth.read_text().count('""') == 3

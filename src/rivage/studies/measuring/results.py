"""The files of measured networks: one line per result while measuring goes on, matrices and a draft of a study after.

A result holds for as long as the machine it leads to has the same address and is measured in the same way; otherwise
it is kept in the file and not used.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rivage.core.settings import dump
from rivage.core.store import append_jsonl, read_jsonl, write_text
from rivage.core.toml import format_toml
from rivage.studies.measuring.hosts import Host, Hosts

__all__ = ["BANDWIDTH", "LATENCY", "RESULTS", "STUDY", "Measured", "Results", "format_matrix", "write_measured"]

LATENCY, BANDWIDTH, STUDY, RESULTS = "round_trip_ms.csv", "bandwidth_bps.csv", "network.toml", "measured.jsonl"

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A network that has been measured.

    Args:
        names: of the machines.
        latency: file of median round trips in ms, from the machine of the row to that of the column.
        bandwidth: file of bit/s.
        study: file with the tables ``[underlay]`` and ``[silos]`` that say the same to ``rivage design``.
        access_up_bps: the fastest that each machine sent.
        access_down_bps: the fastest that it received.
        step_ms: of one local step, for machines with such a command.
    """

    names: tuple[str, ...]
    latency: Path
    bandwidth: Path
    study: Path
    access_up_bps: Mapping[str, float]
    access_down_bps: Mapping[str, float]
    step_ms: Mapping[str, float]


@dataclass
class Results:
    """What has been measured so far, in memory and in a file.

    Args:
        folder: of the file.
        hosts: the machines.
    """

    folder: Path
    hosts: Hosts
    facts: dict[tuple[str, str, str], Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._file.exists():
            for line in read_jsonl(self._file):
                self._take(line)

    def forget(self) -> None:
        """Start anew."""
        self._file.unlink(missing_ok=True)
        self.facts.clear()

    def add(self, what: str, one: Host, other: Host, facts: Mapping[str, Any]) -> None:
        """Keep a result, at once."""
        line = {"event": what, "from": one.name, "to": other.name, **self._way(what, other), **facts}
        append_jsonl(self._file, line)
        self._take(line)

    def of(self, what: str, one: Host, other: Host) -> Mapping[str, Any] | None:
        """What is known of a pair, or of a machine and itself."""
        return self.facts.get((what, one.name, other.name))

    def missing(self, what: str) -> list[Pair]:
        """Ordered pairs without a result."""
        hosts = self.hosts.hosts
        return [
            (i, j)
            for i, one in enumerate(hosts)
            for j, other in enumerate(hosts)
            if i != j and self.of(what, one, other) is None
        ]

    @property
    def _file(self) -> Path:
        return self.folder / RESULTS

    def _way(self, what: str, other: Host) -> dict[str, Any]:
        """What a result depends on."""
        probing = dump(self.hosts.probing)
        keys = {"latency": ("pings",), "bandwidth": ("seconds", "megabytes", "streams"), "step": ()}[what]
        settings = {key: probing[key] for key in keys}
        return {"address": other.address, **({"command": other.step} if what == "step" else {}), "probing": settings}

    def _take(self, line: Mapping[str, Any]) -> None:
        hosts = {host.name: host for host in self.hosts.hosts}
        other = hosts.get(line["to"])
        if other is None or line["from"] not in hosts:
            return
        if all(line.get(key) == value for key, value in self._way(line["event"], other).items()):
            self.facts[line["event"], line["from"], line["to"]] = line


def format_matrix(corner: str, names: Sequence[str], cells: Sequence[Sequence[float | None]]) -> str:
    """CSV text of a matrix with names in its first row and column; None is left blank.

    `rivage.graphs.matrices.parse_matrix` reads the same numbers back.
    """
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow([corner, *names])
    writer.writerows([name, *row] for name, row in zip(names, cells, strict=True))
    return text.getvalue()


def write_measured(results: Results) -> Measured:
    """Write the matrices and the draft of a study; cells without a result are left blank."""
    hosts, folder = results.hosts, results.folder
    round_trips = _cells(results, "latency", "median_ms")
    rates = _cells(results, "bandwidth", "bps")
    write_text(folder / LATENCY, format_matrix("ms", hosts.names, round_trips))
    write_text(folder / BANDWIDTH, format_matrix("bit/s", hosts.names, rates))
    up = [max((rate for rate in row if rate is not None), default=None) for row in rates]
    down = [max((rate for rate in row if rate is not None), default=None) for row in zip(*rates, strict=True)]
    steps = {host.name: fact["step_ms"] for host in hosts.hosts if (fact := results.of("step", host, host))}
    measured = Measured(
        names=hosts.names,
        latency=folder / LATENCY,
        bandwidth=folder / BANDWIDTH,
        study=folder / STUDY,
        access_up_bps={name: rate for name, rate in zip(hosts.names, up, strict=True) if rate is not None},
        access_down_bps={name: rate for name, rate in zip(hosts.names, down, strict=True) if rate is not None},
        step_ms=steps,
    )
    write_text(measured.study, format_toml(_study(hosts, measured)))
    return measured


def _cells(results: Results, what: str, key: str) -> list[list[float | None]]:
    hosts = results.hosts.hosts
    return [
        [None if (fact := results.of(what, one, other)) is None or one == other else fact[key] for other in hosts]
        for one in hosts
    ]


def _study(hosts: Hosts, measured: Measured) -> dict[str, Any]:
    """The tables of a study that say what was measured."""
    silos: dict[str, Any] = {}
    for key, known in (
        ("access_bps", measured.access_up_bps),
        ("access_down_bps", measured.access_down_bps),
        ("step_ms", measured.step_ms),
    ):
        if len(known) == len(hosts):
            silos[key] = [known[name] for name in hosts.names]
    underlay = {
        "kind": "matrices",
        "latency": LATENCY,
        "measured": "round_trip_ms",
        "bandwidth": BANDWIDTH,
    }
    return {"underlay": underlay, "silos": silos}

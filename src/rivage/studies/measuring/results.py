"""The files of measured networks: one line per result while measuring goes on, matrices and a draft of a study after.

A result is used for as long as it would be measured in the same way: between machines of the same names and addresses,
for as long and as large. Others stay in the file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rivage.core.store import append_jsonl, read_jsonl, write_text
from rivage.core.toml import format_toml
from rivage.studies.measuring.hosts import Hosts

__all__ = ["BANDWIDTH", "LATENCY", "RESULTS", "STUDY", "Measured", "Results", "format_matrix", "write_measured"]

LATENCY, BANDWIDTH, STUDY, RESULTS = "round_trip_ms.csv", "bandwidth_bps.csv", "network.toml", "measured.jsonl"

Pair = tuple[int, int]
"""From one machine to another, or to itself for what concerns it alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A network that has been measured.

    Args:
        names: of the machines.
        latency: file of median round trips in ms, from the machine of the row to that of the column.
        bandwidth: file of bit/s.
        study: file with tables ``[underlay]`` and ``[silos]`` that say all of it to ``rivage design``.
        access_up_bps: the fastest that each machine sent, to one other or to all at once.
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
    facts: dict[tuple[str, Pair], Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._file.exists():
            for line in read_jsonl(self._file):
                self._take(line)

    def forget(self) -> None:
        """Start anew."""
        self._file.unlink(missing_ok=True)
        self.facts.clear()

    def add(self, kind: str, pair: Pair, facts: Mapping[str, Any]) -> None:
        """Keep a result, at once."""
        line = {**self._way(kind, pair), **facts}
        append_jsonl(self._file, line)
        self._take(line)

    def value(self, kind: str, pair: Pair, key: str) -> float | None:
        """A number of a result, if it is there."""
        facts = self.facts.get((kind, pair))
        return None if facts is None else facts[key]

    def wanted(self, kind: str) -> list[Pair]:
        """What is to be measured in all."""
        places = range(len(self.hosts))
        match kind:
            case "step":
                return [(place, place) for place in places if self.hosts.hosts[place].step]
            case "latency" | "bandwidth":
                return [(one, other) for one in places for other in places if one != other]
        several = len(self.hosts) > 2 and self.hosts.probing.access
        return [(place, place) for place in places] if several else []

    def missing(self, kind: str) -> list[Pair]:
        """What is still to be measured."""
        return [pair for pair in self.wanted(kind) if (kind, pair) not in self.facts]

    @property
    def _file(self) -> Path:
        return self.folder / RESULTS

    def _way(self, kind: str, pair: Pair) -> dict[str, Any]:
        """All that a result depends on."""
        one, other = (self.hosts.hosts[place] for place in pair)
        probing = self.hosts.probing
        way: dict[str, Any] = {"event": kind, "from": one.name, "to": other.name, "address": other.address}
        match kind:
            case "step":
                return {**way, "command": one.step}
            case "latency":
                return {**way, "pings": probing.pings}
        limits = {"at_most": [probing.seconds, probing.megabytes], "streams": probing.streams}
        return {**way, **limits, **({} if kind == "bandwidth" else {"among": list(self.hosts.names)})}

    def _take(self, line: Mapping[str, Any]) -> None:
        places = {name: place for place, name in enumerate(self.hosts.names)}
        if line["from"] not in places or line["to"] not in places:
            return
        pair = (places[line["from"]], places[line["to"]])
        if all(line.get(key) == value for key, value in self._way(line["event"], pair).items()):
            self.facts[line["event"], pair] = line


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
    names, folder = results.hosts.names, results.folder
    rates = _cells(results, "bandwidth", "bps")
    write_text(folder / LATENCY, format_matrix("ms", names, _cells(results, "latency", "median_ms")))
    write_text(folder / BANDWIDTH, format_matrix("bit/s", names, rates))
    measured = Measured(
        names=names,
        latency=folder / LATENCY,
        bandwidth=folder / BANDWIDTH,
        study=folder / STUDY,
        access_up_bps=_fastest(results, "access_up", rates),
        access_down_bps=_fastest(results, "access_down", [list(column) for column in zip(*rates, strict=True)]),
        step_ms=_known(names, [results.value("step", (place, place), "step_ms") for place in range(len(names))]),
    )
    write_text(measured.study, _draft(measured))
    return measured


def _cells(results: Results, kind: str, key: str) -> list[list[float | None]]:
    places = range(len(results.hosts))
    return [[results.value(kind, (one, other), key) for other in places] for one in places]


def _fastest(results: Results, kind: str, rates: Sequence[Sequence[float | None]]) -> dict[str, float]:
    """Of each machine, alone with another or with all at once."""
    together = [results.value(kind, (place, place), "bps") for place in range(len(rates))]
    every = [[rate for rate in (*row, all_) if rate is not None] for row, all_ in zip(rates, together, strict=True)]
    return _known(results.hosts.names, [max(row, default=None) for row in every])


def _known(names: Sequence[str], values: Sequence[float | None]) -> dict[str, float]:
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _draft(measured: Measured) -> str:
    """A study that lacks the size of the model, and what is not known of every machine."""
    columns = {
        "access_bps": measured.access_up_bps,
        "access_down_bps": measured.access_down_bps,
        "step_ms": measured.step_ms,
    }
    full = {key: known for key, known in columns.items() if len(known) == len(measured.names)}
    silos = {key: [known[name] for name in measured.names] for key, known in full.items()}
    files = {"latency": measured.latency.as_posix(), "bandwidth": measured.bandwidth.as_posix()}
    tables = {"underlay": {"kind": "matrices", "measured": "round_trip_ms", **files}, "silos": silos}
    remarks = ["as measured, for rivage design --model-bits"] + [
        f"{key} is left out: it is known of {', '.join(known)} only"
        for key, known in columns.items()
        if known and key not in silos
    ]
    return "".join(f"# {remark}\n" for remark in remarks) + f"\n{format_toml(tables)}"

"""The networks that a study can name: trees of tiers, files, matrices as ping and iperf give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rivage.core.registry import Registry
from rivage.graphs.tiered import tiers, topology_one, topology_two
from rivage.graphs.underlay import Underlay
from rivage.graphs.underlay_files import load_underlay

__all__ = ["UNDERLAYS", "FileUnderlay", "MatrixUnderlay", "Tiers", "TopologyOne", "TopologyTwo"]

UNDERLAYS = Registry(
    "rivage.underlays",
    "network",
    {
        "cities": "rivage.graphs.place_kinds:Cities",
        "described": "rivage.graphs.place_kinds:Described",
        "file": "rivage.graphs.underlay_kinds:FileUnderlay",
        "matrices": "rivage.graphs.underlay_kinds:MatrixUnderlay",
        "tiers": "rivage.graphs.underlay_kinds:Tiers",
        "topology_one": "rivage.graphs.underlay_kinds:TopologyOne",
        "topology_two": "rivage.graphs.underlay_kinds:TopologyTwo",
    },
)
"""Kind -> settings that build an `Underlay`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileUnderlay:
    """A network described in a file.

    Args:
        path: TOML, GML or GraphML, see `rivage.graphs.underlay_files`.
    """

    path: Path

    def build(self) -> Underlay:
        """Read it."""
        return load_underlay(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixUnderlay:
    """Latencies between every two nodes that have a link, as a CSV matrix with names in its first row and column.

    Args:
        latency: the file, in milliseconds.
        measured: what they are: ``round_trip_ms``, or one way, ``latency_ms``.
        bandwidth: a second matrix, left out for none.
        bandwidth_unit: of its cells.
    """

    latency: Path
    measured: Literal["round_trip_ms", "latency_ms"]
    bandwidth: Path | None = None
    bandwidth_unit: Literal["bit/s", "kbit/s", "Mbit/s", "Gbit/s"] = "bit/s"

    def build(self) -> Underlay:
        """Read them."""
        return load_underlay(
            self.latency, measured=self.measured, bandwidth=self.bandwidth, bandwidth_unit=self.bandwidth_unit
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiers:
    """A tree of tiers, from many nodes near the users up to one.

    Args:
        counts: label of each tier and how many nodes it has, from the users up.
        round_trip_ms: over a link from each tier to the next.
    """

    counts: Mapping[str, int]
    round_trip_ms: tuple[float, ...]

    def build(self) -> Underlay:
        """Draw the tree."""
        return tiers(self.counts, self.round_trip_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyOne:
    """24 base stations, 4 central offices, 2 ISP data centres and a cloud.

    Args:
        devices_per_station: below each base station.
    """

    devices_per_station: int = 0

    def build(self) -> Underlay:
        """Draw the tree."""
        return topology_one(devices_per_station=self.devices_per_station)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyTwo:
    """One branch of `TopologyOne`, with a device at its end: five nodes in line."""

    def build(self) -> Underlay:
        """Draw the line."""
        return topology_two()

"""The networks that a study can name: trees of tiers, files, matrices as ping and iperf give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from rivage.core.errors import ConfigError, require
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
        ms_per_km: one-way latency of a link per km, >= 0, for files that know distances and no latencies.
        ms_per_link: one-way latency to add for each link, >= 0, likewise.
    """

    path: Path
    ms_per_km: float | None = None
    ms_per_link: float | None = None

    def __post_init__(self) -> None:
        for name in ("ms_per_km", "ms_per_link"):
            if getattr(self, name) is not None:
                require(getattr(self, name), name, least=0.0)

    def build(self) -> Underlay:
        """Read it, and add latencies where they are told."""
        underlay = load_underlay(self.path)
        if self.ms_per_km is None and self.ms_per_link is None:
            return underlay
        if underlay.latency_ms is not None:
            raise ConfigError(
                "the file has latencies", where=str(self.path), mend="Leave ms_per_km and ms_per_link out."
            )
        per_km = (self.ms_per_km or 0.0) * underlay.known("distance_km") if self.ms_per_km else 0.0
        return underlay.with_links(latency_ms=per_km + np.full(len(underlay.edges), self.ms_per_link or 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixUnderlay:
    """Latencies between every two nodes that have a link, as a CSV matrix with names in its first row and column.

    Args:
        latency: the file, in milliseconds.
        measured: what they are: ``round_trip_ms``, or one way, ``latency_ms``.
        bandwidth: a second matrix, left out for none.
        bandwidth_unit: of its cells; left out, what its first cell says, else bit/s.
        max_asymmetry: share by which the two directions of a link may differ, in [0, 1]; their mean counts.
    """

    latency: Path
    measured: Literal["round_trip_ms", "latency_ms"]
    bandwidth: Path | None = None
    bandwidth_unit: Literal["bit/s", "kbit/s", "Mbit/s", "Gbit/s"] | None = None
    max_asymmetry: float = 0.2

    def build(self) -> Underlay:
        """Read them."""
        return load_underlay(
            self.latency,
            measured=self.measured,
            bandwidth=self.bandwidth,
            bandwidth_unit=self.bandwidth_unit,
            max_asymmetry=self.max_asymmetry,
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

"""The tables ``[silos]`` and ``[underlay]`` of a study: what silos do in a round, and the network between them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import ConfigError, require, require_one_of
from rivage.core.registry import Registry
from rivage.decentralized.silos import Silos
from rivage.graphs.geography import great_circle_km
from rivage.graphs.path_rules import Connectivity, PathRule, connectivity
from rivage.graphs.underlay import Underlay
from rivage.graphs.underlay_files import load_connectivity

__all__ = ["NETWORKS", "Matrices", "SiloSettings"]

NETWORKS = Registry(
    "rivage.silo_networks",
    "network",
    {
        "cities": "rivage.graphs.place_kinds:Cities",
        "described": "rivage.graphs.place_kinds:Described",
        "file": "rivage.graphs.underlay_kinds:FileUnderlay",
        "matrices": "rivage.decentralized.silo_settings:Matrices",
        "tiers": "rivage.graphs.underlay_kinds:Tiers",
    },
)
"""Kind -> settings that build an `Underlay`, or a `Connectivity` where every two nodes were measured."""

CORE_BPS = 1e9
"""Capacity of every core link in the published tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrices:
    """What was measured between every two sites, in each direction: CSV matrices, names in first row and column.

    Args:
        latency: the file, in milliseconds.
        bandwidth: a second matrix.
        measured: what latencies are: ``round_trip_ms``, as ping shows them, or one way, ``latency_ms``.
        bandwidth_unit: of the cells of the second; left out, what its first cell says, else bit/s.
    """

    latency: Path
    bandwidth: Path
    measured: Literal["round_trip_ms", "latency_ms"] = "round_trip_ms"
    bandwidth_unit: Literal["bit/s", "kbit/s", "Mbit/s", "Gbit/s"] | None = None

    def build(self) -> Connectivity:
        """Read them."""
        unit = self.bandwidth_unit
        return load_connectivity(self.latency, measured=self.measured, bandwidth=self.bandwidth, bandwidth_unit=unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiloSettings:
    """What silos do in a round, and what their network offers them.

    Args:
        model_bits: size of what a silo sends to another in a round, > 0; left out, that of the model that is trained.
        step_ms: time of one local step, >= 0: one number, or one for each silo in the order of the network.
        local_steps: per round, >= 0.
        access_bps: rate of the access links, up and down, > 0: one number, or one for each silo; left out, what the
            network says, and no limit where it says nothing.
        access_down_bps: of the downlinks, where they differ.
        paths: ``"published"``: shortest by distance, 0.0085 ms per km and 4 ms per path, capacity divided by hops;
            ``"links"``: fastest by the latencies of the links, capacity of the slowest; left out, the first where
            latencies are not known. Where lengths are not known either, they are those over the globe.
        core_bps: one capacity for all links, > 0; left out, their own with paths = "links", 1 Gbit/s as published.
    """

    model_bits: float | None = None
    step_ms: float | tuple[float, ...] = 0.0
    local_steps: int = 1
    access_bps: float | tuple[float, ...] | None = None
    access_down_bps: float | tuple[float, ...] | None = None
    paths: Literal["published", "links"] | None = None
    core_bps: float | None = None

    def __post_init__(self) -> None:
        require(self.local_steps, "local_steps", least=0)
        for name in ("model_bits", "core_bps"):
            if (value := getattr(self, name)) is not None:
                require(value, name, above=0)
        for number in _numbers(self.step_ms):
            require(number, "step_ms", least=0)
        for name in ("access_bps", "access_down_bps"):
            for number in _numbers(getattr(self, name)):
                require(number, name, above=0)
        if self.paths is not None:
            require_one_of(self.paths, "paths", ("published", "links"))

    def rule(self, underlay: Underlay) -> PathRule:
        """How paths of the network become latencies and bandwidths."""
        by_distance = underlay.latency_ms is None
        if self.paths == "published" or (self.paths is None and by_distance):
            return PathRule.published(CORE_BPS if self.core_bps is None else self.core_bps)
        return PathRule(core_bps=self.core_bps)

    def silos(self, network: Underlay | Connectivity, model_bits: float | None = None) -> Silos:
        """The silos of a network, one at each node.

        Args:
            network: links, or what was measured between every two nodes.
            model_bits: of the model that is trained, for settings without.

        Raises:
            ConfigError: for numbers that do not fit the network, or a network that does not know what is needed.
        """
        between = self._between(network)
        bits = self.model_bits if self.model_bits is not None else model_bits
        if bits is None:
            raise ConfigError(
                "the size of the model is not known", where="[silos] model_bits", mend="Give it in bits, --model-bits."
            )
        count = len(between)
        return Silos(
            connectivity=between,
            model_bits=bits,
            step_ms=_each(self.step_ms, count, "step_ms"),
            access_up_bps=self._access(network, "access_up_bps", count),
            access_down_bps=self._access(network, "access_down_bps", count),
            local_steps=self.local_steps,
        )

    def _between(self, network: Underlay | Connectivity) -> Connectivity:
        """What joins every two silos."""
        if isinstance(network, Underlay):
            return connectivity(_measured(network), self.rule(network))
        told = [name for name in ("paths", "core_bps") if getattr(self, name) is not None]
        if told:
            mend = "Leave it out: between every two silos latency and bandwidth are known."
            raise ConfigError(f'"{network.name}" has no links', where=f"[silos] {told[0]}", mend=mend)
        return network

    def _access(
        self, network: Underlay | Connectivity, way: Literal["access_up_bps", "access_down_bps"], count: int
    ) -> Float64[ndarray, "silos"]:
        own = self.access_down_bps if way == "access_down_bps" else None
        given = self.access_bps if own is None else own
        if given is not None:
            return _each(given, count, "access_bps" if own is None else "access_down_bps")
        known = getattr(network, way, None)
        return np.full(count, np.inf) if known is None else np.asarray(known, np.float64)


def _measured(underlay: Underlay) -> Underlay:
    """The network with the lengths of its links, from coordinates where nothing else is known of them."""
    if underlay.latency_ms is not None or underlay.distance_km is not None or not len(underlay.edges):
        return underlay
    if underlay.coordinates is None:
        raise ConfigError(
            "neither latencies nor lengths of the links are known",
            where=f'network "{underlay.name}"',
            mend="Give each link latency_ms, round_trip_ms or distance_km, or each node coordinates.",
        )
    one, other = underlay.edges.T
    ends = underlay.coordinates
    return underlay.with_links(distance_km=great_circle_km(ends[one], ends[other]))


def _numbers(value: float | tuple[float, ...] | None) -> tuple[float, ...]:
    return () if value is None else value if isinstance(value, tuple) else (value,)


def _each(value: float | tuple[float, ...], count: int, name: str) -> Float64[ndarray, "silos"]:
    """One number for all silos, or one each."""
    if isinstance(value, tuple) and len(value) != count:
        raise ConfigError(
            f"{name} has {len(value)} numbers for {count} silos",
            where="[silos]",
            mend=f"Give one number, or {count} in the order of the network.",
        )
    return np.asarray(np.broadcast_to(np.array(value, np.float64), (count,)))

"""How long a round takes on devices, and what it costs them in energy: pure functions of (seed, client, work, bytes).

The time of client k that differentiates n_k records, receives S_down bytes and sends S_up bytes is::

    T_k = T_down + T_comp + T_up = 8 S_down / b_down + n_k t_k + 8 S_up / b_up

with bandwidths b in bits per second and t_k seconds per record that is trained on; t_k = c s_k, where s_k is the time
of one inference and c = 3 (a forward pass, and a backward pass of about twice its cost). Its energy is::

    E_k = P_comp T_comp + P_rx T_down + P_tx T_up

A round of the server ends with the last update it waits for: the m-th smallest T_k among the clients whose update
arrives, or at its deadline.

Attributes of a device are drawn by the inverse distribution function from Philox uniforms keyed by (seed, client), one
stream for each attribute: nothing is stored, any client may be asked alone, in any order, in any population.

**Units.** Sizes are bytes, bandwidths bits per second: ``*_bps`` = 8 · bytes per second. Times are seconds, except that
speeds of devices are given in milliseconds per record, as they are measured.

References:
    Lai, Dai, Singapuram, Liu, Zhu, Madhyastha, Chowdhury. FedScale: benchmarking model and system performance of
    federated learning at scale. ICML 2022, arXiv 2105.11367 (the time model; its code, with c = 3 and one bandwidth
    for both directions). The energy model is the textbook product of power and time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.core.philox import uniforms
from rivage.core.registry import Registry

__all__ = [
    "DEVICES",
    "Attributes",
    "Classes",
    "DeviceClass",
    "DeviceTimes",
    "Devices",
    "Energy",
    "LogNormal",
    "arrivals",
    "cost",
    "energy",
    "times",
]

Ids = Int64[ndarray, "n"]
PerDevice = Float64[ndarray, "n"]
Amount = float | Int64[ndarray, "n"] | Float64[ndarray, "n"]

_CLASS, _SPEED = 0, 1  # Philox streams
_LEAST = 2.0**-54  # stands for a uniform of 0, whose normal quantile is infinite
_SLACK = 5e-3  # by which shares may miss 1: three thirds may be written 0.333


# --- what a device is like ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attributes:
    """What some devices are like; one number each.

    Args:
        train_ms: milliseconds per record that is differentiated, c s_k.
        down_bps: bits per second to the device.
        up_bps: bits per second from the device.
        compute_w: watts while it computes, P_comp.
        receive_w: watts while it receives, P_rx.
        send_w: watts while it sends, P_tx.
    """

    train_ms: PerDevice
    down_bps: PerDevice
    up_bps: PerDevice
    compute_w: PerDevice
    receive_w: PerDevice
    send_w: PerDevice


@runtime_checkable
class Devices(Protocol):
    """A law of devices; ``seed`` is a 64-bit key of its own."""

    def attributes(self, seed: int, ids: Ids) -> Attributes:
        """What these devices are like: always the same for the same (seed, id)."""
        ...


def _require(value: float, name: str, *, above: float | None = None, least: float | None = None) -> None:
    """As `require`, and an infinite number is told to be that."""
    if not math.isfinite(value):
        bound = f"greater than {above}" if above is not None else f"of at least {least}"
        raise ConfigError(f"{name} is {value}", mend=f"Give a finite number {bound}.")
    require(value, name, above=above, least=least)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceClass:
    """Devices that are alike.

    Args:
        share: of the population that belongs to this class, > 0; those of all classes add up to 1, to 0.005.
        inference_ms: milliseconds per record for one inference s_k, > 0.
        down_bps: bits per second to the device, > 0.
        up_bps: bits per second from the device, > 0.
        compute_w: watts while it computes, >= 0.
        receive_w: watts while it receives, >= 0.
        send_w: watts while it sends, >= 0.
    """

    share: float = 1.0
    inference_ms: float = 8.0
    down_bps: float = 20e6
    up_bps: float = 5e6
    compute_w: float = 3.0
    receive_w: float = 1.0
    send_w: float = 1.5

    def __post_init__(self) -> None:
        for name in ("share", "inference_ms", "down_bps", "up_bps"):
            _require(getattr(self, name), name, above=0)
        for name in ("compute_w", "receive_w", "send_w"):
            _require(getattr(self, name), name, least=0)


_OURS = (
    DeviceClass(share=0.3, inference_ms=20.0, down_bps=5e6, up_bps=1e6, compute_w=2.0, receive_w=0.8, send_w=1.2),
    DeviceClass(share=0.5),
    DeviceClass(share=0.2, inference_ms=3.0, down_bps=100e6, up_bps=20e6, compute_w=5.0, receive_w=1.2, send_w=1.8),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Classes:
    """Every device belongs to one of a few classes, drawn by their shares.

    Args:
        classes: at least one; one alone makes all devices alike. The defaults are ours, for orders of magnitude: slow,
            usual and fast telephones; they come from no publication.
        training_factor: cost c of training on a record, in inferences, > 0.
    """

    classes: tuple[DeviceClass, ...] = _OURS
    training_factor: float = 3.0

    def __post_init__(self) -> None:
        _require(self.training_factor, "training_factor", above=0)
        if not self.classes:
            raise ConfigError("classes is empty", mend="Give at least one class of devices.")
        total = math.fsum(each.share for each in self.classes)
        if abs(total - 1) > _SLACK:
            raise ConfigError(
                f"shares of the classes add up to {total:g}",
                mend="Give shares that add up to 1; one class alone has 1.",
            )

    def attributes(self, seed: int, ids: Ids) -> Attributes:
        """The attributes of each device's class. O(n)."""
        bounds = np.cumsum([each.share for each in self.classes])
        drawn = uniforms(seed, ids, 0, _CLASS)[:, 0] * bounds[-1]
        place = np.searchsorted(bounds[:-1], drawn, side="right")

        def column(name: str) -> PerDevice:
            values: PerDevice = np.array([getattr(each, name) for each in self.classes], float)[place]
            return values

        return Attributes(
            train_ms=self.training_factor * column("inference_ms"),
            down_bps=column("down_bps"),
            up_bps=column("up_bps"),
            compute_w=column("compute_w"),
            receive_w=column("receive_w"),
            send_w=column("send_w"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LogNormal:
    """Speeds spread as a lognormal variable, links and powers alike.

    A device takes base_ms · max(floor, exp(mu + sigma Z)) per record that is trained on, Z standard normal.

    Args:
        base_ms: milliseconds per record that is trained on, > 0. The four defaults of the speed law are found in the
            code of simulators and are no measurements; those of links and powers are ours.
        mu: mean of the logarithm.
        sigma: its standard deviation, >= 0.
        floor: no device is faster than this multiple of base_ms, > 0.
        down_bps: bits per second to every device, > 0.
        up_bps: bits per second from every device, > 0.
        compute_w: watts while a device computes, >= 0.
        receive_w: watts while it receives, >= 0.
        send_w: watts while it sends, >= 0.
    """

    base_ms: float = 5.0
    mu: float = 1.0
    sigma: float = 0.6
    floor: float = 1e-4
    down_bps: float = 20e6
    up_bps: float = 5e6
    compute_w: float = 3.0
    receive_w: float = 1.0
    send_w: float = 1.5

    def __post_init__(self) -> None:
        for name in ("base_ms", "floor", "down_bps", "up_bps"):
            _require(getattr(self, name), name, above=0)
        for name in ("sigma", "compute_w", "receive_w", "send_w"):
            _require(getattr(self, name), name, least=0)
        if not math.isfinite(self.mu):
            raise ConfigError(f"mu is {self.mu}", mend="Give a finite number.")

    def attributes(self, seed: int, ids: Ids) -> Attributes:
        """A speed for each device. O(n)."""
        from scipy.special import ndtri

        normal = ndtri(np.maximum(uniforms(seed, ids, 0, _SPEED)[:, 0], _LEAST))
        factor = np.maximum(self.floor, np.exp(self.mu + self.sigma * normal))
        alike = {
            name: np.full(len(ids), float(getattr(self, name)))
            for name in ("down_bps", "up_bps", "compute_w", "receive_w", "send_w")
        }
        return Attributes(train_ms=self.base_ms * factor, **alike)


DEVICES = Registry(
    "rivage.devices",
    "devices",
    {
        "classes": "rivage.simulation.devices:Classes",
        "lognormal": "rivage.simulation.devices:LogNormal",
    },
)


# --- time and energy ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeviceTimes:
    """Seconds of each device."""

    down_s: PerDevice
    compute_s: PerDevice
    up_s: PerDevice

    @property
    def total_s(self) -> PerDevice:
        """From the start of the download to the end of the upload."""
        total: PerDevice = self.down_s + self.compute_s + self.up_s
        return total


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules of each device."""

    compute_j: PerDevice
    receive_j: PerDevice
    send_j: PerDevice

    @property
    def radio_j(self) -> PerDevice:
        """What compression can lower."""
        total: PerDevice = self.receive_j + self.send_j
        return total

    @property
    def total_j(self) -> PerDevice:
        """All of it."""
        total: PerDevice = self.compute_j + self.radio_j
        return total


def times(devices: Attributes, samples: Amount, bytes_down: Amount, bytes_up: Amount) -> DeviceTimes:
    """The three terms of T_k.

    Args:
        devices: what they are like, n of them.
        samples: records differentiated, over all local steps; one number, or one per device.
        bytes_down: received by each.
        bytes_up: sent by each, after compression.
    """
    return DeviceTimes(
        down_s=8.0 * np.asarray(bytes_down, float) / devices.down_bps,
        compute_s=np.asarray(samples, float) * devices.train_ms / 1000.0,
        up_s=8.0 * np.asarray(bytes_up, float) / devices.up_bps,
    )


def energy(devices: Attributes, spent: DeviceTimes) -> Energy:
    """The three terms of E_k."""
    return Energy(
        compute_j=devices.compute_w * spent.compute_s,
        receive_j=devices.receive_w * spent.down_s,
        send_j=devices.send_w * spent.up_s,
    )


def arrivals(
    total_s: PerDevice, keep: int | None = None, deadline_s: float | None = None
) -> tuple[Bool[ndarray, "n"], float]:
    """Whose updates a server uses, and when its round ends.

    It waits for the first ``keep`` updates (over-selection: ask 1.3 m clients, keep m), or for all that will come, but
    not beyond the deadline. Of updates that arrive at the same instant the one that stands first is kept.

    Args:
        total_s: when each client's update arrives; infinite if it never does.
        keep: updates after which the server stops waiting, >= 1; None for all.
        deadline_s: seconds after which it stops waiting, > 0; None for never.

    Returns:
        Which updates are used, and the duration of the round in seconds: the arrival of the last one that was waited
        for; the deadline if fewer than ``keep``, or not all, came before it; 0 if none comes and there is no deadline.

    Example:
        >>> mask, seconds = arrivals(np.array([5.0, 1.0, np.inf, 2.0]), keep=2)
        >>> mask.tolist(), seconds
        ([False, True, False, True], 2.0)
    """
    if keep is not None:
        require(keep, "keep", least=1)
    if deadline_s is not None:
        require(deadline_s, "deadline_s", above=0)
    wanted = len(total_s) if keep is None else min(keep, len(total_s))
    first = np.argsort(total_s, kind="stable")[:wanted]
    used = np.zeros(len(total_s), bool)
    used[first] = np.isfinite(total_s[first]) & (total_s[first] <= (math.inf if deadline_s is None else deadline_s))
    if deadline_s is not None and used.sum() < wanted:
        return used, float(deadline_s)
    return used, float(total_s[used].max(initial=0.0))


def cost(
    law: Devices,
    seed: int,
    ids: Ids,
    samples: Amount,
    bytes_down: Amount,
    bytes_up: Amount,
    *,
    arrives: Bool[ndarray, "n"] | None = None,
    keep: int | None = None,
    deadline_s: float | None = None,
) -> dict[str, float]:
    """What one round costs: numbers for its event in the record.

    Whoever is lost has spent what it is said to have spent, but nobody waits for it.

    Args:
        law: of the devices.
        seed: 64-bit key.
        ids: the cohort.
        samples: records differentiated by each.
        bytes_down: received by each.
        bytes_up: sent by each.
        arrives: whose update arrives; None for all.
        keep: see `arrivals`.
        deadline_s: see `arrivals`.

    Returns:
        ``simulated_s``, the duration of the round; ``energy_j``, the joules of all clients together, and
        ``energy_radio_j``, the part of it spent on sending and receiving. Equal in whatever order the clients stand.
    """
    devices = law.attributes(seed, np.asarray(ids, np.int64))
    spent = times(devices, samples, bytes_down, bytes_up)
    joules = energy(devices, spent)
    total_s = spent.total_s if arrives is None else np.where(arrives, spent.total_s, np.inf)
    return {
        "simulated_s": arrivals(total_s, keep, deadline_s)[1],
        "energy_j": math.fsum([*joules.compute_j, *joules.receive_j, *joules.send_j]),
        "energy_radio_j": math.fsum([*joules.receive_j, *joules.send_j]),
    }

"""The kinds of measurements, each asked of the probes of the machines that take part, and what their faults mean.

=============== ================================================================================================
``step``        what the command of one machine says that a local step takes
``latency``     round trips of a small message from one machine to another and back, over an open connection
``bandwidth``   one transfer, as a model travels: it ends when the receiver has had enough bytes or seconds
``access_up``   transfers from one machine to all others at once
``access_down`` transfers from all others to one machine at once
=============== ================================================================================================

Of a transfer, what arrived in the second half of its time counts (`rivage.studies.measuring.rates`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from rivage.core.errors import DataError, ProtocolError
from rivage.studies.measuring.agents import Agent
from rivage.studies.measuring.hosts import Hosts
from rivage.studies.measuring.rates import Samples, later, rate_of, round_trips_of

__all__ = ["KINDS", "Measurements", "shown", "way"]

KINDS = ("step", "latency", "bandwidth", "access_up", "access_down")
"""In the order in which they are done: round trips while nothing is sent."""

_STEP = "It must end by printing the milliseconds of one step."


@dataclass(frozen=True, slots=True)
class Measurements:
    """The machines, and how to measure with them.

    Args:
        hosts: their names and settings.
        agents: their probes, in the same order.
    """

    hosts: Hosts
    agents: Sequence[Agent]

    def measure(self, kind: str, one: int, other: int) -> Mapping[str, Any]:
        """The facts of one measurement.

        Args:
            kind: one of `KINDS`.
            one: where it begins.
            other: where it leads to; the same for what concerns a machine alone.

        Raises:
            ProtocolError: naming what failed, where, and what to do.
            DataError: when too little arrived to tell.
        """
        match kind:
            case "step":
                return self._step(one)
            case "latency":
                return self._latency(one, other)
            case "bandwidth":
                streams = self._sent(one, [other])[0]["streams"]
            case "access_up":
                streams = self._up(one)
            case _:
                streams = self._down(one)
        try:
            return asdict(rate_of(streams))
        except DataError as error:
            raise error.at(way(kind, self.hosts.names[one], self.hosts.names[other])) from None

    def _step(self, place: int) -> Mapping[str, Any]:
        host, probing = self.hosts.hosts[place], self.hosts.probing
        wait_s = probing.step_timeout_s + probing.patience_s
        answer = self.agents[place].ask("step", wait_s, command=host.step, timeout_s=probing.step_timeout_s)
        if "fault" in answer:
            raise ProtocolError(f"step failed ({answer['text']})", where=host.name, mend=_STEP)
        try:
            value = float(answer["last"])
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise ProtocolError(f'the last word of step is "{answer["last"][:40]}"', where=host.name, mend=_STEP)
        return {"step_ms": value}

    def _latency(self, one: int, other: int) -> Mapping[str, Any]:
        probing = self.hosts.probing
        wait_s = (probing.pings + 5) * probing.patience_s
        answer = self.agents[one].ask("ping", wait_s, target=self.agents[other].target, count=probing.pings)
        if "fault" in answer:
            raise self._unreached(one, other, answer)
        return asdict(round_trips_of(answer["round_trips_ms"]))

    def _up(self, one: int) -> list[Samples]:
        """From one to all at once; their clocks are taken to start when it did."""
        return [samples for seen in self._sent(one, self._others(one)) for samples in seen["streams"]]

    def _down(self, one: int) -> list[Samples]:
        """From all to one at once, by its clock."""
        others = self._others(one)
        with ThreadPoolExecutor(max_workers=len(others)) as pool:
            sent = [seen for (seen,) in pool.map(lambda other: self._sent(other, [one]), others)]
        return [samples for seen in sent for samples in later(seen["streams"], seen["started"])]

    def _others(self, one: int) -> list[int]:
        return [place for place in range(len(self.agents)) if place != one]

    def _sent(self, one: int, others: Sequence[int]) -> list[Mapping[str, Any]]:
        """What others saw of transfers from one machine to all of them at once."""
        probing = self.hosts.probing
        answer = self.agents[one].ask(
            "send",
            probing.seconds + 6 * probing.patience_s,
            targets=[self.agents[other].target for other in others],
            streams=probing.streams,
            seconds=probing.seconds,
            limit_bytes=max(round(1e6 * probing.megabytes), 1),
        )
        seen: list[Mapping[str, Any]] = answer.get("transfers", [answer])
        for other, each in zip(others, seen, strict=False):
            if "fault" in each:
                raise self._unreached(one, other, each)
        return seen

    def _unreached(self, one: int, other: int, answer: Mapping[str, Any]) -> ProtocolError:
        """Why one machine could not measure with another."""
        peer, text = self.agents[other], answer["text"]
        place, (first, last) = f"{peer.host.address}:{peer.port}", self.hosts.ports
        match answer["fault"]:
            case "refused" | "timeout" | "unreachable":
                what = f"{place} cannot be reached ({text})"
                mend = (
                    f"Mend address, or open TCP ports {first} to {last} of {peer.host.name}, or give others as ports."
                )
            case "address":
                what, mend = f'"{peer.host.address}" is not known ({text})', f"Give {peer.host.name} an IP address."
            case _:
                what, mend = f"the connection to {place} broke ({text})", "Try again, with a larger patience_s perhaps."
        return ProtocolError(what, where=way("", *(self.hosts.names[place] for place in (one, other))), mend=mend)


def way(kind: str, one: str, other: str) -> str:
    """Between whom something is measured, in words."""
    match kind:
        case "step":
            return one
        case "access_up":
            return f"{one} to all"
        case "access_down":
            return f"all to {one}"
    return f"{one} to {other}"


def shown(kind: str, one: str, other: str, facts: Mapping[str, Any]) -> str:
    """A result in a few words."""
    match kind:
        case "step":
            value = f"{facts['step_ms']:.4g} ms per step"
        case "latency":
            value = f"{facts['median_ms']:.4g} ms"
        case _:
            value = f"{facts['bps'] / 1e6:.4g} Mbit/s"
    return f"{way(kind, one, other)}: {value}"

"""Latency and bandwidth between every ordered pair of machines, measured by themselves.

First all round trips, on a quiet network: of a small message to the other machine and back, over a connection that is
open; the median counts. Then all transfers: one after the other, or some at once between different machines, so that
no two share an access link. A transfer goes over one TCP connection, as a model does; it ends when the receiver has had
enough bytes or seconds, and the rate at which bytes arrived in the second half of its time is the bandwidth: in the
first half TCP gets up to speed.

Every result is kept as soon as it is there. What failed is told at the end, and the same call again measures what is
missing.

Cost: N (N − 1) transfers of at most ``seconds`` and ``megabytes``, with ``at_once`` = N / 2 in 2 (N − 1) times
``seconds``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rivage.core.errors import DataError, ProtocolError, RivageError
from rivage.core.observers import Observer, Silent
from rivage.studies.measuring.agents import Agent
from rivage.studies.measuring.hosts import Host, Hosts
from rivage.studies.measuring.rates import rate_of, round_trips_of
from rivage.studies.measuring.results import Measured, Pair, Results, write_measured

__all__ = ["measure", "meetings"]

_SLACK_S = 60.0  # between what a probe should live and what it may


def measure(
    hosts: Hosts,
    folder: Path | str,
    observer: Observer | None = None,
    *,
    fresh: bool = False,
    now: Callable[[], str] = lambda: datetime.now(UTC).isoformat(timespec="seconds"),
) -> Measured:
    """Measure what is missing, and write the matrices.

    Args:
        hosts: the machines.
        folder: gets the files; results that are there are kept.
        observer: is told what happens: ``study``, ``notice``, ``point`` after each measurement, ``study_end``.
        fresh: forget earlier results.
        now: the time, as results should tell it.

    Raises:
        ProtocolError: naming the machines and pairs that failed; the others are measured and written.
        StoreError: for files of results that are corrupt.
    """
    results = Results(Path(folder), hosts)
    if fresh:
        results.forget()
    work = _Work(hosts, results, Silent() if observer is None else observer, now)
    problems = work.do()
    measured = write_measured(results)
    if problems:
        raise _failed(work, problems)
    work.observer.on_event({"event": "study_end"})
    return measured


def meetings(count: int, at_once: int = 1) -> Iterator[list[Pair]]:
    """Every ordered pair once, in groups of at most ``at_once`` pairs that have nobody in common.

    A round-robin tournament: in each of its rounds everybody meets one other, or nobody where their number is odd.
    """
    seats: list[int | None] = [*range(count), *([None] if count % 2 else [])]
    for _ in range(len(seats) - 1):
        half = len(seats) // 2
        met = zip(seats[:half], reversed(seats[half:]), strict=True)
        pairs = [(one, other) for one, other in met if one is not None and other is not None]
        for start in range(0, len(pairs), at_once):
            group = pairs[start : start + at_once]
            yield group
            yield [(other, one) for one, other in group]
        seats[1:] = [seats[-1], *seats[1:-1]]


class _Work:
    """One call of `measure`."""

    def __init__(self, hosts: Hosts, results: Results, observer: Observer, now: Callable[[], str]) -> None:
        self.hosts, self.results, self.observer, self.now = hosts, results, observer, now
        self.probing = hosts.probing
        self.agents: dict[int, Agent] = {}
        self.lost: dict[int, RivageError] = {}
        self.done = 0
        self.todo = {what: results.missing(what) for what in ("latency", "bandwidth")}
        self.steps = [i for i, host in enumerate(hosts.hosts) if host.step and results.of("step", host, host) is None]

    @property
    def planned(self) -> int:
        return sum(map(len, self.todo.values())) + len(self.steps)

    @property
    def left(self) -> int:
        """Pairs that are still not measured."""
        return sum(len(self.results.missing(what)) for what in self.todo)

    def do(self) -> list[RivageError]:
        """Measure what is missing; what went wrong."""
        self.observer.on_event({"event": "study", "trials": 1, "rounds": self.planned, "unit": "measurements"})
        self._announce()
        if not self.planned:
            return []
        with ExitStack() as stack:
            problems = self._start(stack)
            if problems:
                return problems
            return [*self._all("step", [[(i, i)] for i in self.steps]), *self._passes()]

    def _announce(self) -> None:
        pairs, probing = len(self.hosts) * (len(self.hosts) - 1), self.probing
        known = 2 * pairs - sum(map(len, self.todo.values()))
        if known:
            times = sorted(fact["time"] for fact in self.results.facts.values())
            self._tell(f"{known} of {2 * pairs} measurements are there, the oldest of {times[0]}")
        if transfers := len(self.todo["bandwidth"]):
            self._tell(
                f"{transfers} transfers of at most {probing.megabytes:g} MB and {probing.seconds:g} s each: at most "
                f"{transfers * probing.megabytes / 1000:.3g} GB and {transfers * probing.seconds / 60:.2g} minutes"
            )

    def _tell(self, text: str) -> None:
        self.observer.on_event({"event": "notice", "text": text})

    def _start(self, stack: ExitStack) -> list[RivageError]:
        """Bring up all probes; nothing is measured unless all of them run."""
        problems: list[RivageError] = []
        token = secrets.token_hex(16)
        for place, host in enumerate(self.hosts.hosts):
            try:
                self.agents[place] = stack.enter_context(Agent(host))
            except RivageError as error:
                problems.append(error.at(host.name))
        for agent in self.agents.values():
            try:
                agent.greet(self.probing.patience_s)
                agent.listen(self.hosts.ports, token, self._life_s(), self.probing.patience_s)
            except RivageError as error:
                problems.append(error)
        return problems

    def _life_s(self) -> float:
        probing = self.probing
        each = probing.seconds + 3 * probing.patience_s
        return self.planned * each + len(self.steps) * probing.step_timeout_s + _SLACK_S

    def _passes(self) -> list[RivageError]:
        problems = []
        for what in ("latency", "bandwidth"):
            wanted = set(self.todo[what])
            groups = [[pair for pair in group if pair in wanted] for group in self._meetings()]
            problems += self._all(what, groups)
        return problems

    def _meetings(self) -> list[list[Pair]]:
        return list(meetings(len(self.hosts), self.probing.at_once))

    def _all(self, what: str, groups: Sequence[Sequence[Pair]]) -> list[RivageError]:
        """Do a kind of measurement, group by group, without the machines that were lost."""
        problems: list[RivageError] = []
        with ThreadPoolExecutor(max_workers=max(map(len, groups), default=1) or 1) as pool:
            for group in groups:
                there = [pair for pair in group if not set(pair) & set(self.lost)]
                doing = {pool.submit(getattr(self, f"_{what}"), *pair): pair for pair in there}
                for future in as_completed(doing):
                    try:
                        self._keep(what, doing[future], future.result())
                    except RivageError as error:
                        problems += self._blamed(doing[future], error)
        return problems

    def _keep(self, what: str, pair: Pair, facts: Mapping[str, Any]) -> None:
        one, other = (self.hosts.hosts[place] for place in pair)
        self.results.add(what, one, other, {**facts, "time": self.now()})
        self.done += 1
        self.observer.on_event({"event": "point", "done": self.done, "score": _score(what, one, other, facts)})

    def _blamed(self, pair: Pair, error: RivageError) -> list[RivageError]:
        """The error, or those of the machines that are gone, told once."""
        gone = [place for place in dict.fromkeys(pair) if not self.agents[place].alive]
        for place in gone:
            self.lost[place] = self.agents[place].loss()
        return [self.lost[place] for place in gone] or [error]

    def _step(self, place: int, _: int) -> Mapping[str, Any]:
        host, timeout_s = self.hosts.hosts[place], self.probing.step_timeout_s
        patience_s = timeout_s + self.probing.patience_s
        answer = self.agents[place].ask("step", patience_s, command=host.step, timeout_s=timeout_s)
        return {"step_ms": _milliseconds(host, answer)}

    def _latency(self, one: int, other: int) -> Mapping[str, Any]:
        pings = self.probing.pings
        patience_s = (pings + 5) * self.probing.patience_s
        answer = self.agents[one].ask("ping", patience_s, target=self.agents[other].target, count=pings)
        return asdict(round_trips_of(self._good(one, other, answer)["round_trips_ms"]))

    def _bandwidth(self, one: int, other: int) -> Mapping[str, Any]:
        probing = self.probing
        answer = self.agents[one].ask(
            "send",
            probing.seconds + 5 * probing.patience_s,
            targets=[self.agents[other].target],
            streams=probing.streams,
            seconds=probing.seconds,
            limit_bytes=max(int(1e6 * probing.megabytes), 1),
        )
        try:
            rate = rate_of(self._good(one, other, answer["transfers"][0])["streams"])
        except DataError as error:
            raise error.at(self._pair(one, other)) from None
        return asdict(rate)

    def _good(self, one: int, other: int, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        if "fault" in answer:
            raise _unreached(self.agents[other], self.hosts, self._pair(one, other), answer)
        return answer

    def _pair(self, one: int, other: int) -> str:
        return f"{self.hosts.names[one]} to {self.hosts.names[other]}"


def _score(what: str, one: Host, other: Host, facts: Mapping[str, Any]) -> str:
    if what == "step":
        return f"{one.name}: {facts['step_ms']:.4g} ms per step"
    shown = f"{facts['median_ms']:.4g} ms" if what == "latency" else f"{facts['bps'] / 1e6:.4g} Mbit/s"
    return f"{one.name} to {other.name}: {shown}"


def _milliseconds(host: Host, answer: Mapping[str, Any]) -> float:
    """What the command ``step`` printed."""
    mend = "It must end by printing the milliseconds of one step."
    if "fault" in answer:
        raise ProtocolError(f"step failed ({answer['text']})", where=host.name, mend=mend)
    try:
        value = float(answer["last"])
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ProtocolError(f'the last word of step is "{answer["last"][:40]}"', where=host.name, mend=mend)
    return value


def _unreached(peer: Agent, hosts: Hosts, pair: str, answer: Mapping[str, Any]) -> ProtocolError:
    """Why one machine could not measure with another."""
    place, (first, last), text = f"{peer.host.address}:{peer.port}", hosts.ports, answer["text"]
    match answer["fault"]:
        case "refused" | "timeout" | "unreachable":
            what = f"{place} cannot be reached ({text})"
            mend = f"Mend address, or open TCP ports {first} to {last} of {peer.host.name}, or give others as ports."
        case "address":
            what, mend = f'"{peer.host.address}" is not known ({text})', f"Give {peer.host.name} an IP address."
        case _:
            what, mend = f"the connection to {place} broke ({text})", "Start again; only what is missing is measured."
    return ProtocolError(what, where=pair, mend=mend)


def _failed(work: _Work, problems: Sequence[RivageError]) -> RivageError:
    """All that went wrong, each told once, and what to do."""
    told = list(dict.fromkeys(map(str, problems)))
    lines = "".join(f"\n  {text}" for text in told)
    missing = f"{work.left} of {2 * len(work.hosts) * (len(work.hosts) - 1)} measurements are missing"
    return ProtocolError(f"{missing}; start again to measure them{lines}", where=work.hosts.name)

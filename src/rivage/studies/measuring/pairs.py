"""Latency and bandwidth between every ordered pair of machines, measured by themselves.

First the time of a step where a command tells it, then all round trips on a quiet network, then all transfers: one
after the other, or some at once between different machines, so that no two share an access link. At last every machine
sends to all others at once, and receives from all at once: what its access link is good for.

Every result is kept as soon as it is there. What failed is told at the end, and the same call again measures what is
missing.

Cost: N (N − 1) + 2 N times ``seconds`` for N machines, and N (N − 1) + 2 N (N − 1) times ``megabytes``, at most. With
``at_once`` = N / 2 the first N (N − 1) takes 2 (N − 1) times ``seconds``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rivage.core.errors import ProtocolError, RivageError
from rivage.core.observers import Observer, Silent
from rivage.studies.measuring.agents import Agent
from rivage.studies.measuring.hosts import Hosts
from rivage.studies.measuring.measurements import KINDS, Measurements, shown
from rivage.studies.measuring.rates import hasty
from rivage.studies.measuring.results import Measured, Pair, Results, write_measured

__all__ = ["measure", "meetings"]

_SLACK_S = 60.0  # that a probe may live longer than all measurements should take


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
        StoreError: for a file of results that is corrupt.
    """
    results = Results(Path(folder), hosts)
    if fresh:
        results.forget()
    work = _Work(hosts, results, Silent() if observer is None else observer, now)
    problems = work.do()
    measured = write_measured(results)
    if problems:
        raise _failed(results, problems)
    work.observer.on_event({"event": "study_end"})
    return measured


def meetings(count: int, at_once: int = 1) -> Iterator[list[Pair]]:
    """Every ordered pair once, in groups of at most ``at_once`` pairs that have nobody in common.

    A round-robin tournament: in each of its rounds everybody meets one other, or nobody where their number is odd.
    """
    seats: list[int | None] = [*range(count), *([None] if count % 2 else [])]
    half = len(seats) // 2
    for _ in range(len(seats) - 1):
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
        self.todo = {kind: results.missing(kind) for kind in KINDS}
        self.planned = sum(map(len, self.todo.values()))
        self.done = 0
        self.lost: dict[int, RivageError] = {}

    def do(self) -> list[RivageError]:
        """Measure what is missing; what went wrong."""
        self.observer.on_event({"event": "study", "trials": 1, "rounds": self.planned, "unit": "measurements"})
        self._announce()
        if not self.planned:
            return []
        with ExitStack() as stack:
            agents, problems = self._started(stack)
            for kind in () if problems else KINDS:
                problems += self._all(kind, Measurements(self.hosts, agents))
        return problems

    def _announce(self) -> None:
        probing, every = self.hosts.probing, sum(len(self.results.wanted(kind)) for kind in KINDS)
        if every > self.planned:
            oldest = min(facts["time"] for facts in self.results.facts.values())
            self._tell(f"{every - self.planned} of {every} measurements are there, the oldest of {oldest}")
        single, joint = len(self.todo["bandwidth"]), len(self.todo["access_up"]) + len(self.todo["access_down"])
        if single or joint:
            gigabytes = (single + joint * (len(self.hosts) - 1)) * probing.megabytes / 1000
            minutes = (single + joint) * probing.seconds / 60
            self._tell(f"transfers of at most {gigabytes:.3g} GB in all, and of at most {minutes:.2g} minutes")

    def _tell(self, text: str) -> None:
        self.observer.on_event({"event": "notice", "text": text})

    def _started(self, stack: ExitStack) -> tuple[list[Agent], list[RivageError]]:
        """The probes of all machines; nothing is measured unless all of them run."""
        agents: list[Agent] = []
        problems: list[RivageError] = []
        for host in self.hosts.hosts:
            try:
                agents.append(stack.enter_context(Agent(host)))
            except RivageError as error:
                problems.append(error.at(host.name))
        token, patience_s = secrets.token_hex(16), self.hosts.probing.patience_s
        for agent in agents:
            try:
                agent.greet(patience_s)
                agent.listen(self.hosts.ports, token, self._life_s(), patience_s)
            except RivageError as error:
                problems.append(error)
        return agents, problems

    def _life_s(self) -> float:
        probing = self.hosts.probing
        each = probing.seconds + 3 * probing.patience_s
        return self.planned * each + len(self.todo["step"]) * probing.step_timeout_s + _SLACK_S

    def _groups(self, kind: str) -> Iterator[list[Pair]]:
        """What may be measured at the same time."""
        todo = set(self.todo[kind])
        if kind in ("latency", "bandwidth"):
            for group in meetings(len(self.hosts), self.hosts.probing.at_once):
                yield [pair for pair in group if pair in todo]
        else:
            yield from ([pair] for pair in self.todo[kind])

    def _all(self, kind: str, measurements: Measurements) -> list[RivageError]:
        """Do all measurements of a kind, without the machines that are lost."""
        problems: list[RivageError] = []
        with ThreadPoolExecutor(max_workers=self.hosts.probing.at_once) as pool:
            try:
                for group in self._groups(kind):
                    there = [pair for pair in group if not self._concerned(kind, pair) & set(self.lost)]
                    doing = {pool.submit(measurements.measure, kind, *pair): pair for pair in there}
                    for future in as_completed(doing):
                        problems += self._taken(kind, doing[future], future, measurements.agents)
            except BaseException:
                for agent in measurements.agents:
                    agent.kill()  # else the pool would wait for answers
                raise
        return problems

    def _taken(
        self, kind: str, pair: Pair, future: Future[Mapping[str, Any]], agents: Sequence[Agent]
    ) -> list[RivageError]:
        """Keep a result, or tell why there is none."""
        try:
            facts = {**future.result(), "time": self.now()}
        except RivageError as error:
            return self._blamed(self._concerned(kind, pair), error, agents)
        self._keep(kind, pair, facts)
        return []

    def _concerned(self, kind: str, pair: Pair) -> set[int]:
        """The machines without which something cannot be measured."""
        return set(range(len(self.hosts))) if kind.startswith("access") else set(pair)

    def _keep(self, kind: str, pair: Pair, facts: Mapping[str, Any]) -> None:
        self.results.add(kind, pair, facts)
        one, other = (self.hosts.names[place] for place in pair)
        self.done += 1
        self.observer.on_event({"event": "point", "done": self.done, "score": shown(kind, one, other, facts)})
        round_trip = self.results.value("latency", pair, "median_ms")
        if kind == "bandwidth" and round_trip is not None and hasty(facts["seconds"], round_trip):
            self._tell(f"{one} to {other}: over too soon to get up to speed; raise megabytes or seconds")

    def _blamed(self, concerned: set[int], error: RivageError, agents: Sequence[Agent]) -> list[RivageError]:
        """The error, or those of the machines that are gone."""
        gone = [place for place in sorted(concerned) if not agents[place].alive]
        for place in gone:
            self.lost[place] = agents[place].loss()
        return [self.lost[place] for place in gone] or [error]


def _failed(results: Results, problems: Sequence[RivageError]) -> RivageError:
    """All that went wrong, each told once, and what to do."""
    lines = "".join(f"\n  {text}" for text in dict.fromkeys(map(str, problems)))
    missing, every = (sum(len(of(kind)) for kind in KINDS) for of in (results.missing, results.wanted))
    what = f"{missing} of {every} measurements are missing; start again to measure them{lines}"
    return ProtocolError(what, where=results.hosts.name)

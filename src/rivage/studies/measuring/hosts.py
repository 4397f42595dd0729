"""The file of machines to measure: who they are, where the others reach them, and how their shells are reached.

TOML says it all::

    name = "hospitals"
    ports = [47100, 47199]                            # free ones are taken from here; open them between the machines

    [[hosts]]
    name = "Paris"
    address = "10.8.0.1"                              # at which the others reach it
    command = "ssh -o BatchMode=yes alice@paris"      # what a command there begins with; none for this machine
    step = "cd study && python3 one_step.py"          # optional: prints the ms of one local step last

    [probing]                                         # optional
    seconds = 5

A plain text has one machine per line: name, address, and the rest of the line is the command.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rivage.core.errors import ConfigError, RivageError, require
from rivage.core.settings import combine, read
from rivage.core.store import read_text
from rivage.core.toml import load_toml

__all__ = ["Host", "Hosts", "Probing", "load_hosts", "parse_lines"]

_ADDRESS = re.compile(r"[A-Za-z0-9_.:%-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine of a silo.

    Args:
        name: of the silo.
        address: name or number at which the others reach it.
        command: what a command there begins with, in the words of a shell, e.g. ``ssh -o BatchMode=yes alice@paris``;
            left out for this machine.
        bind: address on which it listens, where that is not the one the others reach it at (NAT).
        python: Python 3.6 or later there; left out, ``python3``, and the running one on this machine.
        step: command for its shell that makes local steps and, last of all, prints the milliseconds that one took.
    """

    name: str
    address: str
    command: str = ""
    bind: str | None = None
    python: str | None = None
    step: str | None = None

    def __post_init__(self) -> None:
        if self.name != self.name.strip() or not self.name.isprintable() or not self.name:
            raise ConfigError(f"name is {self.name!r}", mend="Give printable characters without blanks around them.")
        for key in ("address", "bind"):
            value = getattr(self, key)
            if value is not None and not _ADDRESS.fullmatch(value):
                raise ConfigError(f'{key} of "{self.name}" is {value!r}', mend="Give a host name or an IP address.")
        for key in ("command", "python"):
            try:
                shlex.split(getattr(self, key) or "")
            except ValueError as error:
                mend = "Close the quotation marks, and write a backslash twice."
                raise ConfigError(f'{key} of "{self.name}": {error}', mend=mend) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probing:
    """How to measure.

    Args:
        pings: round trips of a small message per ordered pair, >= 1.
        seconds: longest time of a transfer, > 0; its second half counts.
        megabytes: most that a transfer sends, > 0.
        streams: TCP connections of a transfer, >= 1. A model travels over one.
        access: whether every machine also sends to all others at once, and receives from all.
        at_once: transfers between different machines that may run at the same time, >= 1. They share no access link,
            but perhaps another.
        patience_s: longest wait for a machine, > 0.
        step_timeout_s: longest time of the command ``step``, > 0.
    """

    pings: int = 20
    seconds: float = 3.0
    megabytes: float = 100.0
    streams: int = 1
    access: bool = True
    at_once: int = 1
    patience_s: float = 10.0
    step_timeout_s: float = 600.0

    def __post_init__(self) -> None:
        for name in ("pings", "streams", "at_once"):
            require(getattr(self, name), name, least=1)
        for name in ("seconds", "megabytes", "patience_s", "step_timeout_s"):
            require(getattr(self, name), name, above=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """The machines to measure.

    Args:
        hosts: at least two.
        name: of the network; that of the file when left out.
        ports: first and last of the range that machines listen in.
        probing: how to measure.
    """

    hosts: tuple[Host, ...]
    name: str = ""
    ports: tuple[int, int] = (47100, 47199)
    probing: Probing = field(default_factory=Probing)

    def __post_init__(self) -> None:
        problems: list[RivageError] = list(self._problems())
        if problems:
            raise combine(problems)

    def __len__(self) -> int:
        return len(self.hosts)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the machines."""
        return tuple(host.name for host in self.hosts)

    def _problems(self) -> Iterator[ConfigError]:
        first, last = self.ports
        if not 1 <= first <= last <= 65535:
            yield ConfigError(f"ports are {first} to {last}", mend="Give the first and the last, from 1 to 65535.")
        if len(self.hosts) < 2:
            yield ConfigError(
                "there is one host" if self.hosts else "there is no host", mend="Give two or more: pairs are measured."
            )
        twice = [name for name in dict.fromkeys(self.names) if self.names.count(name) > 1]
        if twice:
            yield ConfigError(f"several hosts are named {', '.join(twice)}", mend="Give each a name of its own.")


def load_hosts(path: Path | str) -> Hosts:
    """The machines that a file names: TOML if its name ends so, else one per line.

    Raises:
        ConfigError: listing everything that is wrong.
        StoreError: for a text that cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError("there is no such file", where=str(path), mend="Give a file of machines.")
    if path.suffix.lower() != ".toml":
        return parse_lines(read_text(path), str(path), name=path.stem)
    return read(Hosts, {"name": path.stem, **load_toml(path)}, str(path))


def parse_lines(text: str, where: str = "", *, name: str = "") -> Hosts:
    """The machines of a plain text: name, address and command in each line; empty ones and # are skipped.

    Raises:
        ConfigError: listing everything that is wrong.
    """
    hosts: list[Host] = []
    problems: list[RivageError] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            hosts.append(_host(line))
        except ConfigError as error:
            problems.append(error.at(f"line {number}"))
    if not problems:
        try:
            return Hosts(hosts=tuple(hosts), name=name)
        except ConfigError as error:
            problems.append(error)
    raise combine(problems, where)


def _host(line: str) -> Host:
    name, address, command = [*line.split(None, 2), "", ""][:3]
    if not address:
        mend = "Write a name, an address, and what a command there begins with: paris 10.8.0.1 ssh alice@paris"
        raise ConfigError(f'"{name}" has no address', mend=mend)
    return Host(name=name, address=address, command=command.strip())

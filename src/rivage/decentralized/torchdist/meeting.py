"""How the processes of a run find each other.

Started by hand or by ``torchrun``, a process reads from its environment which silo it is (RANK), how many there are
(WORLD_SIZE) and where all meet (MASTER_ADDR, MASTER_PORT). They meet at a store: torchrun's, or one that the first silo
opens. Then gloo connects those, and only those, that have an arc between them, when it is first used.

Gloo and the store have neither encryption nor passwords. Without an interface named they stay on the loopback of one
machine: whoever reaches the port can read and write the models.

References:
    PyTorch, torch.distributed and torchrun: environment variables, TCPStore, gloo devices.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from torch.distributed import PrefixStore, ProcessGroupGloo, Store, TCPStore  # type: ignore[attr-defined]

from rivage.core.errors import ConfigError, ProtocolError, require

__all__ = ["LOOPBACK", "PLAINTEXT", "Meeting", "copy_of", "group_of", "require_private"]

LOOPBACK = "127.0.0.1"

PLAINTEXT = (
    "gloo neither encrypts nor asks who is there: models cross {interface} in plain text, and whoever reaches the port "
    "can change them. Let it be the interface of a VPN (WireGuard, IPsec)."
)

_TRANSFER = timedelta(hours=6)  # gloo's own limit of one transfer; a silo that is gone is noticed by the watch
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """Who this process is, and where all meet.

    Args:
        rank: position of its silo.
        size: how many silos there are.
        address: of the machine with the store.
        port: of the store.
        interface: name of the network interface that models cross; None is loopback.
        hosted: whether the store is there already, torchrun's for one; otherwise silo 0 opens it.
        attempt: how often the run was started before, when the same store outlives it.
        listener: a socket for the store that listens already.
    """

    rank: int
    size: int
    address: str
    port: int
    interface: str | None = None
    hosted: bool = False
    attempt: int = 0
    listener: socket.socket | None = None

    def __post_init__(self) -> None:
        require(self.size, "WORLD_SIZE", least=1)
        require(self.rank, "RANK", least=0)
        if self.rank >= self.size:
            raise ConfigError(f"RANK is {self.rank} of WORLD_SIZE {self.size}", mend="Ranks count from 0.")
        require_private(self.address, self.interface)

    @classmethod
    def here(cls, size: int) -> Self:
        """Silo 0 of a run on this machine, at a port that is free."""
        listener = _listen(LOOPBACK, 0)
        return cls(rank=0, size=size, address=LOOPBACK, port=listener.getsockname()[1], listener=listener)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], interface: str | None = None) -> Self | None:
        """What torchrun's variables say; None where there are none.

        Raises:
            ConfigError: when some are missing or no numbers, or when the address is not on this machine although no
                interface was named.
        """
        if "RANK" not in environment:
            return None
        if missing := [name for name in _VARIABLES if name not in environment]:
            raise ConfigError(
                f"RANK is set and {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not",
                where="the environment",
                mend="Start all silos by torchrun, or set all of " + ", ".join(_VARIABLES) + ".",
            )
        return cls(
            rank=_number(environment, "RANK"),
            size=_number(environment, "WORLD_SIZE"),
            address=environment["MASTER_ADDR"],
            port=_number(environment, "MASTER_PORT"),
            interface=interface,
            hosted=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            attempt=int(environment.get("TORCHELASTIC_RESTART_COUNT", 0)),
        )

    def environment(self) -> dict[str, str]:
        """The same as variables, for a process that is to be this one."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.size),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
            "TORCHELASTIC_USE_AGENT_STORE": str(self.hosted),
            "TORCHELASTIC_RESTART_COUNT": str(self.attempt),
        }

    @property
    def keeper(self) -> int | None:
        """The silo that holds the store; None when it is somewhere else."""
        return None if self.hosted else 0

    def store(self, *, wait_s: float = 120.0) -> Store:
        """The store, opened here where that is this process's part.

        Raises:
            ProtocolError: when it is not there in time.
        """
        opens = self.rank == 0 and not self.hosted
        try:
            return PrefixStore(f"rivage {self.attempt}", self._open(wait_s) if opens else self._join(wait_s))
        except (RuntimeError, OSError) as error:
            raise ProtocolError(
                f"the store of the run cannot be {'opened' if opens else 'reached'} ({str(error).splitlines()[0]})",
                where=f"{self.address}:{self.port}",
                mend="Start all silos within two minutes of each other, with the address of silo 0 and a free port.",
            ) from error

    def _open(self, wait_s: float) -> TCPStore:
        """A store that listens at this address only: left to itself it listens everywhere."""
        listener = self.listener or _listen(self.address, self.port)
        return TCPStore(
            self.address,
            self.port,
            is_master=True,
            timeout=timedelta(seconds=wait_s),
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )

    def _join(self, wait_s: float) -> TCPStore:
        return TCPStore(
            self.address, self.port, is_master=False, timeout=timedelta(seconds=wait_s), wait_for_workers=False
        )


def copy_of(store: Store) -> Store:
    """The same store over a connection of its own: calls that wait hold the one they are made on."""
    return store.clone()  # type: ignore[attr-defined,no-any-return]


def group_of(meeting: Meeting, store: Store) -> ProcessGroupGloo:
    """The group of all silos; two of them are connected when they first exchange something.

    Raises:
        ConfigError: for an interface that is not there.
    """
    options = ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._timeout, options._threads = _TRANSFER, 2
    options._devices = [_device(meeting.interface)]
    return ProcessGroupGloo(PrefixStore("gloo", store), meeting.rank, meeting.size, options)


def _device(interface: str | None) -> ProcessGroupGloo.Device:
    if interface is None:
        return ProcessGroupGloo.create_device(hostname=LOOPBACK, lazy_init=True)
    there = [name for _, name in socket.if_nameindex()]
    if interface not in there:
        raise ConfigError(
            f'no network interface "{interface}"', where="--interface", mend=f"This machine has {', '.join(there)}."
        )
    try:
        return ProcessGroupGloo.create_device(interface=interface, lazy_init=True)
    except RuntimeError as error:
        raise ConfigError(
            f'interface "{interface}" has no address', where="--interface", mend="Give it one: ip address add …"
        ) from error


def require_private(address: str, interface: str | None) -> None:
    """Refuse to leave the loopback unless an interface was named.

    Raises:
        ConfigError: for an address on other machines.
    """
    if interface is not None or is_loopback(address):
        return
    raise ConfigError(
        f"MASTER_ADDR is {address}, which other machines can reach, and gloo is not encrypted",
        where="--engine torchdist",
        mend="Name the interface that models may cross, --interface wg0, best one of a VPN; or use MASTER_ADDR="
        f"{LOOPBACK}.",
    )


def is_loopback(address: str) -> bool:
    """Whether an address or name leads to this machine only."""
    with suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    try:
        found = {each[4][0] for each in socket.getaddrinfo(address, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(each).is_loopback for each in found)


def _listen(address: str, port: int) -> socket.socket:
    return socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name]
    if not text.isdecimal():
        raise ConfigError(f'{name} is "{text}"', where="the environment", mend="Give a whole number.")
    return int(text)

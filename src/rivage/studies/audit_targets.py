"""Who can be attacked on a log, and who is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rivage.core.errors import ConfigError
from rivage.core.message_log import MessageLog
from rivage.data.population import Population, called, numbers_of
from rivage.federated.trial import Trial

__all__ = ["honest", "named", "senders"]

_SHOWN = 20  # clients that a message lists


def named(clients: Sequence[int | str], population: Population, exchanges: Mapping[int, int]) -> tuple[int, ...]:
    """The numbers of clients that are given by number or name, ascending.

    Args:
        clients: that are given.
        population: which knows their names.
        exchanges: client -> rounds in which it answered.

    Raises:
        ConfigError: for one that is not there, or without a message.
    """
    names = [client for client in clients if isinstance(client, str)]
    number = numbers_of(population, names, where="--clients") if names else {}
    found = sorted({number[client] if isinstance(client, str) else client for client in clients})
    for client in (client for client in found if not exchanges.get(client)):
        name = called(population, client) if client < population.size else f"client {client}"
        known = ", ".join(called(population, each).removeprefix("client ") for each in sorted(exchanges)[:_SHOWN])
        raise ConfigError(f"{name} has no message in the log", where="--clients", mend=f"Clients with some: {known}.")
    return tuple(found)


def honest(trial: Trial, clients: Sequence[int]) -> Sequence[int]:
    """Those that do no harm; all where there are none."""
    if trial.adversary is None:
        return clients
    malicious = trial.adversary.malicious(np.array(clients, np.int64), trial.seed)
    return [client for client, harms in zip(clients, malicious.tolist(), strict=True) if not harms] or clients


def senders(log: Path) -> Mapping[int, int]:
    """Client -> rounds in which it sent anything."""
    rounds: dict[int, set[int]] = {}
    for message in MessageLog.read(log, payloads=False):
        role, _, number = message.sender.partition(":")
        if message.round >= 0 and role == "client" and number.isdecimal():
            rounds.setdefault(int(number), set()).add(message.round)
    return {client: len(took) for client, took in sorted(rounds.items())}

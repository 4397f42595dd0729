"""Who has spent how much of its privacy: read off the record of a trial, and nothing else.

Every round event of a trial with noise says who took part under which sampling rate and for how many steps. The record
survives interruptions, so the budget does too: there is no counter that could start anew. Clients whose update was lost
on the way have released nothing; those whose update the server rejected have.

Where the noise of a round depends on who arrived, the event has its multipliers too; else that of the promise counts.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from rivage.federated.accounting import Release, epsilon_of, merged

__all__ = ["CONCENTRATED", "EVERYONE", "coarsened", "epsilons", "releases_of", "spent"]

EVERYONE = -1
"""Stands for all clients, where they are sampled by chance and nobody may know who took part."""

CONCENTRATED = "concentrated"
"""What a promise has under ``accounting`` where only Rényi divergences are bounded, see `Release`."""

_DISTINCT = 32  # ledgers that are accounted one by one; more are rounded up to so many
_DIGITS = 4  # of the epsilons in a record, rounded up

Releases = tuple[Release, ...]


def releases_of(events: Iterable[Mapping[str, Any]]) -> dict[int, Releases]:
    """What each client has released over all rounds, by client; of nobody where there is no noise.

    Args:
        events: of a trial, from its start on.
    """
    noise, concentrated = None, False
    found: dict[int, list[Release]] = defaultdict(list)
    for event in events:
        if event["event"] == "start":
            told = event.get("differential_privacy")
            noise = None if told is None else float(told["noise_multiplier"])
            concentrated = told is not None and told.get("accounting") == CONCENTRATED
        elif event["event"] == "round" and noise is not None and "private" in event:
            private = event["private"]
            clients, noises = private["clients"], private.get("noise", [noise] * len(private["clients"]))
            for client, z, sampling, steps in zip(clients, noises, private["sampling"], private["steps"], strict=True):
                found[client].append(Release(z, sampling, steps, concentrated))
    return {client: merged(releases) for client, releases in sorted(found.items())}


def epsilons(releases: Mapping[int, Releases], delta: float) -> dict[int, float]:
    """ε of each client, rounded up in the fourth decimal, of its `coarsened` releases."""
    return {client: _up(epsilon_of(own, delta)) for client, own in coarsened(releases).items()}


def spent(events: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The event ``privacy`` with which the record of a trial ends; None for trials without noise."""
    events = list(events)
    told = next((event.get("differential_privacy") for event in events if event["event"] == "start"), None)
    if told is None:
        return None
    releases = releases_of(events)
    return {
        "event": "privacy",
        "unit": told["unit"],
        "delta": told["delta"],
        "clients": list(releases),
        "steps": [sum(release.steps for release in own) for own in releases.values()],
        "epsilon": list(epsilons(releases, told["delta"]).values()),
    }


def _up(epsilon: float) -> float:
    return math.ceil(epsilon * 10.0**_DIGITS) / 10.0**_DIGITS


def coarsened(releases: Mapping[int, Releases]) -> Mapping[int, Releases]:
    """The same where at most 32 different ones are sampled; else with rates and steps rounded up to a common grid.

    Each ε takes a tenth of a second and more, and grows with rate and steps: it is still an upper bound.
    """
    ratio, coarse = 1.01, releases
    while sum(any(release.sampling < 1 for release in own) for own in set(coarse.values())) > _DISTINCT:
        coarse = {client: merged(_rounded(release, ratio) for release in own) for client, own in releases.items()}
        ratio = 1 + 1.25 * (ratio - 1)
    return coarse


def _rounded(release: Release, ratio: float) -> Release:
    """More sampling and more steps, on a geometric grid."""
    step = math.log(ratio)
    sampling = min(1.0, math.exp(step * math.ceil(math.log(release.sampling) / step - 1e-9)) * (1 + 1e-9))
    steps = math.ceil(math.exp(step * math.ceil(math.log(release.steps) / step - 1e-9)))
    return replace(release, sampling=sampling, steps=max(steps, release.steps))

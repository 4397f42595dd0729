"""What is played for one seed of a study of a network of caches.

Network and requests of a seed are the same for all policies. What fixed placements could have gained is found once for
each seed, when the first trial is played, and kept in every record, so that certificates need nothing else.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np

from rivage.core.errors import ConfigError, RivageError
from rivage.core.records import RunRecord
from rivage.core.seeding import Streams
from rivage.core.settings import combine, dump
from rivage.data.requests import RequestTrace
from rivage.graphs.topologies import path
from rivage.online import network_optimum
from rivage.online.cache_networks import CacheNetwork, play_network
from rivage.online.references import reference_of
from rivage.studies.games.network_scenes import Scene, draw_scene
from rivage.studies.games.networks import NetworkPlay, NetworkPlayer
from rivage.studies.games.study import Note, Trial

__all__ = ["NetworkStage"]

_DRAWN = 300  # nodes that a page can show
_LONG = 300_000  # non-zeros of a program that takes a while


@dataclass(frozen=True)
class NetworkStage:
    """The network and the requests of one seed."""

    study: NetworkPlay
    seed: int
    scene: Scene
    trace: RequestTrace

    unit: ClassVar[str] = "requests"

    @classmethod
    def build(cls, study: NetworkPlay, seed: int, before: NetworkStage | None = None) -> Self:
        """Draw the network, read or draw the requests; a file holds the same for all seeds.

        Raises:
            ConfigError: listing everything that does not fit together.
            DataError: for a trace that cannot be used.
        """
        known = before.trace if before is not None and hasattr(study.trace, "stream") else None
        scene, trace = draw_scene(study, Streams(seed), known)
        if before is not None and before.scene.fingerprint == scene.fingerprint:
            return cls(study, seed, before.scene, trace)  # yardsticks included
        stage = cls(study, seed, scene, trace)
        if problems := list(stage._misfits()):
            raise combine(problems)
        return stage

    @property
    def trials(self) -> list[Trial]:
        """Every policy."""
        return [self._trial(player) for player in self.study.policies]

    @property
    def notices(self) -> Iterator[str]:
        """What the user should read before the run."""
        scene, network = self.scene, self.scene.instance.network
        entering = [network.label(node) for node in scene.origins[:5].tolist()]
        more = f" and {len(scene.origins) - 5} others" if len(scene.origins) > 5 else ""
        yield (
            f"{len(scene.requests):,} requests for {scene.instance.items:,} items enter at {', '.join(entering)}{more} "
            f"of {network.nodes:,} nodes with {scene.instance.slots:,} slots"
        )
        if scene.unused:
            yield 'the column "origin" of the trace is not used: [network] origins says where requests enter'
        size = network_optimum.program_size(scene.instance, scene.counts)
        if size > network_optimum.LARGEST_PROGRAM:
            yield (
                f"the linear program over {size:,} numbers is too large: nothing is known that no placement exceeds, "
                "and certificates have no power"
            )
        elif size > _LONG:
            yield f"a linear program over {size:,} numbers is solved first, which may take a minute"

    @staticmethod
    def claims(record: RunRecord) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The bound of every policy that has one, and every policy's gap to what no placement exceeds."""
        for method in record.methods:
            trials = [trial for trial in record.trials if trial.method == method]
            if all(trial.start["factor"] is not None for trial in trials):
                yield "network_regret", {"method": method}
        for method in record.methods:
            yield "network_gap", {"method": method}

    def _misfits(self) -> Iterator[RivageError]:
        """Policies that refuse the network, or would not find room in memory."""
        for number, player in enumerate(self.study.policies, 1):
            need = getattr(player.policy, "memory_bytes", lambda instance: 0)(self.scene.instance)
            try:
                if need > _physical_bytes():
                    raise _too_large(player, self.scene, need)
                player.policy.init(self.scene.instance, Streams(self.seed))
            except RivageError as error:
                yield error.at(f"[[policies]] {number}")

    def _trial(self, player: NetworkPlayer) -> Trial:
        scene, factor = self.scene, getattr(player.policy, "factor", None)
        facts = {
            "policy": player.name,
            "kind": player.kind,
            "foresees": hasattr(player.policy, "foresee"),
            "settings": dump(player.policy),
            "reference": reference_of(player.policy),
            "factor": None if factor is None else float(factor(scene.instance)),
            "horizon": self.study.network.horizon,
            "trace": scene.describe(),
            "network": scene.describe_network(),
        }
        steps = len(scene.requests)
        return Trial(player.name, self.seed, steps, scene.fingerprint, facts, partial(self._play, player))

    def _play(self, player: NetworkPlayer, note: Note) -> dict[str, Any]:
        scene = self.scene
        requests, best = len(scene.requests), scene.yardsticks
        drawn = scene.instance.network.nodes <= _DRAWN
        if drawn:
            note({"event": "network", **scene.map()}, 0, "")
        asked = float(scene.counts @ scene.instance.costs)
        note({"event": "optimum", "relaxed": best.relaxed, "placed": best.placed, "asked": asked}, 0, "")
        _warm_up(player)
        played = play_network(
            player.policy,
            scene.instance,
            scene.requests,
            streams=Streams(self.seed).child("policy"),
            every=-(-requests // self.study.run.points),
            observe=lambda event: note(event, event["requests"], f"cost saved {event['gain'] / event['asked']:.4g}"),
        )
        if drawn:
            note({"event": "placement", **self._placed(player.policy.placement(played.state))}, requests, "")
        return {"requests": requests, "seconds": played.seconds}

    def _placed(self, held: Any) -> dict[str, Any]:
        """What the nodes hold in the end, and how many of the requests that would have answered."""
        return {"held": held.sum(axis=1).tolist(), "answered": self.scene.answered(held).tolist()}


def _physical_bytes() -> float:
    """Memory of the machine; infinite where nobody says."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def _too_large(player: NetworkPlayer, scene: Scene, need: int) -> ConfigError:
    instance = scene.instance
    return ConfigError(
        f"{player.name} would take {need / 1e9:,.1f} GB for {instance.slots:,} slots and {instance.items:,} items, and "
        f"this machine has {_physical_bytes() / 1e9:,.1f} GB",
        mend="Give smaller capacities, fewer items, or a smaller setting of the policy, such as colors.",
    )


def _warm_up(player: NetworkPlayer) -> None:
    """Let what is compiled on first use be compiled before time is taken."""
    small = CacheNetwork.routed(path(3), items=4, capacities=[1, 1, 0], servers=[2] * 4, origins=[0], horizon=4)
    with suppress(RivageError):  # a policy that wants a larger network is compiled when it is played
        play_network(player.policy, small, np.arange(4), streams=Streams(0))

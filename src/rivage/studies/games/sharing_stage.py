"""What is played for one seed of a study of fair sharing.

The best fixed allocations in hindsight are found when the first trial is played, once for each inequality aversion, and
stand in every record, so that certificates need nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial, reduce
from operator import add
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import ConfigError, RivageError
from rivage.core.records import RunRecord
from rivage.core.seeding import Streams
from rivage.core.settings import combine, dump
from rivage.online.fair_benchmarks import FairOptimum
from rivage.online.fair_game import FairPlayed, play_fair
from rivage.online.fair_records import LARGEST_TABLE, part_event
from rivage.online.fair_regret import FairSums, FairTerms
from rivage.online.fairness import OHF, AlphaFairness, FairPolicy
from rivage.online.references import reference_of
from rivage.studies.games.sharing import SharingPlay, SharingPlayer
from rivage.studies.games.sharing_scenes import FairScene, draw_scene
from rivage.studies.games.study import Note, Trial

__all__ = ["SharingStage"]


@dataclass(frozen=True)
class SharingStage:
    """What is shared in one seed."""

    study: SharingPlay
    seed: int
    scene: FairScene

    unit: ClassVar[str] = "slots"

    @classmethod
    def build(cls, study: SharingPlay, seed: int, before: SharingStage | None = None) -> Self:
        """Read or draw what agents want; a file holds the same for all seeds.

        Raises:
            ConfigError: listing everything that does not fit together.
            DataError: for a file that cannot be used.
        """
        if before is not None and not study.demand.drawn:
            return cls(study, seed, before.scene)  # optima included
        stage = cls(study, seed, draw_scene(study, Streams(seed).child("demand")))
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
        agents, slots = self.scene.agents, len(self.scene.slots)
        more = f" and {len(agents) - 8} more" if len(agents) > 8 else ""
        yield f"{slots:,} slots, shared by {', '.join(agents[:8])}{more}"
        if not self._whole:
            yield (
                f"{slots:,} slots of {len(agents):,} agents are more than {LARGEST_TABLE:,} numbers: the record keeps "
                "sums, which prove the bound, but do not say whether fairness can be learnt"
            )
        seers = [player.name for player in self.study.policies if hasattr(player.policy, "foresee")]
        if seers:
            yield f"{', '.join(seers)}: told all slots beforehand and no rival of the others"

    @staticmethod
    def claims(record: RunRecord) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Bound and multipliers of policies that promise something, every rival's gap, and whether there is hope."""
        starts = {trial.method: trial.start for trial in record.trials}
        sworn = [method for method, start in starts.items() if start["terms"] is not None]
        weighing = {method: alpha for method in sworn if (alpha := starts[method]["terms"]["alpha"])}
        for method in sworn:
            yield "fairness_bound", {"method": method}
            if method in weighing:
                yield "multipliers_in_box", {"method": method}
        for method in {alpha: method for method, alpha in reversed(weighing.items())}.values():
            yield "fairness_severity", {"method": method}
        for method, start in starts.items():
            if not start["foresees"]:
                yield "fairness_regret", {"method": method}

    @property
    def _whole(self) -> bool:
        """Whether records keep tables of all slots."""
        return len(self.scene.slots) * len(self.scene.agents) <= LARGEST_TABLE

    def _alpha(self, player: SharingPlayer) -> float:
        own = player.policy.alpha
        return self.study.sharing.alpha if own is None else own

    def _policy(self, player: SharingPlayer) -> FairPolicy:
        """Who plays; a yardstick is told everything."""
        alpha, contender = self._alpha(player), player.policy
        if hasattr(contender, "foresee"):
            policy: FairPolicy = contender.foresee(self.scene, alpha)
            return policy
        return contender.policy(alpha)

    def _misfits(self) -> Iterator[RivageError]:
        """Policies that cannot be played here."""
        judge = self.study.sharing.alpha
        try:
            self.scene.instance.box(judge)
            if self.scene.instance.disagreement is not None:
                self.scene.horizon(judge)  # is there anything to agree on?
        except RivageError as error:
            yield error.at("[sharing]")
            return
        for number, player in enumerate(self.study.policies, 1):
            where = f"[[policies]] {number}"
            if player.kind == "sf" and self.scene.table is None:
                yield ConfigError(
                    "the slot-fair optimum of virtual caches is a programme over all slots and caches, which is too "
                    "large",
                    where=where,
                    mend='Leave it out; kind = "osf" is the slot-fair policy.',
                )
            try:
                self.scene.instance.box(self._alpha(player))
                if not hasattr(player.policy, "foresee"):
                    player.policy.policy(self._alpha(player)).init(self.scene.instance)
            except RivageError as error:
                yield error.at(where)

    def _terms(self, player: SharingPlayer) -> FairTerms | None:
        """What a bound needs; None for policies that promise nothing."""
        if hasattr(player.policy, "foresee"):
            return None
        policy = player.policy.policy(self._alpha(player))
        return FairTerms.of(policy, self.scene.instance) if isinstance(policy, OHF) else None

    def _trial(self, player: SharingPlayer) -> Trial:
        scene, terms = self.scene, self._terms(player)
        facts = {
            "policy": player.name,
            "kind": player.kind,
            "foresees": hasattr(player.policy, "foresee"),
            "settings": dump(player.policy),
            "reference": reference_of(player.policy),
            "judge": self.study.sharing.alpha,
            "alpha": self._alpha(player),
            "disagreement": scene.points.tolist(),
            "terms": None if terms is None else asdict(terms),
            "scene": scene.describe(),
        }
        return Trial(player.name, self.seed, len(scene.slots), scene.fingerprint, facts, partial(self._play, player))

    def _play(self, player: SharingPlayer, note: Note) -> dict[str, Any]:
        scene, slots, terms = self.scene, len(self.scene.slots), self._terms(player)
        note({"event": "optimum", **self._optimum(player)}, 0, "")
        policy, meters, sums = self._policy(player), _Meters(scene, self.study.sharing.alpha), list[FairSums]()
        every, seconds = -(-slots // self.study.run.points), 0.0
        state: Any = None
        play_fair(policy, scene.instance, scene.slots[:1])  # what is compiled on first use is compiled now
        for first in range(0, slots, every):
            part = slice(first, min(first + every, slots))
            began = time.perf_counter()
            played = play_fair(policy, scene.instance, scene.slots[part], state=state)
            seconds, state = seconds + time.perf_counter() - began, played.state
            if terms is not None:
                tables = played.utilities, played.multipliers, scene.comparator(terms.alpha)[part]
                sums.append(FairSums.of(terms, *tables, first))
                note(part_event(sums[-1], *tables, first, self._whole), part.stop, "")
            point = meters.read(played, part.stop)
            note(point, part.stop, "welfare −∞" if point["welfare"] is None else f"welfare {point['welfare']:.4g}")
        if terms is not None:
            found = reduce(add, sums).bounded(terms, state.progress.squares)
            note({"event": "bounded", "regret": found.regret, "bound": found.bound}, slots, "")
        return {"slots": slots, "seconds": seconds}

    def _optimum(self, player: SharingPlayer) -> dict[str, Any]:
        """What fixed allocations give: the fairest for the judge, that of the policy's own aims, the largest sum."""
        scene, judge = self.scene, self.study.sharing.alpha
        best, own = (scene.horizon(alpha) for alpha in (judge, self._alpha(player)))
        return {
            "judge": _told(best),
            "own": _told(own),
            "most": scene.most,
            "shares": scene.shares(best.x),
        }


def _told(optimum: FairOptimum) -> dict[str, Any]:
    return {"welfare": optimum.value, "upper": optimum.upper, "utilities": optimum.utilities.tolist()}


class _Meters:
    """Means from the first slot on.

    Args:
        scene: what is played on.
        judge: inequality aversion that welfare is measured with.
    """

    def __init__(self, scene: FairScene, judge: float) -> None:
        self.scene, self.fairness = scene, AlphaFairness(judge)
        self.utilities = np.zeros(len(scene.agents))
        self.x: Float64[ndarray, "n"] = np.zeros(scene.instance.set.dimension)

    def read(self, played: FairPlayed, slots: int) -> dict[str, Any]:
        """The point after a part of the game, which ends after so many slots."""
        self.utilities = self.utilities + played.utilities.sum(axis=0)
        self.x = self.x + played.mean * len(played.utilities)
        mean = self.utilities / slots
        welfare = self.fairness.value(mean - self.scene.points)
        return {
            "event": "point",
            "slots": slots,
            "utilities": mean.tolist(),
            "welfare": welfare if math.isfinite(welfare) else None,
            "multipliers": played.multipliers[-1].tolist(),
            "shares": self.scene.shares(self.x / slots),
            "squares": played.squares,
            "outside": played.state.outside,
        }

"""What every study of online policies has: a name, competitors, seeds and meters; and how one is played.

A game adds a module with the schema of its studies, and one with the stage on which they are played; the table that its
studies have, such as ``[cache]``, finds both here and `rivage.core.games.GAMES`. Nothing here imports a policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from rivage.core.errors import require
from rivage.core.registry import Registry
from rivage.core.settings import combine, kind_of
from rivage.studies.shared_checks import ambiguous, blank, require_label, require_seeds

if TYPE_CHECKING:
    from rivage.core.records import RunRecord

__all__ = ["STAGES", "STUDIES", "Competitor", "GameRun", "GameStudy", "Note", "Stage", "Trial", "require_game"]

STUDIES = Registry(
    "rivage.game_studies",
    "game",
    {
        "cache": "rivage.studies.games.caches:Play",
        "delivery": "rivage.studies.games.delivery:DeliveryPlay",
        "network": "rivage.studies.games.networks:NetworkPlay",
        "sharing": "rivage.studies.games.sharing:SharingPlay",
    },
)
"""Table -> schema of the studies that have it."""

STAGES = Registry(
    "rivage.game_stages",
    "game",
    {
        "cache": "rivage.studies.games.cache_stage:CacheStage",
        "delivery": "rivage.studies.games.delivery_stage:DeliveryStage",
        "overlays": "rivage.studies.games.design_stage:DesignStage",
        "network": "rivage.studies.games.network_stage:NetworkStage",
        "sharing": "rivage.studies.games.sharing_stage:SharingStage",
        "planners": "rivage.studies.games.placement_stage:PlacementStage",
    },
)
"""Table -> `Stage` of its studies."""

Note = Callable[[dict[str, Any] | None, int, str], None]
"""Takes an event of a trial into the record; tells the observer as well how many steps are done, and the score.

Without an event the observer alone is told: what depends on the clock does not belong in the record.
"""


class GameStudy(Protocol):
    """A comparison of policies that play the same game: a frozen dataclass of settings."""

    game: ClassVar[str]

    @property
    def name(self) -> str:
        """What the run folder is called after."""
        ...

    @property
    def run(self) -> GameRun:
        """Seeds and meters."""
        ...


@dataclass(frozen=True, slots=True)
class Trial:
    """One policy with one seed, ready to be played.

    Args:
        method: what it is called among the trials of the study.
        seed: of its stage.
        steps: how much is played, in the unit of the stage.
        fingerprint: of what is played on; a trial of an earlier start must have met the same.
        facts: of the first event: ``policy``, ``kind``, ``foresees``, ``settings``, ``reference``, what the game adds.
        play: plays it, tells its events, and returns wall-clock facts, ``seconds`` among them.
    """

    method: str
    seed: int
    steps: int
    fingerprint: str
    facts: Mapping[str, Any]
    play: Callable[[Note], dict[str, Any]]

    @property
    def start(self) -> dict[str, Any]:
        """The first event."""
        named = {"method": self.method, "seed": self.seed, "fingerprint": self.fingerprint}
        return {"event": "start", **named, **self.facts}


class Stage(Protocol):
    """What the trials of one seed share."""

    unit: ClassVar[str]
    """What the steps of a trial are: requests, slots."""

    @classmethod
    def build(cls, study: Any, seed: int, before: Any = None) -> Self:
        """The stage of a seed; ``before`` is that of another one, from which it may take what is equal.

        Raises:
            ConfigError: for settings that do not fit what is played.
            DataError: for files that cannot be used.
        """
        ...

    @property
    def trials(self) -> Sequence[Trial]:
        """All of this seed, in order; those of different seeds are taken to be equally many and long."""
        ...

    @property
    def notices(self) -> Iterable[str]:
        """What the user should read before the run."""
        ...

    @staticmethod
    def claims(record: RunRecord) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Which certificates a finished run carries: registered check and its fields."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Competitor:
    """One competitor of a study; each game has its own kinds of policies.

    Args:
        name: what it is called in this study; its kind when left out.
    """

    registry: ClassVar[Registry]
    policy: Any
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.kind)
        require_label(self.name)

    @property
    def kind(self) -> str:
        """The name under which the policy is registered."""
        return kind_of(self.registry, self.policy)


@dataclass(frozen=True, slots=True, kw_only=True)
class GameRun:
    """From which seeds, and how often the meters are read.

    Args:
        seeds: one trial of every policy for each, distinct, 0 <= seed < 2**64.
        points: how often the meters are read, evenly over what is played, >= 1.
    """

    seeds: tuple[int, ...] = (0,)
    points: int = 200

    def __post_init__(self) -> None:
        require_seeds(self.seeds)
        require(self.points, "points", least=1)


def require_game(name: str, competitors: Sequence[str], example: str = "lru") -> None:
    """Refuse a study without a readable name or with ambiguous competitors.

    Raises:
        ConfigError: listing everything that is wrong.
    """
    if problems := [*blank(name), *ambiguous(list(competitors), "policy", "policies", example)]:
        raise combine(problems)

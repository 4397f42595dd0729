"""How a run of online policies is told: one class per kind of game, found by the table that its studies have.

A *game* is what policies play: one cache, caches in a network, shares of a resource. Its studies, records and numbers
are its own; whoever shows or checks a run asks for them here, so that the terminal, the page and ``summary.json``
cannot disagree. A trial of a game is one policy with one seed, and whatever else the game varies; its record has an
event ``point`` for every prefix at which the meters were read, and the last one is the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rivage.core.errors import StoreError
from rivage.core.registry import Registry
from rivage.core.summaries import mean_and_std

if TYPE_CHECKING:
    from rivage.core.records import RunRecord

__all__ = ["GAMES", "Column", "Drawing", "GameView", "game_of", "spread", "view"]

GAMES = Registry(
    "rivage.games",
    "game",
    {
        "cache": "rivage.report.games.caches:CacheView",
        "delivery": "rivage.report.games.delivery:DeliveryView",
        "network": "rivage.report.games.networks:NetworkView",
        "sharing": "rivage.report.games.sharing:SharingView",
        "planners": "rivage.report.games.placements:PlacementView",
        "overlays": "rivage.report.games.designs:DesignView",
    },
)
"""Table of the study -> how its runs are told; plug-ins register theirs under the entry-point group of this name."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table of results.

    Args:
        key: of the rows.
        heading: what stands above.
        detail: shown on the page only.
        headline: what decides; of the best policy it is printed in bold.
        verbatim: the heading is somebody's name, which is not changed.
    """

    key: str
    heading: str
    detail: bool = False
    headline: bool = False
    verbatim: bool = False

    @property
    def title(self) -> str:
        """The heading as a page writes it."""
        return self.heading if self.verbatim else self.heading[:1].upper() + self.heading[1:]


@dataclass(frozen=True, slots=True)
class Drawing:
    """One figure of the page.

    Args:
        heading: above it.
        caption: below it, in sentences.
        svg: inline SVG.
    """

    heading: str
    caption: str
    svg: str


class GameView(Protocol):
    """What is told of one run; made from its record, which may be unfinished."""

    def __init__(self, record: RunRecord) -> None: ...

    @property
    def policies(self) -> dict[str, dict[str, Any]]:
        """What ``summary.json`` says of each policy, planner or overlay, with ``foresees`` and ``finished``."""
        ...

    @property
    def more(self) -> dict[str, Any]:
        """What else ``summary.json`` says, beside policies and certificates."""
        ...

    @property
    def compared(self) -> str:
        """What was compared, in one line."""
        ...

    @property
    def answer(self) -> str:
        """Who won, by how much, and who promised what."""
        ...

    @property
    def progress(self) -> list[str]:
        """What a run that has not finished still lacks, one sentence each."""
        ...

    @property
    def columns(self) -> Sequence[Column]:
        """Of the table of results, after the policy's name."""
        ...

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One per line of the table: ``policy``, ``foresees``, ``finished``, ``best`` and a text for each column."""
        ...

    @property
    def note(self) -> str:
        """What the columns mean."""
        ...

    @property
    def facts(self) -> dict[str, str]:
        """What was played on."""
        ...

    def drawings(self, looks: Mapping[str, Any], name: str) -> Iterator[Drawing]:
        """The figures, in the looks of the policies; ``name`` begins their ids."""
        ...


def game_of(record: RunRecord) -> str:
    """The kind of game that a run is of.

    Raises:
        StoreError: when its settings have the table of none.
    """
    tables = [table for table in GAMES if table in record.settings]
    if tables:
        return "planners" if "planners" in tables else tables[0]  # a plan has the tables of a delivery, too
    raise StoreError(
        "the settings are of no known game",
        where=str(record.folder),
        mend=f"One of the tables {', '.join(f'[{table}]' for table in GAMES)} says what is played.",
    )


def view(record: RunRecord) -> GameView:
    """How a run of policies is told."""
    cls: type[GameView] = GAMES.get(game_of(record))
    return cls(record)


def spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """As `mean_and_std`, but of equal values exactly their value and 0: many policies draw nothing."""
    first, count = (values[0] if values else None), len(values)
    if first is not None and all(value == first for value in values):
        return float(first), 0.0 if count > 1 else None
    return mean_and_std(values)

"""What a silo has of the others once all have met."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch.distributed import ProcessGroupGloo

from rivage.core.errors import ConfigError, RivageError
from rivage.decentralized.torchdist.board import Board
from rivage.decentralized.torchdist.meeting import Meeting, group_of
from rivage.decentralized.torchdist.processes import Processes
from rivage.decentralized.torchdist.watch import Watch

__all__ = ["Company", "gathered"]


@dataclass(frozen=True, kw_only=True)
class Company:
    """The silos of a run, as one of them sees them.

    Args:
        rank: position of this one.
        names: of all.
        watch: whether all are there.
        board: their notices.
        group: what carries their models.
    """

    rank: int
    names: tuple[str, ...]
    watch: Watch
    board: Board
    group: ProcessGroupGloo

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.names)

    def part(self) -> None:
        """All is done: silo 0, which may hold the store, leaves last."""
        if self.rank:
            self.watch.rest()
        self.board.collect("over", True)


@contextmanager
def gathered(meeting: Meeting, names: Sequence[str], processes: Processes | None = None) -> Iterator[Company]:
    """Meet the others; whatever ends the block early is told to them.

    Args:
        meeting: where.
        names: of all silos.
        processes: of the other silos, if this process started them.

    Raises:
        ConfigError: when there are more or fewer processes than silos.
        ProtocolError: when the others are not to be reached.
    """
    if meeting.size != len(names):
        raise ConfigError(
            f"{meeting.size} processes were started for {len(names)} silos",
            where="WORLD_SIZE",
            mend=f"Start one for each silo: torchrun --nproc-per-node {len(names)} …",
        )
    store = meeting.store()
    with Watch(store, meeting.rank, names, keeper=meeting.keeper) as watch:
        if processes is not None:
            processes.report_to(watch)
        try:
            group = group_of(meeting, store)
            board = Board(store, watch)
            yield Company(rank=meeting.rank, names=tuple(names), watch=watch, board=board, group=group)
        except BaseException as error:
            watch.accuse(meeting.rank, _told(error))
            raise


def _told(error: BaseException) -> str:
    if isinstance(error, RivageError):
        return f"stopped: {error.where + ': ' if error.where else ''}{error.what}"
    return "was interrupted" if isinstance(error, KeyboardInterrupt) else f"stopped ({type(error).__name__}: {error})"

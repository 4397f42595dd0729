"""The notice board of a run: small facts that silos tell each other beside the exchange of models.

Which trial comes next, how each silo fares at an evaluation, that a checkpoint is written: JSON values under names, in
the store at which the silos met. What waits for a notice gives up as soon as a silo is known to have failed.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from rivage.core.encoding import dumps
from rivage.core.errors import ProtocolError
from rivage.decentralized.torchdist.meeting import copy_of
from rivage.decentralized.torchdist.watch import Watch

__all__ = ["Board"]

_SHORTEST_S, _LONGEST_S = 0.001, 0.05  # between looks: quick at first, then easy on the one that holds the store


class Board:
    """Notices by name.

    Args:
        store: that all silos reach.
        watch: of the silos; `Watch.rank` is who this one is.
    """

    def __init__(self, store: Store, watch: Watch) -> None:
        self.watch = watch
        self._store = PrefixStore("board", copy_of(store))
        self._times: Counter[str] = Counter()

    @property
    def rank(self) -> int:
        """Position of this silo."""
        return self.watch.rank

    @property
    def size(self) -> int:
        """How many silos there are."""
        return len(self.watch.names)

    def post(self, name: str, value: Any) -> None:
        """Put a notice up, over the one of this name that was there."""
        try:
            self._store.set(name, dumps(value))
        except RuntimeError as error:
            raise self._lost(error) from None

    def read(self, name: str) -> Any:
        """Wait for a notice and read it.

        Raises:
            ProtocolError: naming the silo that failed, when one did.
        """
        pause = _SHORTEST_S
        try:
            while not self._store.check([name]):
                self.watch.check()
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_S)
            return json.loads(self._store.get(name))
        except RuntimeError as error:
            if isinstance(error, ProtocolError):
                raise
            raise self._lost(error) from None

    def announce(self, name: str, value: Any = None) -> Any:
        """What silo 0 says, to all; what others say does not count. Each time is another notice.

        Raises:
            ProtocolError: naming the silo that failed, when one did.
        """
        turn = f"{name}, {self._times[name]}"  # who is quick would read what was said the last time
        self._times[name] += 1
        if self.rank == 0:
            self.post(turn, value)
            return value
        return self.read(turn)

    def collect(self, name: str, value: Any) -> list[Any] | None:
        """Tell silo 0; it gets what all told it, in order, and the notices are taken down. None for the others."""
        turn = f"{name}, {self._times[name]},"  # who is quick may tell the next before this one is read
        self._times[name] += 1
        self.post(f"{turn} {self.rank}", value)
        if self.rank:
            return None
        found = [self.read(f"{turn} {silo}") for silo in range(self.size)]
        for silo in range(self.size):
            self._store.delete_key(f"{turn} {silo}")
        return found

    def meet(self, name: str, then: Callable[[], object] = lambda: None) -> None:
        """Wait until all silos are here, and silo 0 has then done something more."""
        if self.collect(name, True) is not None:
            then()
        self.announce(f"{name}, go")

    def _lost(self, error: RuntimeError) -> ProtocolError:
        text = f"lost the store of the run ({str(error).splitlines()[0]})"
        return self.watch.error(self.watch.gone(self.rank, text))

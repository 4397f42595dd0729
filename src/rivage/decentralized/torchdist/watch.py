"""Whether the other silos are still there, and what went wrong first where one is not.

Every silo writes a sign of life to a store that all can reach, some times a second, from a thread of its own. Who finds
a silo gone, by a closed connection, a dead process or signs that stay out, accuses it in the store, and the first
accusation counts: the others end because that one did, not because of each other. A silo that fails by itself accuses
itself before it leaves. So whatever ends first, all end within seconds and name the same silo.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from rivage.core.errors import ProtocolError, require
from rivage.decentralized.torchdist.meeting import copy_of

__all__ = ["AGAIN", "Fault", "Watch"]

AGAIN = "Run the same command again: all silos go on from their last common checkpoint."

_PATIENCE_S = 2.0  # for the one that failed, or for who saw it die, to say why, before a neighbour says that it is gone


@dataclass(frozen=True, slots=True)
class Fault:
    """What ended a run.

    Args:
        silo: position of the one that failed.
        what: it did, to be read after its name: ``was killed by signal 9``.
    """

    silo: int
    what: str


class Watch:
    """The signs of life of all silos, as one of them sees them. A context: signs are given while it is open.

    Args:
        store: that all reach. It is cloned: calls that wait hold the connection they are made on.
        rank: position of this silo.
        names: of all.
        keeper: position of the silo that holds the store, if one does; when it ends the store is gone with it.
        interval: seconds between signs, > 0.
        silence: seconds without a sign after which a silo counts as gone, longer than some intervals.
        arrival: seconds until a silo must have given its first sign.

    Attributes:
        where: what the run is at, for messages.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        names: Sequence[str],
        *,
        keeper: int | None = 0,
        interval: float = 0.5,
        silence: float = 10.0,
        arrival: float = 120.0,
    ) -> None:
        require(interval, "interval", above=0)
        require(silence, "silence", above=interval)
        self.rank, self.names = rank, tuple(names)
        self._keeper, self._interval, self._silence, self._arrival = keeper, interval, silence, arrival
        self.where = ""
        self._store, self._thread_store = (PrefixStore("watch", copy_of(store)) for _ in range(2))
        self._fault: Fault | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="signs of life", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.rest()

    def rest(self) -> None:
        """Give no more signs: the run is over, and the store may go."""
        self._over.set()
        self._thread.join()

    @property
    def fault(self) -> Fault | None:
        """What ended the run, once that is known here."""
        return self._fault

    def check(self) -> None:
        """Go on only while all are there.

        Raises:
            ProtocolError: naming the silo that failed first.
        """
        if self._fault is not None:
            raise self.error(self._fault)

    def error(self, fault: Fault) -> ProtocolError:
        """The fault for the user."""
        return ProtocolError(f'silo "{self.names[fault.silo]}" {fault.what}', where=self.where, mend=AGAIN)

    def accuse(self, silo: int, what: str, *, patience: float = 0.0) -> Fault:
        """Say that a silo failed, unless something was said before; what was said first.

        Args:
            silo: its position.
            what: it did.
            patience: seconds to wait for somebody who knows more.
        """
        until = time.monotonic() + patience
        while self._fault is None and time.monotonic() < until:
            self._over.wait(0.02)
        if self._fault is None:
            self._fault = self._first(Fault(silo, what))
        return self._fault

    def gone(self, silo: int, what: str) -> Fault:
        """A neighbour is not to be reached any more: why, as it said itself, or else this."""
        return self.accuse(silo, what, patience=_PATIENCE_S)

    def _first(self, fault: Fault) -> Fault:
        """Of what this and the other silos say, what reached the store first."""
        text = json.dumps([fault.silo, fault.what])
        try:
            return Fault(*json.loads(self._store.compare_set("fault", "", text)))
        except RuntimeError:
            return self._keeper_gone() or fault

    def _keeper_gone(self) -> Fault | None:
        return None if self._keeper is None else Fault(self._keeper, "ended, and with it the store of the run")

    def _run(self) -> None:
        seen, since = [""] * len(self.names), [time.monotonic()] * len(self.names)
        count = 0
        try:
            while not self._over.is_set() and self._fault is None:
                count += 1
                self._thread_store.set(f"sign {self.rank}", str(count))
                self._look(seen, since)
                self._over.wait(self._interval)
        except RuntimeError as error:  # the store does not answer
            if not self._over.is_set():
                self._fault = self._fault or self._keeper_gone() or Fault(self.rank, f"lost the store ({error})")

    def _look(self, seen: list[str], since: list[float]) -> None:
        """Read what others say, and whose sign has not changed for too long."""
        store, now = self._thread_store, time.monotonic()
        if store.check(["fault"]):
            self._fault = self._fault or Fault(*json.loads(store.get("fault")))
            return
        for silo in range(len(self.names)):
            sign = store.get(f"sign {silo}").decode() if store.check([f"sign {silo}"]) else ""
            if sign != seen[silo]:
                seen[silo], since[silo] = sign, now
            elif silo != self.rank and now - since[silo] > (self._silence if sign else self._arrival):
                what = f"gave no sign for {self._silence:g} s" if sign else f"did not come within {self._arrival:g} s"
                self._fault = self._first(Fault(silo, what))
                return

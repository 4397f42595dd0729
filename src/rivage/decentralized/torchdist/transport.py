"""What silos send each other: one message over each arc of a leg, in legs that all know in advance.

A *leg* is a set of arcs that are used at the same time: a round of gossip is one, a round through a hub two (to it,
from it). The parties know sender, receiver and length of every message, so nothing but numbers travels.

No order of calls can block. Gloo connects two silos when both first ask for it, and makes each wait for the other:
silos that ever exchange something therefore greet each other first, all pairs in one order. Then all receives of a leg
are posted before its sends, and sends end in the background, which is also what the clock of the overlay means
(`rivage.decentralized.cycle_time`): a silo starts its next round when what it waits for has come, whether or not what
it sent has arrived. Gloo holds a message back until its receive is posted, which would let a slow receiver stop a fast
sender; therefore receives are posted some legs ahead.
"""

from __future__ import annotations

import atexit
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed import ProcessGroupGloo, Work

from rivage.decentralized.torchdist.watch import Watch

__all__ = ["Legs", "Transport"]

Legs = Callable[[int], Sequence[tuple[int, int]]]
"""Number of a leg -> its arcs, senders and receivers."""

_POLL_S = 0.05

_GREETING = 0x7FFFFFFF  # tag of no leg

Waits = Sequence[tuple[int, Callable[[], object]]]
"""Who is waited for, and what waits."""


class Transport:
    """Exchanges vectors of one length with the neighbours of one silo. A context: it lets its thread go when left.

    Args:
        group: of all silos.
        rank: position of this silo.
        legs: who sends to whom, from leg 0.
        first: leg to begin with.
        end: leg not to go to.
        like: a vector as they are exchanged.
        watch: of the silos.
        ahead: how many legs ahead receives are posted, >= 0; each needs memory for what it will receive.
        tag: of leg 0, for transports that are in use at the same time.
    """

    def __init__(
        self,
        group: ProcessGroupGloo,
        rank: int,
        legs: Legs,
        *,
        first: int,
        end: int,
        like: Float[Tensor, "*groups dim"],
        watch: Watch,
        ahead: int = 2,
        tag: int = 0,
    ) -> None:
        self._group, self._rank, self._legs, self._watch = group, rank, legs, watch
        self._like, self._ahead, self._posted, self._end, self._tag = like, ahead, first, end, tag
        self._coming: deque[dict[int, tuple[Work, Tensor]]] = deque()
        self._leaving: deque[tuple[Waits, Tensor]] = deque()
        self._patience = _Patience(watch)
        self._patience.wait([(peer, partial(self._greet, peer)) for peer in self._peers(first)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        try:
            if kind is None:
                self.drain()
        finally:
            self._patience.close()

    def exchange(self, leg: int, vector: Float[Tensor, "*groups dim"]) -> dict[int, Float[Tensor, "*groups dim"]]:
        """Send a vector to all out-neighbours of this leg, and wait for those of all in-neighbours.

        Legs are played in order. ``vector`` must not be written to afterwards.

        Returns:
            What came, by sender, in ascending order.

        Raises:
            ProtocolError: naming the silo that ended, when one did.
        """
        self._post(leg)
        coming = self._coming.popleft()
        targets = sorted({int(to) for one, to in self._legs(leg) if one == self._rank})
        self._leaving.append(([(to, self._start("send", vector, to, self._tag + leg).wait) for to in targets], vector))
        self._patience.wait([(one, work.wait) for one, (work, _) in coming.items()])
        while len(self._leaving) > self._ahead + 1:
            self._patience.wait(self._leaving.popleft()[0])
        return {one: tensor for one, (_, tensor) in coming.items()}

    def drain(self) -> None:
        """Wait until all that was sent has left."""
        while self._leaving:
            self._patience.wait(self._leaving.popleft()[0])

    def _peers(self, first: int) -> list[int]:
        """With whom this silo ever exchanges something: those before it first, as the pairs come in order."""
        arcs = {(int(one), int(to)) for leg in range(first, self._end) for one, to in self._legs(leg)}
        return sorted({one + to - self._rank for one, to in arcs if self._rank in (one, to)})

    def _greet(self, peer: int) -> None:
        vector = self._like[:1].clone()
        if self._rank < peer:
            self._start("send", vector, peer, _GREETING).wait()
        else:
            self._start("recv", vector, peer, _GREETING).wait()

    def _post(self, leg: int) -> None:
        """Be ready to receive what this leg and those after it bring."""
        while self._posted < min(leg + self._ahead + 1, self._end):
            number = self._posted
            senders = sorted({int(one) for one, to in self._legs(number) if to == self._rank})
            buffers = {one: torch.empty_like(self._like) for one in senders}
            self._coming.append(
                {one: (self._start("recv", to, one, self._tag + number), to) for one, to in buffers.items()}
            )
            self._posted += 1

    def _start(self, way: str, vector: Tensor, peer: int, tag: int) -> Work:
        try:
            work: Work = getattr(self._group, way)([vector], peer, tag)
        except RuntimeError as error:
            raise self._watch.error(self._watch.gone(peer, f"is not to be reached ({_first_line(error)})")) from None
        return work


class _Patience:
    """Waits for transfers in a thread of its own: the wait of gloo cannot be called off, but it can be left alone."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._asked: queue.SimpleQueue[Waits | None] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[tuple[int, Exception] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="transfers", daemon=True)
        self._thread.start()

    def wait(self, waits: Waits) -> None:
        """Until all have ended.

        Raises:
            ProtocolError: naming the silo that ended, when one did.
        """
        self._watch.check()
        if not waits:
            return
        self._asked.put(waits)
        while True:
            try:
                failed = self._ended.get(timeout=_POLL_S)
                break
            except queue.Empty:
                self._watch.check()
        if failed is not None:
            silo, error = failed
            if not isinstance(error, RuntimeError):
                raise error
            fault = self._watch.gone(silo, f"is not to be reached ({_first_line(error)})")
            raise self._watch.error(fault) from None

    def close(self) -> None:
        """Let the thread end, once what it waits for has ended; that of a frozen neighbour never does."""
        self._asked.put(None)
        atexit.register(_leave, self._thread)

    def _run(self) -> None:
        while (waits := self._asked.get()) is not None:
            failed = None
            for silo, wait in waits:
                try:
                    wait()
                except Exception as error:  # raised where it is waited for
                    failed = (silo, error)
                    break
            self._ended.put(failed)


def _leave(thread: threading.Thread) -> None:
    """At the end of the process: gloo aborts one whose transfers still wait, whatever it had to report."""
    thread.join(0.5)
    if thread.is_alive():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _first_line(error: RuntimeError) -> str:
    """What gloo says, without the place in its source."""
    text = str(error).splitlines()[0]
    return text.split("] ", 1)[-1].split(". This is", 1)[0]

"""Silos as threads of one process: the same store, sockets and gloo as between processes, without their start."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from rivage.decentralized.torchdist.meeting import Meeting, group_of
from rivage.decentralized.torchdist.watch import Watch


@pytest.fixture(scope="session")
def together() -> Callable[..., list[Any]]:
    """``together(silos, act)`` runs ``act(rank, group, store, watch)`` for all silos; what they return, by rank."""

    def run(silos: int, act: Callable[..., Any], **settings: Any) -> list[Any]:
        first = Meeting.here(silos)
        results: list[Any] = [None] * silos
        stores: list[Any] = [first.store()]

        def play(rank: int) -> None:
            meeting = first if rank == 0 else Meeting(rank=rank, size=silos, address=first.address, port=first.port)
            store = stores[0] if rank == 0 else meeting.store()
            try:
                with Watch(store, rank, [f"s{k}" for k in range(silos)], **settings) as watch:
                    results[rank] = act(rank, group_of(meeting, store), store, watch)
            except Exception as error:
                results[rank] = error.with_traceback(None)  # whose frames would keep connections open

        threads = [threading.Thread(target=play, args=(rank,)) for rank in range(silos)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        for thread in threading.enumerate():
            if thread.name == "transfers":
                thread.join(10)
                assert not thread.is_alive(), "a transfer still waits"
        return results

    return run

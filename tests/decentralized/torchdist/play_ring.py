"""A silo of the tests: it passes numbers around without training. ``python play_ring.py ROUNDS [EXPRESSION]``."""

from __future__ import annotations

import os
import sys

import torch

from rivage.core.errors import RivageError
from rivage.decentralized.torchdist.board import Board
from rivage.decentralized.torchdist.meeting import Meeting, group_of
from rivage.decentralized.torchdist.transport import Transport
from rivage.decentralized.torchdist.watch import Watch


def play(meeting: Meeting, rounds: int, at: str = "", processes=None) -> list[float]:
    store = meeting.store()
    group = group_of(meeting, store)
    names = [chr(ord("a") + k) for k in range(meeting.size)]
    ring = [(k, (k + 1) % meeting.size) for k in range(meeting.size)]
    like = torch.zeros(1000, dtype=torch.float64)
    sums = []
    with Watch(store, meeting.rank, names) as watch:
        if processes is not None:
            processes.report_to(watch)
        board = Board(store, watch)
        board.meet("start")
        with Transport(group, meeting.rank, lambda leg: ring, first=0, end=rounds, like=like, watch=watch) as transport:
            value = like + meeting.rank
            for number in range(rounds):
                exec(at, {"rank": meeting.rank, "round": number, "os": os})
                (value,) = transport.exchange(number, value.clone()).values()
        found = board.collect("end", float(value[0]))
        sums = found or []
    return sums


if __name__ == "__main__":
    here = Meeting.from_environment(os.environ)
    assert here is not None
    try:
        print(play(here, int(sys.argv[1]), *sys.argv[2:]))
    except RivageError as error:
        print(error)
        sys.exit(1)

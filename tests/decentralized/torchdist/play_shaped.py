"""One silo of `test_shaped`: rounds over given arcs with work that is slept. Prints when it began each round, in ms.

``python play_shaped.py SETTINGS``, a JSON object with rank, size, address, port, interface, arcs, rounds, length,
work_ms and ahead.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

from rivage.decentralized.torchdist.company import gathered
from rivage.decentralized.torchdist.meeting import Meeting
from rivage.decentralized.torchdist.transport import Transport


def play(arcs: list[tuple[int, int]], rounds: int, length: int, work_ms: list[float], ahead: int, **where: Any) -> None:
    meeting = Meeting(**where)
    vector = torch.zeros(length, dtype=torch.float64)
    begun = []
    with (
        gathered(meeting, [f"s{k}" for k in range(meeting.size)]) as company,
        Transport(
            company.group,
            company.rank,
            lambda leg: arcs,
            first=0,
            end=rounds,
            like=vector,
            watch=company.watch,
            ahead=ahead,
        ) as transport,
    ):
        company.board.meet("start")
        for number in range(rounds):
            begun.append(1000 * time.monotonic())  # the same clock for all processes of a machine
            time.sleep(work_ms[company.rank] / 1000)
            transport.exchange(number, vector + number)
        begun.append(1000 * time.monotonic())
        transport.drain()
        company.board.meet("end")
        company.part()
    print(json.dumps(begun))


if __name__ == "__main__":
    torch.set_num_threads(1)
    play(**json.loads(sys.argv[1]))

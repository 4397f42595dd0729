from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rivage.core.errors import ProtocolError
from rivage.decentralized.torchdist.board import Board
from rivage.decentralized.torchdist.transport import Transport

Together = Callable[..., list[Any]]
ZERO = torch.zeros(5, dtype=torch.float64)


def same(silos: int, legs: Callable[[int], Any], rounds: int, together: Together, ahead: int = 2) -> list[Any]:
    """Every silo sends 100 · leg + its rank in every leg; what came, by silo and leg."""

    def act(rank: int, group: Any, store: Any, watch: Any) -> list[dict[int, float]]:
        with Transport(group, rank, legs, first=0, end=rounds, like=ZERO, watch=watch, ahead=ahead) as transport:
            came = [transport.exchange(leg, ZERO + 100 * leg + rank) for leg in range(rounds)]
        Board(store, watch).meet("end")  # nobody leaves while others still wait
        return [{one: float(vector[-1]) for one, vector in each.items()} for each in came]

    return together(silos, act)


@pytest.mark.parametrize("ahead", [0, 3])
def test_what_comes_is_what_the_senders_of_the_leg_sent(together: Together, ahead: int) -> None:
    rng = np.random.default_rng(ahead)
    drawn = [np.argwhere((rng.random((5, 5)) < 0.4) & ~np.eye(5, dtype=bool)).tolist() for _ in range(12)]
    came = same(5, lambda leg: drawn[leg], 12, together, ahead)
    for rank in range(5):
        for leg, arcs in enumerate(drawn):
            assert came[rank][leg] == {one: 100 * leg + one for one, to in sorted(arcs) if to == rank}


def test_all_to_all_and_there_and_back_do_not_block(together: Together) -> None:
    everyone = [(i, j) for i in range(4) for j in range(4) if i != j]
    hub = [[(k, 0) for k in range(1, 4)], [(0, k) for k in range(1, 4)]]
    came = same(4, lambda leg: everyone if leg < 3 else hub[leg % 2], 8, together)
    assert [list(each) for each in came[1]] == [[0, 2, 3]] * 3 + [[0], [], [0], [], [0]]
    assert [list(each) for each in came[0]] == [[1, 2, 3]] * 3 + [[], [1, 2, 3], [], [1, 2, 3], []]


def test_a_sender_runs_ahead_of_a_slow_receiver(together: Together) -> None:
    """As the clock of an overlay has it: what a silo waits for is what it receives, not what it has sent."""

    def act(rank: int, group: Any, store: Any, watch: Any) -> float:
        arcs = [(0, 1)]
        with Transport(group, rank, lambda leg: arcs, first=0, end=3, like=ZERO, watch=watch) as transport:
            board = Board(store, watch)
            board.meet("start")
            started = time.monotonic()
            for leg in range(3):
                if rank == 1:
                    board.read(f"sent {leg}")
                transport.exchange(leg, ZERO)
                if rank == 0:
                    board.post(f"sent {leg}", True)
        board.meet("end")
        return time.monotonic() - started

    assert all(isinstance(took, float) for took in together(2, act))


def test_a_silo_that_fails_is_named_by_all_who_wait_for_a_notice(together: Together) -> None:
    def act(rank: int, group: Any, store: Any, watch: Any) -> None:
        if rank == 2:
            watch.accuse(2, "stopped: its loss is not finite")
        Board(store, watch).read("what nobody posts")

    errors = together(4, act, interval=0.05)
    assert {type(error) for error in errors} == {ProtocolError}
    assert {error.what for error in errors} == {'silo "s2" stopped: its loss is not finite'}
    assert "Run the same command again" in str(errors[0])


def test_a_silo_without_signs_of_life_is_named(together: Together) -> None:
    """Silo 1 leaves its watch, as a frozen process would, and sends no more."""
    frozen = threading.Event()

    def act(rank: int, group: Any, store: Any, watch: Any) -> float:
        with Transport(group, rank, lambda leg: [(1, 0)], first=0, end=2, like=ZERO, watch=watch) as transport:
            transport.exchange(0, ZERO)
            if rank == 1:
                watch._over.set()
                frozen.wait(20)
                return 0.0
            try:
                transport.exchange(1, ZERO)
            finally:
                frozen.set()
        return 0.0

    error, _ = together(2, act, interval=0.05, silence=0.5)
    assert isinstance(error, ProtocolError)
    assert error.what == 'silo "s1" gave no sign for 0.5 s'


def test_of_several_accusations_the_first_counts(together: Together) -> None:
    def act(rank: int, group: Any, store: Any, watch: Any) -> int:
        time.sleep(0.05 * rank)
        return int(watch.accuse(rank, "ended").silo)

    assert together(3, act) == [0, 0, 0]


def test_notices_are_collected_in_order_and_taken_down(together: Together) -> None:
    def act(rank: int, group: Any, store: Any, watch: Any) -> Any:
        board = Board(store, watch)
        found = [board.collect("marks", rank * number) for number in range(2)]
        board.meet("end")
        return found

    assert together(3, act) == [[[0, 0, 0], [0, 1, 2]], [None, None], [None, None]]


def test_announcements_are_read_in_turn(together: Together) -> None:
    """Also by one that asks again before silo 0 has said the next."""

    def act(rank: int, group: Any, store: Any, watch: Any) -> list[Any]:
        board, found = Board(store, watch), []
        for number in range(3):
            time.sleep(0.1 * (rank == 0))
            found.append(board.announce("next", number if rank == 0 else None))
        board.meet("end")
        return found

    assert together(3, act) == [[0, 1, 2]] * 3

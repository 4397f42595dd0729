"""Clients and server of secure aggregation: exact sums whoever leaves when, and nothing to see before the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, hypergeom, ks_2samp, kstest

from rivage.core.errors import ProtocolError
from rivage.core.messages import decode, encode
from rivage.federated.secagg_client import Client
from rivage.federated.secagg_field import Grid, Ring
from rivage.federated.secagg_graph import chances, degree, neighbours, threshold
from rivage.federated.secagg_keys import agree, key_pair, opened, sealed, stream
from rivage.federated.secagg_messages import Boxes, Keys, Masked, Neighbours, Shares, Survivors
from rivage.federated.secagg_server import Aborted, Server
from rivage.federated.shamir import join

RINGS = [Ring(16), Ring(32), Ring(64)]


def wire(message: Any) -> Any:
    """The message as it arrives: encoded, and read from the bytes."""
    return type(message).of(decode(encode(message.payload())))


@dataclass
class Play:
    """A round of n clients, played to the end or to a stage.

    Args:
        n: clients.
        leaves: stage at which a client leaves, 0 to 3; the others stay.
        k: neighbours.
        least: clients whose sum may be read.
        seed: of keys, graph and numbers.
    """

    n: int
    leaves: Mapping[int, int] = field(default_factory=dict)
    k: int | None = None
    least: int = 2
    seed: int = 0
    ring: Ring = RINGS[1]
    length: int = 5
    numbers: np.ndarray | None = None
    sent: dict[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.degree = degree(self.n, self.k)
        self.graph = neighbours(self.random.permutation(self.n), self.degree)
        self.server = Server(self.graph, threshold(0.5, self.degree), self.least, 7, self.ring)
        self.clients = {c: Client(c, 7, self.ring, np.random.default_rng((self.seed, c)).bytes) for c in range(self.n)}
        if self.numbers is None:
            high = 1 << self.ring.bits
            self.numbers = self.random.integers(0, high, (self.n, self.length), self.ring.dtype)

    def after(self, stage: int) -> list[int]:
        return [c for c in self.clients if self.leaves.get(c, 4) > stage]

    def play(self) -> np.ndarray:
        """The sum that the server reads."""
        self.until_masked()
        self.server.require_enough()
        for c in self.server.arrivals:
            if self.leaves.get(c, 4) > 3:
                self.server.unmasked(c, wire(self.clients[c].unmask(wire(self.server.survivors(c)))))
        return self.server.total()

    def until_masked(self) -> None:
        for c in self.after(0):
            self.server.advertised(c, wire(self.clients[c].keys()))
        for c in self.after(1):
            boxes = self.clients[c].share(wire(self.server.neighbours(c)))
            if boxes is not None:
                self.server.shared(c, wire(boxes))
        going = [c for c in self.server.sharing if self.clients[c].receive(wire(self.server.boxes(c)))]
        assert self.numbers is not None
        for c in going:
            if self.leaves.get(c, 4) > 2:
                masked = self.clients[c].mask(self.numbers[c])
                self.sent[c] = masked.vector
                self.server.arrived(c, wire(masked))

    def expected(self) -> np.ndarray | None:
        """The sum by its definition, or None where too few shares of a secret are left."""
        t = threshold(0.5, self.degree)
        told = set(self.after(0))
        sharing = {c for c in self.after(1) if 1 + len(told.intersection(self.graph[c])) >= t}
        arrived = {c for c in sharing & set(self.after(2)) if 1 + len(sharing.intersection(self.graph[c])) >= t}
        answering = {c for c in arrived if self.leaves.get(c, 4) > 3}
        needed = arrived | {c for c in sharing - arrived if arrived.intersection(self.graph[c])}
        holders = {c: len(answering.intersection((c, *self.graph[c]))) for c in needed}
        if len(arrived) < self.least or min(holders.values()) < t:
            return None
        assert self.numbers is not None
        result: np.ndarray = self.numbers[sorted(arrived)].sum(axis=0, dtype=self.ring.dtype)
        return result


# --- the sum is exact ------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.integers(2, 11).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.dictionaries(st.integers(0, n - 1), st.integers(0, 3), max_size=n),
            st.sampled_from([None, 2, 4, 6]),
            st.integers(2, 4),
        )
    ),
    st.integers(0, 1000),
    st.sampled_from(RINGS),
)
def test_the_sum_is_exact_or_cannot_be_read_whoever_leaves_when(case: Any, seed: int, ring: Ring) -> None:
    n, leaves, k, least = case
    round = Play(n, leaves, k, least, seed, ring)
    expected = round.expected()
    if expected is None:
        with pytest.raises(Aborted):
            round.play()
    else:
        np.testing.assert_array_equal(round.play(), expected)


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("k", [None, 6])
def test_four_of_ten_may_leave_at_any_stage(stage: int, k: int | None) -> None:
    """Where every client has a majority of its circle left: those that leave stand apart on the circle."""
    round = Play(10, k=k, seed=stage)
    circle = np.random.default_rng(stage).permutation(10).tolist()
    round.leaves = {circle[place]: stage for place in (0, 3, 6)}
    total, arrived = round.play(), [c for c in range(10) if c not in round.leaves or stage == 3]
    assert round.numbers is not None
    np.testing.assert_array_equal(total, round.numbers[arrived].sum(axis=0, dtype=np.uint32))
    assert round.server.counts["masked"] == len(arrived)


def test_dropouts_at_every_stage_of_one_round() -> None:
    round = Play(12, {0: 0, 1: 1, 2: 2, 3: 3})
    assert round.numbers is not None
    np.testing.assert_array_equal(round.play(), round.numbers[3:].sum(axis=0, dtype=np.uint32))
    assert round.server.counts == {"keys": 11, "shares": 10, "masked": 9, "unmask": 8}


def test_a_sum_of_fewer_than_asked_for_is_not_read() -> None:
    for least, gone in ((4, 1), (4, 2)):
        round = Play(5, {c: 2 for c in range(gone)}, least=least)
        if 5 - gone < least:
            with pytest.raises(Aborted, match=f"numbers of {5 - gone} clients arrived where the sum needs {least}"):
                round.play()
        else:
            round.play()


def test_below_the_threshold_nobody_is_asked_and_nothing_is_read() -> None:
    with pytest.raises(Aborted, match="4 shares of a secret remain where 6 recover it"):
        Play(10, {c: 2 for c in range(6)}).play()
    with pytest.raises(Aborted, match="5 shares of a secret remain where 6 recover it"):
        Play(10, {c: 3 for c in range(5)}).play()
    Play(10, {c: 3 for c in range(4)}).play()


def test_a_wrong_share_of_a_key_is_noticed() -> None:
    round = Play(5, {0: 2})
    round.until_masked()
    round.server.require_enough()
    for c in round.server.arrivals:
        shares = round.clients[c].unmask(round.server.survivors(c))
        if c == 1:
            shares = Shares(shares.own_masks, [bytes(len(each)) for each in shares.keys])
        round.server.unmasked(c, shares)
    with pytest.raises(ProtocolError, match="client 0's key"):
        round.server.total()


# --- nothing to see --------------------------------------------------------------------------------------------------


def masked(value: int, seeds: range, client: int = 0) -> np.ndarray:
    """What one client sends for constant numbers, over the seeds of its round."""
    rows = []
    for seed in seeds:
        round = Play(4, seed=seed, numbers=np.full((4, 400), value, np.uint32))
        round.until_masked()
        rows.append(round.sent[client])
    return np.array(rows)


def test_masked_numbers_are_uniform_whatever_they_hide() -> None:
    """Bytes by chi-square, residues by Kolmogorov-Smirnov, 30 rounds of 400. False alarm: 8 tests at 1e-4."""
    zero, other = masked(0, range(30)), masked(0xABCDEF01, range(30, 60))
    for sent in (zero, other):
        for place in range(4):
            counts = np.bincount(sent.reshape(-1).view(np.uint8)[place::4], minlength=256)
            assert chisquare(counts).pvalue > 1e-4
        assert kstest(sent.reshape(-1) / 2**32, "uniform").pvalue > 1e-4
    assert ks_2samp(zero.reshape(-1), other.reshape(-1)).pvalue > 1e-4


def test_sums_of_some_of_the_cohort_are_uniform_too() -> None:
    """The sum of all but one keeps masks, and so does that of all: the own masks. False alarm: 3 tests at 1e-4."""
    some, everyone, without_own = [], [], []
    for seed in range(30):
        round = Play(4, seed=seed, numbers=np.zeros((4, 400), np.uint32))
        round.until_masked()
        some.append(sum(round.sent[c] for c in range(3)))
        everyone.append(sum(round.sent.values()))
        sent = round.sent[0].copy()
        round.ring.add(sent, round.clients[0]._seed, -1)  # what the seed alone uncovers
        without_own.append(sent)
    for rows in (some, everyone, without_own):
        assert kstest(np.array(rows).reshape(-1) / 2**32, "uniform").pvalue > 1e-4


def test_fewer_than_t_colluding_holders_do_not_learn_a_seed_and_t_do() -> None:
    """The server with t − 1 clients: any seed fits what they hold, see `test_shamir`. With t it recovers each."""
    round = Play(7)
    round.until_masked()
    t = round.server.threshold
    held = {c + 1: round.clients[c]._held(6)[0] for c in range(t)}
    assert join(held, t) == round.clients[6]._seed
    guessed = dict(list(held.items())[: t - 1]) | {100: held[1]}
    assert join(guessed, t) != round.clients[6]._seed


@pytest.mark.parametrize(
    "asked",
    [
        Survivors([0, 1, 2, 3, 4], [4]),
        Survivors([1, 2, 3, 4], [0]),
        Survivors([0, 1, 2, 3, 99], []),
        Survivors([0, 1], [2, 3, 4]),
    ],
    ids=["both kinds", "its own key", "a stranger", "too few"],
)
def test_a_client_refuses_questions_that_would_uncover_single_numbers(asked: Survivors) -> None:
    round = Play(5)
    round.until_masked()
    with pytest.raises(ProtocolError) as caught:
        round.clients[0].unmask(asked)
    assert caught.value.mend


def test_sealed_shares_are_read_by_their_receiver_alone() -> None:
    one, other, third = (key_pair(bytes([i]) * 32) for i in (1, 2, 3))
    key = agree(one, other.public, b"box")
    assert agree(other, one.public, b"box") == key
    assert agree(other, one.public, b"mask") != key
    box = sealed(key, 5, b"secret")
    assert opened(key, 5, box) == b"secret"
    spoiled = bytes([box[0] ^ 1]) + box[1:]
    for attempt in ((key, 6, box), (agree(third, one.public, b"box"), 5, box), (key, 5, spoiled)):
        with pytest.raises(ProtocolError, match="changed on the way"):
            opened(*attempt)


def test_a_public_key_of_small_order_is_refused() -> None:
    with pytest.raises(ProtocolError, match="not usable"):
        agree(key_pair(b"\x01" * 32), bytes(32), b"box")


def test_known_answers_of_the_primitives() -> None:
    """X25519 of 9 and 9 (RFC 7748, section 5.2, one iteration), AES-256 of a block of zeros under a key of zeros."""
    nine = key_pair(b"\x09" + bytes(31))
    assert nine.public.hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    blocks = b"".join(bytes(block) for block in stream(bytes(32), 16))
    assert blocks.hex() == "dc95c078a2408989ad48a21492842087"


def test_a_stream_does_not_depend_on_how_much_is_asked_for() -> None:
    long = b"".join(bytes(block) for block in stream(b"\x05" * 32, 200_001))
    assert len(long) == 200_001
    for count in (0, 1, 65_536, 65_537):
        assert b"".join(bytes(block) for block in stream(b"\x05" * 32, count)) == long[:count]


# --- messages, graph, numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        Keys(b"\x01" * 32, b"\x02" * 32),
        Neighbours({3: Keys(b"\x01" * 32, b"\x02" * 32), 9: Keys(b"\x03" * 32, b"\x04" * 32)}, 2),
        Neighbours({}, 1),
        Boxes({4: b"x" * 82, 2**40: b"y" * 82}),
        Boxes({}),
        Survivors([1, 5], []),
        Shares([b"s" * 33], []),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_come_back_from_the_wire(message: Any) -> None:
    assert wire(message) == message


def test_masked_numbers_take_their_width_on_the_wire() -> None:
    for ring in RINGS:
        sizes = [len(encode(Masked(np.zeros(d, ring.dtype)).payload())) for d in (1000, 2000)]
        assert sizes[1] - sizes[0] == 1000 * ring.bits // 8
        np.testing.assert_array_equal(wire(Masked(np.arange(9, dtype=ring.dtype))).vector, np.arange(9))


@given(st.integers(2, 60), st.integers(1, 70), st.integers(0, 100))
def test_the_graph_is_regular_symmetric_and_connected(n: int, wanted: int, seed: int) -> None:
    k = degree(n, wanted)
    graph = neighbours(np.random.default_rng(seed).permutation(n) + 100, k)
    assert k == min(wanted + wanted % 2, n - 1)
    assert {len(set(others) - {c}) for c, others in graph.items()} == {k}
    assert all(c in graph[other] for c, others in graph.items() for other in others)
    reached, front = {100}, [100]
    while front:
        front = [other for c in front for other in graph[c] if other not in reached and not reached.add(other)]  # type: ignore[func-returns-value]
    assert len(reached) == n


def test_the_usual_number_of_neighbours_grows_with_the_logarithm() -> None:
    assert [degree(n) for n in (2, 10, 30, 100, 1000, 10_000)] == [1, 9, 29, 40, 60, 80]
    assert [threshold(0.5, k) for k in (1, 2, 9, 40)] == [2, 2, 6, 21]
    assert threshold(2 / 3, 29) == 21


def test_chances_are_those_of_a_simulation() -> None:
    """40 neighbours of 100, 35 lost: the bound is the expected number of clients whose secrets are gone."""
    n, k, t, lost = 100, 40, 21, 35
    random = np.random.default_rng(0)
    bad = []
    for _ in range(300):
        gone = set(random.choice(n, lost, replace=False).tolist())
        circles = neighbours(random.permutation(n), k).items()
        bad.append(sum(k + (c not in gone) - len(gone.intersection(others)) < t for c, others in circles))
    unrecovered, exposed = chances(n, k, t, lost=30)
    assert unrecovered == pytest.approx(70 * hypergeom.sf(20, 99, 30, k) + 30 * hypergeom.sf(19, 99, 29, k))
    assert exposed == 0.0
    expected = 65 * hypergeom.sf(20, 99, 35, k) + 35 * hypergeom.sf(19, 99, 34, k)
    assert np.mean(bad) == pytest.approx(expected, rel=0.3)
    assert chances(n, k, t, colluding=20)[1] < 1e-15
    assert chances(10, 9, 6, lost=4) == (0.0, 0.0)
    assert chances(10, 9, 6, lost=5)[0] == 1.0


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=30), st.integers(2, 24), st.booleans())
def test_steps_are_within_one_of_what_they_stand_for(values: list[float], bits: int, stochastic: bool) -> None:
    grid, vector = Grid(8.0, bits), np.array(values)
    steps, clipped = grid.integers(vector, np.random.default_rng(0) if stochastic else None)
    assert np.abs(steps).max() <= grid.most
    assert clipped == int((np.abs(vector) > 8).sum())
    slack = 1 if stochastic else 0.5
    assert np.abs(steps * grid.step - vector.clip(-8, 8)).max() <= slack * grid.step * (1 + 1e-9)


def test_stochastic_rounding_is_right_on_average() -> None:
    """Coordinates at 0.3 of a step, 1e5 of them: mean within 4.5 standard errors."""
    grid = Grid(1.0, 3)
    steps, _ = grid.integers(np.full(100_000, 2.3 * grid.step), np.random.default_rng(1))
    assert set(steps.tolist()) == {2, 3}
    assert abs(steps.mean() - 2.3) < 4.5 * np.sqrt(0.3 * 0.7 / 1e5)


@given(st.integers(1, 3000), st.integers(2, 32), st.sampled_from(RINGS))
def test_sums_come_back_from_their_residues_when_the_rule_holds(clients: int, bits: int, ring: Ring) -> None:
    if not ring.holds(clients, bits):
        return
    largest = clients * (1 << (bits - 1))
    for total in (largest, -largest, 0, largest - 1):
        assert ring.centred(ring.residues(np.array([total]))).tolist() == [total]


def test_the_overflow_rule_by_hand() -> None:
    assert Ring(32).holds(1023, 22)
    assert not Ring(32).holds(1024, 22)
    assert Ring(64).holds(10**9, 22)
    assert not Ring(16).holds(1, 16)

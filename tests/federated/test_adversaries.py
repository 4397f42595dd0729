"""Who is malicious, and what they send."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.core.settings import dump, read
from rivage.federated.adversaries import Adversary, Huge, NotANumber, SignFlip
from rivage.federated.algorithm import Update
from rivage.federated.exchange import fault_of
from rivage.federated.kinds import ADVERSARIES
from rivage.testing.toys import Clients, linear_clients

KINDS: list[Any] = [SignFlip, Huge, NotANumber]
STREAMS = Streams(0).child("round", 4)
DOWN = {"params": torch.tensor([1.0, 2.0, 3.0])}


def honest(**entries: torch.Tensor) -> Update:
    payload = {"params": (torch.tensor([1.5, 1.0, 3.0]), 7.0)} | {name: (v, 2.0) for name, v in entries.items()}
    return Update(payload, {"loss": 0.5}, {"own": torch.ones(1)}, 8, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_share_is_the_probability_of_each_client(kind: Any) -> None:
    ids = np.arange(100_000)
    for share in (0.0, 0.01, 0.2, 0.7, 1.0):
        bad = kind(share=share).malicious(ids, 3)
        assert bad.dtype == bool
        # Five standard deviations of a binomial: false alarm 6e-7 each, and the seed is fixed.
        assert abs(bad.mean() - share) <= 5 * (share * (1 - share) / len(ids)) ** 0.5


def test_who_is_malicious_depends_on_seed_and_client_alone() -> None:
    ids = np.array([5, 10**9 - 1, 0, 123_456_789, 5])
    one = SignFlip(share=0.5).malicious(ids, 1)
    assert [SignFlip(share=0.5).malicious(ids[i : i + 1], 1)[0] for i in range(5)] == one.tolist()
    assert (Huge(share=0.5).malicious(ids, 1) == one).all()  # kinds are compared on the same clients
    many = np.arange(1000)
    grown = SignFlip(share=0.3).malicious(many, 1)
    assert (grown <= SignFlip(share=0.4).malicious(many, 1)).all()
    assert (grown != SignFlip(share=0.3).malicious(many, 2)).any()
    assert SignFlip().malicious(np.empty(0, np.int64), 0).shape == (0,)


def test_a_cohort_of_a_billion_can_be_asked() -> None:
    ids = np.random.default_rng(0).integers(0, 10**9, 10_000)
    assert SignFlip().malicious(ids, 0).mean() == pytest.approx(0.2, abs=0.02)  # five standard deviations


def test_clients_can_be_named() -> None:
    bad = Huge(clients=(3, 10**9))
    assert bad.malicious(np.array([1, 3, 10**9, 4]), 0).tolist() == [False, True, True, False]
    assert not Huge(clients=()).malicious(np.arange(50), 0).any()


def test_either_a_share_or_clients() -> None:
    with pytest.raises(ConfigError, match=r"share and clients are both given\. Give one of them\."):
        SignFlip(share=0.2, clients=(1,))
    assert dump(NotANumber()) == {"share": 0.2}, "defaults are resolved"
    assert dump(NotANumber(clients=(1, "south"))) == {"clients": [1, "south"]}, "and no share stands beside clients"


class Named(Clients):
    """Clients called north, east and 2."""

    def name(self, id: int) -> str:
        return ("north", "east", "2")[id]


def named(kind: type[Clients], count: int) -> Clients:
    toys = linear_clients((3,) * count)
    return kind(toys.records, toys.schema)


def test_names_become_numbers_and_strangers_are_refused() -> None:
    three = named(Named, 3)
    assert SignFlip(clients=("east", 0, "north"), scale=3.0).registered(three) == SignFlip(clients=(1, 0), scale=3.0)
    assert SignFlip(clients=(0, "2")).registered(three).clients == (0, 2)
    assert SignFlip(clients=()).registered(three).clients == ()
    assert SignFlip(share=0.5).registered(three) == SignFlip(share=0.5)
    for clients, said in (
        ((3,), "clients names 3, but there are 3 clients. Give numbers from 0 to 2."),
        ((0, 9, 3), "clients names 9, 3, but there are 3 clients. Give numbers from 0 to 2."),
        (
            ("nort",),
            'clients names "nort", but no client is called so. Did you mean "north"? They are called: north, east, 2.',
        ),
        (("1",), 'clients names "1", but no client is called so. They are called: north, east, 2.'),
    ):
        with pytest.raises(ConfigError) as caught:
            Huge(clients=clients).registered(three)
        assert str(caught.value) == f"[adversary] clients: {said}"


def test_names_are_not_looked_up_among_a_billion() -> None:
    class Registered(Named):
        size = 10**9

    many = named(Registered, 1)
    assert Huge(clients=(10**9 - 1,)).registered(many).clients == (10**9 - 1,)
    with pytest.raises(ConfigError, match=r"among 1,000,000,000 clients no name is looked up\. Give numbers\."):
        Huge(clients=("north",)).registered(many)
    with pytest.raises(ConfigError, match=r"registered\(population\)"):
        Huge(clients=("1",)).malicious(np.arange(3), 0)


def test_a_flipped_sign_goes_the_other_way() -> None:
    sent = SignFlip(scale=3.0).corrupt(honest(control=torch.tensor([2.0])), DOWN, 8, STREAMS)
    assert sent.payload["params"][0].tolist() == [1 - 1.5, 2 + 3.0, 3.0]
    assert sent.payload["control"][0].tolist() == [-6.0]  # nothing was broadcast: relative to zero
    other = SignFlip().corrupt(honest(), {"params": torch.ones(4)}, 8, STREAMS)  # another shape
    assert other.payload["params"][0].tolist() == [-1.5, -1.0, -3.0]


def test_flipping_twice_is_honest() -> None:
    once = SignFlip().corrupt(honest(), DOWN, 8, STREAMS)
    twice = SignFlip().corrupt(once, DOWN, 8, STREAMS)
    assert torch.equal(twice.payload["params"][0], honest().payload["params"][0])


def test_huge_noise_has_its_scale_and_replays() -> None:
    update = Update({"params": (torch.ones(20_000), 1.0)})
    sent = Huge(scale=1e9).corrupt(update, {}, 3, STREAMS).payload["params"][0]
    assert float(sent.std()) == pytest.approx(1e9, rel=0.03)  # six standard errors
    assert abs(float(sent.mean())) < 6e9 / 20_000**0.5
    again = Huge(scale=1e9).corrupt(update, {}, 3, STREAMS).payload["params"][0]
    assert torch.equal(sent, again)
    for client, streams in ((4, STREAMS), (3, Streams(0).child("round", 5))):
        assert not torch.equal(sent, Huge().corrupt(update, {}, client, streams).payload["params"][0])


def test_entries_get_noise_of_their_own() -> None:
    sent = Huge().corrupt(honest(control=torch.zeros(3)), {}, 3, STREAMS)
    assert not torch.allclose(sent.payload["params"][0], sent.payload["control"][0], rtol=1e-3)


def test_nan_is_rejected_by_the_server() -> None:
    sent = NotANumber().corrupt(honest(), DOWN, 8, STREAMS)
    assert torch.isnan(sent.payload["params"][0]).all()
    assert "norm nan" in str(fault_of(sent, 3, {}))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_else_stays(kind: Any, dtype: torch.dtype) -> None:
    update = honest(counts=torch.tensor([3]), wide=torch.ones((2, 3), dtype=dtype))
    before = update.payload["params"][0].clone()
    sent = kind().corrupt(update, DOWN, 8, STREAMS)
    assert torch.equal(update.payload["params"][0], before)
    assert list(sent.payload) == list(update.payload)
    assert torch.equal(sent.payload["counts"][0], torch.tensor([3]))
    assert (sent.payload["wide"][0].shape, sent.payload["wide"][0].dtype) == ((2, 3), dtype)
    assert [weight for _, weight in sent.payload.values()] == [7.0, 2.0, 2.0]
    assert (sent.metrics, sent.memory, sent.client, sent.version) == (update.metrics, update.memory, 8, 4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SignFlip(share=-0.1),
        lambda: Huge(share=1.1),
        lambda: NotANumber(share=float("nan")),
        lambda: SignFlip(scale=0.0),
        lambda: Huge(scale=-1.0),
        lambda: Huge(clients=(-1,)),
        lambda: Huge(clients=("north", -1)),
    ],
)
def test_settings_out_of_range_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize("kind", list(ADVERSARIES))
def test_every_kind_is_an_adversary_and_survives_a_file(kind: str) -> None:
    adversary = ADVERSARIES.get(kind)(clients=(1, "north"))
    assert isinstance(adversary, Adversary)
    assert read(type(adversary), dump(adversary)) == adversary

"""The share of the neighbours, against every share tried by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rivage.learning.datastore import Datastore
from rivage.learning.losses import CROSS_ENTROPY, SQUARED
from rivage.learning.metrics import ACCURACY, MACRO_F1, MAE
from rivage.learning.neighbours import Neighbours
from rivage.learning.shares import SHARES, Evidence, Peers, score

CURVES = st.lists(st.integers(0, 50), min_size=21, max_size=21)


def evidence(curve: Any, records: int = 50) -> Evidence:
    return Evidence(np.array(curve, np.float64), records)


def mixtures(kind: str) -> tuple[Any, Any, Any]:
    generator = torch.Generator().manual_seed(3)
    if kind == "real":
        model, memory = (torch.randn(50, 2, generator=generator) for _ in range(2))
        return model, memory, 0.35 * memory + 0.65 * model + 0.1 * torch.randn(50, 2, generator=generator)
    model, memory = (torch.rand(400, 3, generator=generator).softmax(dim=1) for _ in range(2))
    return model, memory, torch.multinomial(0.2 * model**4 + 0.8 * memory**4, 1, generator=generator)[:, 0]


def test_an_additive_metric_scores_the_shares() -> None:
    model, memory, y = mixtures("class")
    found = score(model, memory, y, ACCURACY, CROSS_ENTROPY)
    right = [int((((1 - s) * model + s * memory).argmax(dim=1) == y).sum()) for s in SHARES]
    assert found.total.tolist() == right
    assert found.records == 400
    assert found.share() == SHARES[int(np.argmax(right))] > 0


def test_errors_count_against_a_share() -> None:
    model, memory, y = mixtures("real")
    found = score(model, memory, y, MAE, SQUARED)
    errors = [float(((1 - s) * model + s * memory - y).abs().mean(dim=1).sum()) for s in SHARES]
    np.testing.assert_allclose(found.total, np.negative(errors), rtol=1e-5)
    assert found.share() == pytest.approx(0.35, abs=0.051)


def test_where_the_metric_is_no_mean_over_records_the_loss_scores() -> None:
    model, memory, y = mixtures("class")
    found = score(model, memory, y, MACRO_F1, CROSS_ENTROPY)
    losses = [float(CROSS_ENTROPY.of_predictions((1 - s) * model + s * memory, y).sum()) for s in SHARES]
    np.testing.assert_allclose(found.total, np.negative(losses), rtol=1e-5)


def test_of_equals_the_smallest_share_is_taken() -> None:
    assert evidence([1.0] * 21).share() == 0.0
    curve = np.full(21, 0.3)
    curve[7:] += 1e-12  # rounding
    assert evidence(curve).share() == 0.0
    curve[9] = 0.4
    assert evidence(curve).share() == SHARES[9]


@given(st.lists(CURVES, min_size=1, max_size=6), st.floats(0, 100))
def test_peers_are_heard_by_as_much_as_they_are_trusted(curves: list[list[int]], trust: float) -> None:
    """The definition; and in whatever order they speak."""
    all_, pooled = [evidence(curve) for curve in curves], np.sum(curves, axis=0) / (50 * len(curves))
    peers, backwards = Peers(), Peers()
    peers.hear(all_)
    for each in all_[::-1]:
        backwards.hear([each])
    for each in all_:
        total = each.total + trust * pooled
        share = peers.share(each, trust)
        assert total[SHARES.index(share)] == pytest.approx(total.max(), rel=1e-8, abs=1e-8)
        assert share == backwards.share(each, trust)
        assert peers.share(each, 0.0) == each.share()
    assert peers.share(None, 0.0) == np.median([each.share() for each in all_])
    assert peers.share(None, 1.0) == peers.said.share()  # type: ignore[union-attr]


def test_much_trust_makes_all_clients_alike() -> None:
    peers, generator = Peers(), np.random.default_rng(0)
    all_ = [evidence(generator.random(21)) for _ in range(5)]
    peers.hear(all_)
    assert len({peers.share(each, 1e9) for each in all_}) == 1
    assert len({peers.share(each, 0.0) for each in all_}) > 1


def test_neighbours_settle_their_share_once() -> None:
    store = Datastore(torch.zeros(2, 3), torch.tensor([0, 1]), torch.arange(2))
    curve = np.zeros(21)
    curve[8] = 1
    peers = Peers()
    assert Neighbours(store, None, 2).settled(peers).share == 0.0, "nobody can tell"
    peers.hear([evidence(curve)])
    assert Neighbours(store, None, 2).settled(peers).share == 0.4
    assert Neighbours(store, None, 2, evidence=evidence(curve[::-1])).settled(peers).share == 0.6
    fixed = Neighbours(store, 0.7, 2)
    assert fixed.settled(peers) is fixed
    empty = Datastore(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    assert Neighbours(empty, None, 2).settled(peers).share == 0.0

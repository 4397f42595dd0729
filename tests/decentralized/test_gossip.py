"""Every decentralised algorithm passes the battery; one that is broken in one way fails exactly there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from torch import Tensor

from rivage.core.settings import read
from rivage.decentralized.dfedem import DFedEM
from rivage.decentralized.dpsgd import DPASGD, DPSGD
from rivage.decentralized.gossip import one_step
from rivage.federated.algorithm import Phase, State
from rivage.federated.registry import ALGORITHMS
from rivage.testing.gossip import check_gossip

METHODS = [kind for kind in ALGORITHMS.builtin if ALGORITHMS.builtin[kind].startswith("rivage.decentralized")]


def test_all_are_there() -> None:
    assert METHODS == ["dfedem", "dpasgd", "dpsgd", "exact_diffusion", "gradient_tracking", "push_diging", "push_sum"]


@pytest.mark.parametrize("kind", METHODS)
def test_built_in_methods_conform(kind: str) -> None:
    battery = check_gossip(read(ALGORITHMS.get(kind), {"learning_rate": 0.05}))
    battery.require()
    assert battery.ran == (9 if kind == "dfedem" else 7)
    assert all("one model" in finding.skipped for finding in battery.findings if finding.skipped)


@pytest.mark.parametrize("order", ["combine_then_adapt", "adapt_then_combine"])
def test_both_orders_conform(order: Any) -> None:
    check_gossip(DPSGD(learning_rate=0.05, order=order)).require()


@dataclass(frozen=True, kw_only=True)
class Overwrites(DPASGD):
    """Averages into what it was given."""

    def receive(self, state: State, trained: Tensor, rate: float, sent: State, sums: State) -> State:
        return {"params": sums["params"].copy_((sums["params"] + sent["params"]) / 2)}


@dataclass(frozen=True, kw_only=True)
class LooksAtOthers(DPASGD):
    """Takes the mean of a stack that is not there in a process of its own."""

    def receive(self, state: State, trained: Tensor, rate: float, sent: State, sums: State) -> State:
        return {"params": trained.mean(dim=0).expand_as(trained) if trained.dim() > 1 else trained}


@dataclass(frozen=True, kw_only=True)
class KeepsItsOwn(DPASGD):
    """Never averages."""

    def receive(self, state: State, trained: Tensor, rate: float, sent: State, sums: State) -> State:
        return {"params": trained}


@dataclass(frozen=True, kw_only=True)
class StepsTwice(DPASGD):
    """Adds the step to what has it already."""

    def receive(self, state: State, trained: Tensor, rate: float, sent: State, sums: State) -> State:
        return {"params": sums["params"] + (trained - state["params"])}


@dataclass(frozen=True, kw_only=True)
class Grows(DPASGD):
    """Has one entry more after a round."""

    def receive(self, state: State, trained: Tensor, rate: float, sent: State, sums: State) -> State:
        return {"params": sums["params"], "more": trained}


@dataclass(frozen=True, kw_only=True)
class TellsShares(DFedEM):
    """Sends what it made of its records."""

    def send(self, state: State, trained: Tensor, rate: float) -> State:
        return {"params": trained + state["shares"][..., None] / self.components}


@dataclass(frozen=True, kw_only=True)
class MovesModels(DFedEM):
    """Trains before it trains."""

    def weigh(self, state: State, losses: Tensor) -> tuple[State, Tensor]:
        held, found = super().weigh(state, losses)
        return {**held, "params": held["params"] * 0.9}, found


@dataclass(frozen=True, kw_only=True)
class ForgetsToShare(DFedEM):
    """A newcomer's shares add up to 2."""

    def settle(self, state: State, losses: Tensor) -> State:
        return {**state, "shares": 2 * super().settle(state, losses)["shares"]}


@dataclass(frozen=True, kw_only=True)
class AveragesShares(DFedEM):
    """Sends shares beside the models, and takes their average."""

    def send(self, state: State, trained: Tensor, rate: float) -> State:
        return {"params": trained, "shares": state["shares"]}

    def receive(self, state: State, trained: Tensor, rate: float, sent: State, sums: State) -> State:
        return {**sums}


@pytest.mark.parametrize(
    ("broken", "checks"),
    [
        (Overwrites, {"leaves_its_arguments_alone"}),
        (LooksAtOthers, {"one_silo_is_a_row_of_the_stack"}),
        (KeepsItsOwn, {"agrees_on_the_mean"}),
        (StepsTwice, {"is_sgd_where_all_are_alike"}),
        (Grows, {"keeps_its_form"}),
        (TellsShares, {"agrees_on_the_mean", "is_sgd_where_all_are_alike", "sends_nothing_of_its_weights"}),
        (MovesModels, {"sends_nothing_of_its_weights", "weighs_and_mixes"}),
        (ForgetsToShare, {"weighs_and_mixes"}),
        (AveragesShares, {"keeps_its_form", "sends_nothing_of_its_weights"}),
    ],
)
def test_a_broken_method_fails_where_it_is_broken(broken: type[DPASGD | DFedEM], checks: set[str]) -> None:
    battery = check_gossip(broken(learning_rate=0.05))
    assert {finding.check for finding in battery.faults} == checks
    with pytest.raises(AssertionError, match=next(iter(checks))):
        battery.require()


def test_one_step_is_one_mini_batch() -> None:
    assert one_step(16, "endless") == Phase(updates=1, batch_size=16, batches="endless")

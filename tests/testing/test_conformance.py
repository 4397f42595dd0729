"""Every built-in passes the battery; a method broken in one way fails exactly where it is broken."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from rivage.core.settings import read
from rivage.federated.algorithm import Local, Predictor, State, Update
from rivage.federated.fedavg import FedAvg
from rivage.federated.registry import ALGORITHMS
from rivage.testing.conformance import Battery, check_algorithm

_MIN_RAN = {"local": 8}  # what plays no rounds has fewer checks

# guarded composes trials and trains nothing, decentralised methods have a protocol of their own
METHODS = [kind for kind in ALGORITHMS if hasattr(ALGORITHMS.get(kind), "federates")]


@pytest.mark.parametrize("kind", METHODS)
def test_built_in_methods_conform(kind: str) -> None:
    algorithm = read(ALGORITHMS.get(kind), {"learning_rate": 0.05})
    battery = check_algorithm(algorithm)
    battery.require()
    assert battery.ran >= _MIN_RAN.get(kind, 10)


class MutatesState(FedAvg):
    """Writes the mean into the state it was given."""

    def aggregate(self, state: State, received: Any, task: Any) -> State:
        state["params"].copy_(received["params"].mean)
        return state


class MutatesBroadcast(FedAvg):
    """Trains in place on the shared broadcast."""

    def start(self, broadcast: State, *rest: Any) -> Local:
        broadcast["params"].mul_(0.5)
        return Local(broadcast["params"][None])


class UsesGlobalGenerator(FedAvg):
    """Adds noise from torch's global generator."""

    def finish(self, local: Local, task: Any) -> Update:
        noise = 1e-3 * torch.randn_like(local.params[0])
        return Update({"params": (local.params[0] + noise, local.weight)})


@dataclass(frozen=True, kw_only=True)
class ForgetsAField(FedAvg):
    """Keeps something else than it is given."""

    momentum: float = 0.9

    def __post_init__(self) -> None:
        FedAvg.__post_init__(self)
        object.__setattr__(self, "momentum", 0.0 if self.momentum == 0.9 else 0.5)


class ForgetsState(FedAvg):
    """Counts rounds outside the state: a resumed run starts counting anew."""

    played: int = 0

    def aggregate(self, state: State, received: Any, task: Any) -> State:
        object.__setattr__(self, "played", self.played + 1)
        return {"params": received["params"].mean / self.played}


class DependsOnOrder(FedAvg):
    """Takes the first answer."""

    needs: Any = "each"

    def aggregate(self, state: State, received: Any, task: Any) -> State:
        return {"params": received[0].payload["params"][0]}


class NoReference(FedAvg):
    """Cites nobody."""

    reference: Any = None


class AcceptsAnything(FedAvg):
    """Takes any learning rate."""

    def __post_init__(self) -> None:
        """Check nothing."""


class MixesBadly(FedAvg):
    """Its mix does not sum to one."""

    def predictor(self, state: State, memory: State, local: Local | None, task: Any) -> Predictor:
        return Predictor(state["params"][None], torch.tensor([0.5]))


class MutatesMemory(FedAvg):
    """Counts in the tensor that it remembers."""

    def start(self, broadcast: State, memory: State, *rest: Any) -> Local:
        local = super().start(broadcast, memory, *rest)
        local.keep["rounds"] = memory.get("rounds", torch.zeros(1)).add_(1)
        return local

    def finish(self, local: Local, task: Any) -> Update:
        return replace(super().finish(local, task), memory={"rounds": local.keep["rounds"]})


class RemembersObjects(FedAvg):
    """Keeps in memory what no file can hold."""

    def finish(self, local: Local, task: Any) -> Update:
        memory: Any = {"seen": [local.steps]}
        return replace(super().finish(local, task), memory=memory)


BROKEN = {
    MutatesMemory: "leaves_its_inputs_alone",
    RemembersObjects: "resumes",
    MutatesState: "leaves_its_inputs_alone",
    MutatesBroadcast: "leaves_its_inputs_alone",
    UsesGlobalGenerator: "repeats_with_its_seed",
    ForgetsAField: "stores_its_arguments",
    ForgetsState: "resumes",
    DependsOnOrder: "does_not_depend_on_the_order_of_updates",
    NoReference: "cites_its_source",
    AcceptsAnything: "refuses_bad_values",
    MixesBadly: "predicts_for_everyone",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_method_fails_where_it_is_broken(broken: type[FedAvg]) -> None:
    battery = check_algorithm(broken(learning_rate=0.05))
    assert BROKEN[broken] in {finding.check for finding in battery.faults}
    with pytest.raises(AssertionError, match=BROKEN[broken]):
        battery.require()


def test_an_empty_battery_does_not_pass() -> None:
    with pytest.raises(AssertionError, match="0 of 0"):
        Battery("nothing", ()).require()


def test_faults_are_listed_with_their_reasons() -> None:
    battery = check_algorithm(MutatesBroadcast(learning_rate=0.05))
    assert any('wrote into broadcast "params"' in finding.fault for finding in battery.faults)

"""What every decentralised algorithm must satisfy, ours or a plug-in's, and the plainest engine for it.

Use in a test of your own::

    from rivage.testing.gossip import check_gossip

    def test_conformance() -> None:
        check_gossip(MyMethod(learning_rate=0.1)).require()
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy import ndarray
from torch import Tensor

from rivage.core.settings import dump, read
from rivage.decentralized.gossip import GossipAlgorithm, Mix, State, play
from rivage.decentralized.mixing_plan import Cycled, MixingPlan
from rivage.graphs.families import random_regular, torus
from rivage.graphs.mixing import metropolis
from rivage.testing.conformance import Battery, Finding
from rivage.testing.toys import Clients

__all__ = ["Quadratics", "check_gossip", "descend", "doubly_stochastic"]

_SILOS, _DIMENSION = 6, 5
_EXACT = 1e-12


@dataclass(frozen=True, eq=False)
class Quadratics:
    """Losses ½ wᵀ H_i w − c_iᵀ w of silos: least squares on their records.

    Args:
        hessians: H of each.
        linear: c of each.
    """

    hessians: Float64[ndarray, "silos dim dim"]
    linear: Float64[ndarray, "silos dim"]

    @classmethod
    def of(cls, clients: Clients) -> Quadratics:
        """Of the records of `rivage.testing.toys.linear_clients`."""
        pairs = [(x.T @ x / len(x), x.T @ y[:, 0] / len(x)) for x, y in clients.records]
        return cls(np.stack([h for h, _ in pairs]), np.stack([c for _, c in pairs]))

    def gradient(self, params: Float[Tensor, "silos dim"]) -> Float[Tensor, "silos dim"]:
        """Of each silo at its own model."""
        return torch.einsum("nij,nj->ni", torch.as_tensor(self.hessians), params) - torch.as_tensor(self.linear)

    @property
    def optimum(self) -> Float64[ndarray, "dim"]:
        """Where the mean of all losses is least."""
        return np.asarray(np.linalg.solve(self.hessians.mean(axis=0), self.linear.mean(axis=0)))


def descend(
    algorithm: GossipAlgorithm,
    plan: MixingPlan,
    gradient: Callable[[Tensor], Tensor],
    params: Float[Tensor, "silos dim"],
    rounds: int,
) -> State:
    """Play rounds of one gradient step each, with nothing around them: what engines are held against.

    Args:
        algorithm: any.
        plan: of the averaging.
        gradient: models of all silos -> the gradient of each at its own.
        params: where silos start; they need not agree.
        rounds: how many.

    Returns:
        What the silos hold.
    """
    rate, state = algorithm.learning_rate, algorithm.start(params)
    for round in range(rounds):
        trained = state["params"] - rate * gradient(state["params"])
        state = play(algorithm, state, trained, rate, _mix(plan.weights(round)))
    return state


def doubly_stochastic(silos: int = _SILOS) -> MixingPlan:
    """Metropolis weights on a torus or a random graph."""
    network = torus(2, silos // 2) if silos % 2 == 0 else random_regular(silos, 2, np.random.default_rng(0))
    adjacency = np.zeros((silos, silos))
    for one, other in network.edges.tolist():
        adjacency[one, other] = adjacency[other, one] = 1
    return Cycled(matrices=[metropolis(adjacency)])


def check_gossip(algorithm: GossipAlgorithm) -> Battery:
    """Run every check on a decentralised algorithm; some milliseconds."""
    return Battery(repr(algorithm), tuple(_finding(check, algorithm) for check in _CHECKS))


def _finding(check: Callable[[GossipAlgorithm], None], algorithm: GossipAlgorithm) -> Finding:
    name = check.__name__.lstrip("_")
    try:
        check(algorithm)
    except Exception as error:  # any failure of foreign code is a finding, not the end of the battery
        return Finding(name, fault=f"{type(error).__name__}: {error}")
    return Finding(name)


def _mix(weights: Float64[ndarray, "silos silos"]) -> Mix:
    return lambda sent: {name: torch.as_tensor(weights, dtype=values.dtype) @ values for name, values in sent.items()}


def _models(dtype: torch.dtype = torch.float64) -> Float[Tensor, "silos dim"]:
    return torch.randn(_SILOS, _DIMENSION, dtype=dtype, generator=torch.Generator().manual_seed(1))


def _centres() -> Float[Tensor, "silos dim"]:
    return torch.randn(_SILOS, _DIMENSION, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def _rounds(algorithm: GossipAlgorithm, count: int) -> State:
    """A state in the middle of training, of silos that differ in models and data."""
    centres = _centres()
    return descend(algorithm, doubly_stochastic(), lambda params: params - centres, _models(), count)


def _is_an_algorithm(algorithm: GossipAlgorithm) -> None:
    """It has what the protocol asks for, and says where it comes from."""
    assert isinstance(algorithm, GossipAlgorithm), "it lacks hooks of GossipAlgorithm"
    assert algorithm.needs in ("symmetric", "doubly", "column"), f"needs is {algorithm.needs!r}"
    assert algorithm.reference.key, "reference has no key"
    assert algorithm.reference.year, "reference has no year"


def _settings_survive_a_file(algorithm: GossipAlgorithm) -> None:
    """Settings, written and read again, give an equal object."""
    again = read(type(algorithm), dump(algorithm))
    assert again == algorithm, f"{algorithm!r} came back as {again!r}"


def _one_silo_is_a_row_of_the_stack(algorithm: GossipAlgorithm) -> None:
    """Hooks do to one silo alone what they do to it in a stack."""
    state, rate = _rounds(algorithm, 3), algorithm.learning_rate
    trained = state["params"] - rate * _centres()
    sent = algorithm.send(state, trained, rate)
    sums = _mix(doubly_stochastic().weights(0))(sent)
    after = algorithm.receive(state, trained, rate, sent, sums)
    for silo in range(_SILOS):
        alone = algorithm.send(_row(state, silo), trained[silo], rate)
        _require_equal(alone, _row(sent, silo), "send")
        received = algorithm.receive(_row(state, silo), trained[silo], rate, alone, _row(sums, silo))
        _require_equal(received, _row(after, silo), "receive")


def _leaves_its_arguments_alone(algorithm: GossipAlgorithm) -> None:
    """No hook writes to what it is given."""
    state, rate = _rounds(algorithm, 2), algorithm.learning_rate
    trained = state["params"] - rate * _centres()
    sent = algorithm.send(state, trained, rate)
    sums = _mix(doubly_stochastic().weights(0))(sent)
    before = [{name: values.clone() for name, values in each.items()} for each in (state, sent, sums)]
    copy = trained.clone()
    algorithm.send(state, trained, rate)
    algorithm.receive(state, trained, rate, sent, sums)
    assert torch.equal(trained, copy), "trained was changed"
    for now, then in zip((state, sent, sums), before, strict=True):
        _require_equal(now, then, "an argument")


def _keeps_its_form(algorithm: GossipAlgorithm) -> None:
    """A state has the same entries in every round, of the dtype it was given, D numbers or one for each silo."""
    for dtype in (torch.float32, torch.float64):
        state = algorithm.start(_models(dtype))
        forms = []
        for _ in range(3):
            forms.append({name: (values.shape, values.dtype) for name, values in state.items()})
            trained = state["params"] - 0.1
            sent = algorithm.send(state, trained, 0.1)
            wide = {name: tuple(values.shape) for name, values in sent.items()}
            assert all(shape in ((_SILOS, _DIMENSION), (_SILOS, 1)) for shape in wide.values()), f"it sends {wide}"
            state = algorithm.receive(state, trained, 0.1, sent, _mix(doubly_stochastic().weights(0))(sent))
        assert "params" in forms[0], "there is no entry params"
        assert forms[0] == forms[1] == forms[2], f"entries change: {forms}"
        assert all(found == dtype for _, found in forms[0].values()), f"dtypes are {forms[0]}"


def _is_sgd_where_all_are_alike(algorithm: GossipAlgorithm) -> None:
    """Silos with the same model and the same data do what one of them does alone."""
    centre, rate = _centres()[0], algorithm.learning_rate
    alike = descend(algorithm, doubly_stochastic(), lambda p: p - centre, _models()[:1].expand(_SILOS, -1), 8)
    alone = _models()[0]
    for _ in range(8):
        alone = alone - rate * (alone - centre)
    assert torch.allclose(alike["params"], alone.expand(_SILOS, -1), atol=_EXACT), "they do not follow plain SGD"


def _agrees_on_the_mean(algorithm: GossipAlgorithm) -> None:
    """Where nothing is learnt, silos tend to the mean of where they started."""
    start = _models()
    after = descend(algorithm, doubly_stochastic(), torch.zeros_like, start, 200)["params"]
    assert torch.allclose(after, start.mean(dim=0).expand_as(after), atol=1e-9), "they tend to something else"


def _row(state: State, silo: int) -> State:
    return {name: values[silo] for name, values in state.items()}


def _require_equal(one: State, other: State, what: str) -> None:
    assert one.keys() == other.keys(), f"{what} has entries {', '.join(one)}, expected {', '.join(other)}"
    for name, values in one.items():
        assert torch.allclose(values, other[name], rtol=0, atol=_EXACT), f"{what}: {name} differs"


_CHECKS: tuple[Callable[[GossipAlgorithm], None], ...] = (
    _is_an_algorithm,
    _settings_survive_a_file,
    _one_silo_is_a_row_of_the_stack,
    _leaves_its_arguments_alone,
    _keeps_its_form,
    _is_sgd_where_all_are_alike,
    _agrees_on_the_mean,
)

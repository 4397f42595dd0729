"""What every decentralised algorithm must satisfy, ours or a plug-in's, and the plainest engine for it.

Use in a test of your own::

    from rivage.testing.gossip import check_gossip

    def test_conformance() -> None:
        check_gossip(MyMethod(learning_rate=0.1)).require()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy import ndarray
from torch import Tensor

from rivage.core.settings import dump, read
from rivage.decentralized.gossip import GossipAlgorithm, Mix, State, Weighs, initial, play, predictor, row, weighed
from rivage.decentralized.mixing_plan import Cycled, MixingPlan
from rivage.graphs.families import random_regular, torus
from rivage.graphs.mixing import metropolis
from rivage.testing.conformance import Battery, Finding
from rivage.testing.toys import Clients, linear_clients, linear_task

__all__ = ["Quadratics", "check_gossip", "descend", "doubly_stochastic"]

_SILOS, _DIMENSION, _RECORDS = 6, 5, 4
_EXACT = 1e-12

_Step = Callable[[State], tuple[State, Tensor]]
"""What silos hold -> what they hold when they have trained, and what they trained."""


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
    rate = algorithm.learning_rate
    return _played(
        algorithm, plan, lambda held: (held, held["params"] - rate * gradient(held["params"])), params, rounds
    )


def _played(algorithm: GossipAlgorithm, plan: MixingPlan, step: _Step, params: Tensor, rounds: int) -> State:
    state = algorithm.start(params)
    for round in range(rounds):
        state, trained = step(state)
        state = play(algorithm, state, trained, algorithm.learning_rate, _mix(plan.weights(round)))
    return state


def doubly_stochastic(silos: int = _SILOS) -> MixingPlan:
    """Metropolis weights on a torus or a random graph."""
    network = torus(2, silos // 2) if silos % 2 == 0 else random_regular(silos, 2, np.random.default_rng(0))
    adjacency = np.zeros((silos, silos))
    for one, other in network.edges.tolist():
        adjacency[one, other] = adjacency[other, one] = 1
    return Cycled(matrices=[metropolis(adjacency)])


@dataclass(frozen=True, eq=False)
class _Records:
    """Losses ½ ‖w − r‖² of the records r of silos.

    Args:
        values: as many of each silo.
    """

    values: Float[Tensor, "silos records dim"]

    def losses(self, params: Float[Tensor, "silos groups dim"]) -> Sequence[Float[Tensor, "records groups"]]:
        return list((self.values[:, :, None] - params[:, None]).square().sum(dim=-1) / 2)

    def step(self, algorithm: GossipAlgorithm) -> _Step:
        """One gradient step, with the weights that the method gives to records."""

        def train(state: State) -> tuple[State, Tensor]:
            held, weights = weighed(algorithm, state, self.losses)
            return held, held["params"] - algorithm.learning_rate * self._gradient(held["params"], weights)

        return train

    def _gradient(self, params: Tensor, weights: Sequence[Tensor | None]) -> Tensor:
        given = [each for each in weights if each is not None]
        if not given:
            return params - self.values.mean(dim=1)
        shares = torch.stack(given)
        return shares.mean(dim=1)[..., None] * params - shares.mT @ self.values / self.values.shape[1]


def check_gossip(algorithm: GossipAlgorithm) -> Battery:
    """Run every check on a decentralised algorithm; some milliseconds."""
    return Battery(repr(algorithm), tuple(_finding(check, algorithm) for check in _CHECKS))


def _finding(check: Callable[[GossipAlgorithm], None], algorithm: GossipAlgorithm) -> Finding:
    name = check.__name__.lstrip("_")
    if check in _OF_WEIGHTS and not isinstance(algorithm, Weighs):
        return Finding(name, skipped="a silo has one model, in which its records count alike")
    try:
        check(algorithm)
    except Exception as error:  # any failure of foreign code is a finding, not the end of the battery
        return Finding(name, fault=f"{type(error).__name__}: {error}")
    return Finding(name)


def _mix(weights: Float64[ndarray, "silos silos"]) -> Mix:
    def mix(sent: State) -> State:
        return {
            name: torch.tensordot(torch.as_tensor(weights, dtype=values.dtype), values, dims=1)
            for name, values in sent.items()
        }

    return mix


def _models(algorithm: GossipAlgorithm, dtype: torch.dtype = torch.float64) -> Float[Tensor, "silos *groups dim"]:
    """Another model in every silo, or others."""
    task = linear_task(linear_clients(features=_DIMENSION), dtype)
    shape = (_SILOS, *initial(algorithm, task, seed=0).shape)
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


def _records(dtype: torch.dtype = torch.float64, seed: int = 2) -> _Records:
    shape = (_SILOS, _RECORDS, _DIMENSION)
    return _Records(torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)))


def _rounds(algorithm: GossipAlgorithm, count: int) -> tuple[State, Tensor]:
    """A state in the middle of training, of silos that differ in models and data, and what they train next."""
    step = _records().step(algorithm)
    return step(_played(algorithm, doubly_stochastic(), step, _models(algorithm), count))


def _is_an_algorithm(algorithm: GossipAlgorithm) -> None:
    """It has what the protocol asks for, and says where it comes from."""
    assert isinstance(algorithm, GossipAlgorithm), "it lacks hooks of GossipAlgorithm"
    assert isinstance(algorithm, Weighs) or not hasattr(algorithm, "weigh"), "it lacks hooks of Weighs"
    assert algorithm.needs in ("symmetric", "doubly", "column"), f"needs is {algorithm.needs!r}"
    assert algorithm.reference.key, "reference has no key"
    assert algorithm.reference.year, "reference has no year"


def _settings_survive_a_file(algorithm: GossipAlgorithm) -> None:
    """Settings, written and read again, give an equal object."""
    again = read(type(algorithm), dump(algorithm))
    assert again == algorithm, f"{algorithm!r} came back as {again!r}"


def _one_silo_is_a_row_of_the_stack(algorithm: GossipAlgorithm) -> None:
    """Hooks do to one silo alone what they do to it in a stack."""
    (state, trained), rate = _rounds(algorithm, 3), algorithm.learning_rate
    sent = algorithm.send(state, trained, rate)
    sums = _mix(doubly_stochastic().weights(0))(sent)
    after = algorithm.receive(state, trained, rate, sent, sums)
    for silo in range(_SILOS):
        alone = algorithm.send(row(state, silo), trained[silo], rate)
        _require_equal(alone, row(sent, silo), "send")
        received = algorithm.receive(row(state, silo), trained[silo], rate, alone, row(sums, silo))
        _require_equal(received, row(after, silo), "receive")


def _leaves_its_arguments_alone(algorithm: GossipAlgorithm) -> None:
    """No hook writes to what it is given."""
    (state, trained), rate = _rounds(algorithm, 2), algorithm.learning_rate
    sent = algorithm.send(state, trained, rate)
    sums = _mix(doubly_stochastic().weights(0))(sent)
    before = [{name: values.clone() for name, values in each.items()} for each in (state, sent, sums)]
    copy = trained.clone()
    algorithm.send(state, trained, rate)
    algorithm.receive(state, trained, rate, sent, sums)
    weighed(algorithm, state, _records().losses)
    assert torch.equal(trained, copy), "trained was changed"
    for now, then in zip((state, sent, sums), before, strict=True):
        _require_equal(now, then, "an argument")


def _keeps_its_form(algorithm: GossipAlgorithm) -> None:
    """A state has the same entries in every round, of the dtype it was given; sent are models, or a number."""
    for dtype in (torch.float32, torch.float64):
        state, mix = algorithm.start(_models(algorithm, dtype)), _mix(doubly_stochastic().weights(0))
        model = state["params"].shape
        forms = []
        for _ in range(3):
            forms.append({name: (values.shape, values.dtype) for name, values in state.items()})
            state, trained = _records(dtype).step(algorithm)(state)
            sent = algorithm.send(state, trained, 0.1)
            wide = {name: tuple(values.shape) for name, values in sent.items()}
            assert all(shape in (model, (_SILOS, 1)) for shape in wide.values()), f"it sends {wide}"
            state = algorithm.receive(state, trained, 0.1, sent, mix(sent))
        assert "params" in forms[0], "there is no entry params"
        assert forms[0] == forms[1] == forms[2], f"entries change: {forms}"
        assert all(found == dtype for _, found in forms[0].values()), f"dtypes are {forms[0]}"


def _is_sgd_where_all_are_alike(algorithm: GossipAlgorithm) -> None:
    """Silos with the same models and the same data do what one of them does alone."""
    first, records = _models(algorithm)[:1], _records().values[:1]
    step = _Records(records.expand(_SILOS, -1, -1)).step(algorithm)
    alike = _played(algorithm, doubly_stochastic(), step, first.expand(_SILOS, *first.shape[1:]), 8)
    alone, step = algorithm.start(first), _Records(records).step(algorithm)
    for _ in range(8):
        alone, trained = step(alone)
        alone = {**alone, "params": trained}
    assert torch.allclose(alike["params"], alone["params"].expand_as(alike["params"]), atol=_EXACT), (
        "they do not follow plain SGD"
    )


def _agrees_on_the_mean(algorithm: GossipAlgorithm) -> None:
    """Where nothing is learnt, silos tend to the mean of where they started."""
    start = _models(algorithm)
    after = descend(algorithm, doubly_stochastic(), torch.zeros_like, start, 200)["params"]
    assert torch.allclose(after, start.mean(dim=0).expand_as(after), atol=1e-9), "they tend to something else"


def _sends_nothing_of_its_weights(algorithm: GossipAlgorithm) -> None:
    """What a silo makes of its records before it trains is sent by nothing but what it trains."""
    state, _ = _rounds(algorithm, 2)
    one, other = (weighed(algorithm, state, _records(seed=seed).losses)[0] for seed in (3, 4))
    changed = [name for name, values in one.items() if not torch.equal(values, other[name])]
    assert "params" not in changed, "weigh changes the models"
    assert torch.equal(one["params"], state["params"]), "weigh changes the models"
    trained = state["params"] + 1
    sent, again = (algorithm.send(each, trained, 0.1) for each in (one, other))
    _require_equal(sent, again, f"send tells {', '.join(changed)}: it")


def _weighs_and_mixes(algorithm: GossipAlgorithm) -> None:
    """Records have weights >= 0 under each model, and predictions shares on the simplex, of newcomers too."""
    assert isinstance(algorithm, Weighs)
    state, _ = _rounds(algorithm, 2)
    held, weights = weighed(algorithm, state, _records().losses)
    groups = state["params"].shape[1]
    for each in weights:
        assert each is not None, "there are no weights"
        assert each.shape == (_RECORDS, groups), f"weights are {list(each.shape)}"
        assert bool((each >= 0).all()), "weights are negative or not finite"
    losses = _records().losses(state["params"])[0]
    newcomer = algorithm.settle(algorithm.start(state["params"][0]), losses)
    for known in (row(held, 0), newcomer):
        found = predictor(algorithm, known)
        assert torch.equal(found.params, state["params"][0]), "it predicts with other models than those it has"
        assert abs(float(found.mix.sum()) - 1) < _EXACT, f"shares add up to {float(found.mix.sum())}"
        assert bool((found.mix >= 0).all()), "shares are negative or not finite"


def _require_equal(one: State, other: State, what: str) -> None:
    assert one.keys() == other.keys(), f"{what} has entries {', '.join(one)}, expected {', '.join(other)}"
    for name, values in one.items():
        assert torch.allclose(values, other[name], rtol=0, atol=_EXACT), f"{what}: {name} differs"


_OF_WEIGHTS: tuple[Callable[[GossipAlgorithm], None], ...] = (_sends_nothing_of_its_weights, _weighs_and_mixes)

_CHECKS: tuple[Callable[[GossipAlgorithm], None], ...] = (
    _is_an_algorithm,
    _settings_survive_a_file,
    _one_silo_is_a_row_of_the_stack,
    _leaves_its_arguments_alone,
    _keeps_its_form,
    _is_sgd_where_all_are_alike,
    _agrees_on_the_mean,
    *_OF_WEIGHTS,
)

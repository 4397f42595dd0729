"""The conformance battery: what every algorithm must satisfy, ours or a plug-in's.

Use in a test of your own::

    from rivage.testing.conformance import check_algorithm

    def test_conformance() -> None:
        check_algorithm(MyMethod(learning_rate=0.1)).require()

A battery counts its checks, so that a green run with nothing in it cannot go unnoticed; a check that does not apply
says why it was skipped.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rivage.core.errors import RivageError
from rivage.core.messages import decode, encode
from rivage.core.seeding import Streams
from rivage.core.settings import dump, read
from rivage.federated.algorithm import Adapts, Algorithm, Predictor, Update
from rivage.federated.checkpoint import Notebook
from rivage.federated.cohorts import Candidates
from rivage.federated.collectors import Plain
from rivage.federated.engine import run
from rivage.federated.execution import Execution
from rivage.federated.executors.executor import Executor
from rivage.federated.executors.jobs import Job
from rivage.federated.trial import Trial
from rivage.learning.params import from_numpy, to_numpy
from rivage.testing.toys import Clients, layered_task, linear_clients

__all__ = ["Battery", "Finding", "check_algorithm"]

_ROUNDS = 4


class Skipped(Exception):
    """A check that does not apply; the reason is shown."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Args:
        check: its name.
        fault: what is wrong; empty when it passed.
        skipped: why it does not apply; empty when it ran.
    """

    check: str
    fault: str = ""
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class Battery:
    """The findings on one subject.

    Args:
        subject: what was checked.
        findings: one per check.
    """

    subject: str
    findings: tuple[Finding, ...]

    @property
    def ran(self) -> int:
        """Number of checks that ran."""
        return sum(not finding.skipped for finding in self.findings)

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The checks that failed."""
        return tuple(finding for finding in self.findings if finding.fault)

    def require(self) -> None:
        """Raise if a check failed or none ran.

        Raises:
            AssertionError: listing every fault.
        """
        lines = [f"  {finding.check}: {finding.fault}" for finding in self.faults]
        if lines or not self.ran:
            raise AssertionError("\n".join([f"{self.subject}: {len(lines)} of {self.ran} checks failed", *lines]))


def check_algorithm(algorithm: Algorithm) -> Battery:
    """Run every check on a federated algorithm; about a second.

    Args:
        algorithm: an instance with settings under which it trains a tiny network on small least-squares problems.
    """
    return Battery(repr(algorithm), tuple(_run(check, algorithm) for check in _CHECKS))


def _run(check: Callable[[Any], None], subject: Any) -> Finding:
    name = check.__name__.lstrip("_")
    try:
        check(subject)
    except Skipped as reason:
        return Finding(name, skipped=str(reason))
    except Exception as error:  # any failure of foreign code is a finding, not the end of the battery
        return Finding(name, fault=f"{type(error).__name__}: {error}")
    return Finding(name)


def _stores_its_arguments(algorithm: Any) -> None:
    """A frozen dataclass whose constructor keeps what it is given."""
    assert dataclasses.is_dataclass(algorithm), "it is not a dataclass"
    assert not isinstance(algorithm, type), "give an instance, not the class"
    fields = [field for field in dataclasses.fields(algorithm) if field.init]
    values = {field.name: getattr(algorithm, field.name) for field in fields}
    again = type(algorithm)(**values)
    for name, value in values.items():
        assert getattr(again, name) == value, f'"{name}" was given {value!r} and holds {getattr(again, name)!r}'
    try:
        setattr(again, fields[0].name if fields else "anything", None)
    except dataclasses.FrozenInstanceError:
        return
    raise AssertionError("its fields can be changed after construction: use @dataclass(frozen=True)")


def _settings_survive_a_file(algorithm: Any) -> None:
    """Settings, written and read again, give an equal object."""
    again = read(type(algorithm), dump(algorithm))
    assert again == algorithm, f"{algorithm!r} came back as {again!r}"


def _cites_its_source(algorithm: Any) -> None:
    """`reference` has key, authors, title and year, and the class a docstring."""
    reference = algorithm.reference
    missing = [name for name in ("key", "authors", "title", "year") if not getattr(reference, name)]
    assert not missing, f"reference lacks {', '.join(missing)}"
    assert (type(algorithm).__doc__ or "").strip(), "the class has no docstring"


def _refuses_bad_values(algorithm: Any) -> None:
    """A learning rate that is not a positive number is refused, with what and how to mend."""
    if "learning_rate" not in {field.name for field in dataclasses.fields(algorithm)}:
        raise Skipped("it has no learning_rate")
    for value in (0.0, -1.0, float("nan")):
        try:
            replace(algorithm, learning_rate=value)
        except RivageError as error:
            assert error.what, "the refusal does not say what is wrong"
            assert error.mend, "the refusal does not say how to mend it"
        else:
            raise AssertionError(f"learning_rate={value} is accepted")


def _repeats_with_its_seed(algorithm: Any) -> None:
    """Equal seeds give equal records, whatever the global generators hold; and leave those alone."""
    before = _global_generators()
    first = _record(algorithm)
    assert _same_generators(before, _global_generators()), (
        "it draws from a global generator: use the streams it is given"
    )
    torch.default_generator.manual_seed(12345)
    random.seed(12345)
    np.random.seed(12345)  # noqa: NPY002 - the global generator is what is probed
    try:
        assert _record(algorithm) == first, "the record changes with the global generators"
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        random.setstate(before[2])


def _resumes(algorithm: Any) -> None:
    """Stopped after any round and resumed, it ends where an uninterrupted run ends."""
    if not algorithm.federates:
        raise Skipped("it plays no rounds")
    whole = run(_trial(algorithm))
    for stop in (1, _ROUNDS - 1):
        notebook = Notebook()
        run(replace(_trial(algorithm), rounds=stop), notebook)
        assert notebook.snapshot is not None
        everyone = range(_trial(algorithm).population.size)
        kept = {
            client: replace(memory, values=_through_a_file(memory.values), residuals=_through_a_file(memory.residuals))
            for client, memory in zip(everyone, notebook.memories.get(everyone), strict=True)
        }
        notebook.memories.put(kept, stop)
        notebook.commit(replace(notebook.snapshot, state=_through_a_file(notebook.snapshot.state)))
        resumed = run(_trial(algorithm), notebook)
        assert _equal(resumed.state, whole.state), f"stopped after round {stop}, it ends elsewhere"
        assert resumed.seen.columns == whole.seen.columns, f"stopped after round {stop}, it predicts otherwise"


def _leaves_its_inputs_alone(algorithm: Any) -> None:
    """No hook writes into the state, memory, broadcast or data it is given."""
    population, task, executor, state = _stage(algorithm)
    adapting = algorithm if isinstance(algorithm, Adapts) else None
    guarded: dict[str, Any] = {"state": state}
    data = population.client(0)
    guarded["data"] = {"x": data.train.x, "y": data.train.y}
    with _unchanged(guarded, "select"):
        cohort = algorithm.select(state, _candidates(population), Streams(0).child("round", 0), task)
    if algorithm.federates:
        updates = [
            _exchange(algorithm, client, population, task, executor, state, cohort, guarded) for client in cohort.ids
        ]
        kept = {update.client: update.memory or {} for update in updates}
        for update in updates:  # a second time, now with something to remember
            with _unchanged({"memory": kept[update.client]}, "a later round"):
                _exchange(
                    algorithm, update.client, population, task, executor, state, cohort, guarded, kept[update.client]
                )
        received = _collect(algorithm, updates)
        with _unchanged(guarded, "aggregate"):
            state = dict(algorithm.aggregate(state, received, task))
        guarded |= {"state": state, "memory": kept[0]}
    local, memory = None, guarded.get("memory", {})
    if adapting is not None:
        losses = executor.client_losses(algorithm, [algorithm.broadcast(state, 0, task)], [data])[0]
        with _unchanged(guarded, "adapt"):
            local = adapting.adapt(state, memory, data, losses, Streams(0), task)
            if local is not None and adapting.adaptation is not None:
                executor.train(algorithm, adapting.adaptation, [Job(0, local, data.train)], Streams(0), 0)
    with _unchanged(guarded, "predictor"):
        algorithm.predictor(state, memory, local, task)


def _does_not_depend_on_the_order_of_updates(algorithm: Any) -> None:
    """The server's next state is the same, to rounding, whoever answers first."""
    if not algorithm.federates:
        raise Skipped("nothing is sent")
    population, task, executor, state = _stage(algorithm)
    cohort = algorithm.select(state, _candidates(population), Streams(0).child("round", 0), task)
    updates = [_exchange(algorithm, client, population, task, executor, state, cohort, {}) for client in cohort.ids]
    forward = algorithm.aggregate(state, _collect(algorithm, updates), task)
    backward = algorithm.aggregate(state, _collect(algorithm, updates[::-1]), task)
    for name, value in forward.items():
        torch.testing.assert_close(backward[name], value, rtol=1e-10, atol=1e-12)


def _keeps_its_state_in_files(algorithm: Any) -> None:
    """State is a mapping of names to tensors, and comes back from a file unchanged."""
    _, _, _, state = _stage(algorithm)
    assert _equal(state, _through_a_file(state)), "state changed in a file"


def _predicts_for_everyone(algorithm: Any) -> None:
    """Predictors, of newcomers too, have finite parameters of the task's length and a mix on the simplex."""
    trial = replace(_trial(algorithm), unseen=np.array([1]))
    outcome = run(trial)
    assert outcome.unseen is not None
    general = (algorithm.predictor(outcome.state, {}, None, trial.task),) if algorithm.federates else ()
    for predictor in (*outcome.seen.predictors.values(), *outcome.unseen.predictors.values(), *general):
        _require_predictor(predictor, trial.task.dimension)


def _require_predictor(predictor: Predictor, dimension: int) -> None:
    groups = len(predictor.mix)
    assert tuple(predictor.params.shape) == (groups, dimension), f"params has shape {tuple(predictor.params.shape)}"
    assert bool(torch.isfinite(predictor.params).all()), "params are not finite"
    assert bool((predictor.mix >= 0).all()), "the mix has negative weights"
    assert abs(float(predictor.mix.sum()) - 1) < 1e-6, "the mix does not sum to 1"


def _is_the_same_on_every_executor(algorithm: Any) -> None:
    """One client at a time or in tiles, to rounding in float64."""
    one, many = (
        run(replace(_trial(algorithm), execution=Execution(executor=kind, workers=2)))
        for kind in ("functional", "tiled")
    )
    for name, value in one.state.items():
        torch.testing.assert_close(many.state[name], value, rtol=1e-10, atol=1e-10)
    for client, predictor in one.seen.predictors.items():
        other = many.seen.predictors[client]
        torch.testing.assert_close(other.params, predictor.params, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(other.mix, predictor.mix, rtol=1e-10, atol=1e-10)


_CHECKS: tuple[Callable[[Any], None], ...] = (
    _stores_its_arguments,
    _settings_survive_a_file,
    _cites_its_source,
    _refuses_bad_values,
    _repeats_with_its_seed,
    _resumes,
    _leaves_its_inputs_alone,
    _does_not_depend_on_the_order_of_updates,
    _keeps_its_state_in_files,
    _predicts_for_everyone,
    _is_the_same_on_every_executor,
)


def _trial(algorithm: Algorithm) -> Trial:
    population = linear_clients()
    return Trial(
        name="toy",
        algorithm=algorithm,
        population=population,
        task=layered_task(population),
        rounds=_ROUNDS,
        cohort=3,
        every=2,
    )


def _record(algorithm: Algorithm) -> list[dict[str, Any]]:
    notebook = Notebook()
    run(_trial(algorithm), notebook)
    return notebook.events


def _stage(algorithm: Algorithm) -> tuple[Clients, Any, Executor, dict[str, Tensor]]:
    population = linear_clients()
    task = layered_task(population)
    return population, task, Executor(task), dict(algorithm.init(task, population.size, Streams(0)))


def _candidates(population: Clients) -> Candidates:
    return Candidates(population, 0, None, np.empty(0, np.int64))


def _exchange(
    algorithm: Any,
    client: int,
    population: Clients,
    task: Any,
    executor: Executor,
    state: Mapping[str, Tensor],
    cohort: Any,
    guarded: dict[str, Any],
    memory: Mapping[str, Tensor] | None = None,
) -> Update:
    """One client's round, hook by hook, with watched inputs."""
    client = int(client)
    data = population.client(client)
    with _unchanged(guarded, "broadcast"):
        down = algorithm.broadcast(state, client, task) or {}
    watched = {**guarded, "broadcast": down, "data": {"x": data.train.x, "y": data.train.y}}
    losses = executor.client_losses(algorithm, [down], [data])[0]
    with _unchanged(watched, "start"):
        local = algorithm.start(down, memory or {}, data, losses, Streams(0).child("client", client), task)
    local.weight = float(cohort.weights[cohort.ids.tolist().index(client)])
    if cohort.work is not None:
        with _unchanged(watched, "training"):
            executor.train(algorithm, cohort.work, [Job(client, local, data.train)], Streams(0), 0)
    with _unchanged(watched, "finish"):
        update: Update = algorithm.finish(local, task)
    return replace(update, client=client)


def _collect(algorithm: Any, updates: list[Update]) -> Any:
    collector = Plain(each=algorithm.needs == "each")
    for update in updates:
        collector.add(update)
    return collector.result()


def _through_a_file(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    arrays = decode(encode({name: to_numpy(value) for name, value in state.items()}))
    return {name: from_numpy(array) for name, array in arrays.items()}


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _global_generators() -> tuple[Tensor, Any, Any]:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002


def _same_generators(a: tuple[Tensor, Any, Any], b: tuple[Tensor, Any, Any]) -> bool:
    numpy_same = a[1][0] == b[1][0] and (a[1][1] == b[1][1]).all() and a[1][2:] == b[1][2:]
    return torch.equal(a[0], b[0]) and bool(numpy_same) and a[2] == b[2]


class _unchanged:
    """Fails if anything named was written to inside the block."""

    def __init__(self, watched: Mapping[str, Mapping[str, Any]], hook: str) -> None:
        self.watched, self.hook = watched, hook

    def __enter__(self) -> None:
        self.before = {
            (group, name): _array(value).copy()
            for group, values in self.watched.items()
            for name, value in values.items()
        }

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is not None:
            return
        for (group, name), value in self.before.items():
            assert np.array_equal(_array(self.watched[group][name]), value), f'{self.hook} wrote into {group} "{name}"'


def _array(value: Tensor | np.ndarray) -> np.ndarray:
    return to_numpy(value) if isinstance(value, Tensor) else value

"""The schema of a study file: which data, which methods, how long, judged how.

The tables are dataclasses; those of data, methods and availability are the registered classes themselves, so that
adding a method adds its settings. A study is read with `load_study`, changed with ``--set`` overrides, and written
back fully resolved with `dump_study`: ``parse_study(format_toml(dump_study(study))) == study``.

The ``[work]`` table is the local work of every method that has a setting ``work`` and no such table of its own; it
replaces the method's table as a whole, key by key merging would make ``updates`` outlive ``epochs``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rivage.core.errors import ConfigError, RivageError, nearest, require
from rivage.core.messages import LogPolicy
from rivage.core.schema import fields_of
from rivage.core.settings import Located, OneOf, combine, dump, kind_of, read
from rivage.core.toml import apply_overrides, load_toml, parse_toml
from rivage.data.build import DATASETS
from rivage.data.partition import PARTITIONS
from rivage.data.shifts import SHIFTS
from rivage.decentralized.silo_settings import NETWORKS, SiloSettings
from rivage.federated.kinds import ADVERSARIES, COLLECTIONS, STAGES
from rivage.federated.registry import ALGORITHMS
from rivage.federated.turns import require_epoch
from rivage.simulation.availability import AVAILABILITY, Always
from rivage.simulation.devices import DEVICES
from rivage.studies.audit_settings import Auditing
from rivage.studies.shared_checks import ambiguous, blank, require_label, require_seeds
from rivage.studies.tuning_settings import Tuning

_AVERAGED = Located("rivage.federated.collectors:Averaged")
_WORK = Located("rivage.federated.algorithm:Phase")
_TASK = Located("rivage.learning.task:TaskSettings")
_TIMES = Located("rivage.decentralized.clock:Clock")
_STREAM = Located("rivage.data.streams:Stream")

if TYPE_CHECKING:
    from rivage.data.build import PopulationSource
    from rivage.data.dataset import Source
    from rivage.data.partition import Partition
    from rivage.data.shifts import Shift
    from rivage.data.streams import Stream as StreamTable
    from rivage.decentralized.clock import Clock as Times
    from rivage.federated.adversaries import Adversary
    from rivage.federated.algorithm import Algorithm
    from rivage.federated.algorithm import Phase as Work
    from rivage.federated.collectors import Collection
    from rivage.federated.stages import UpdateStage
    from rivage.learning.task import TaskSettings as TaskTable
    from rivage.simulation.availability import Availability
    from rivage.simulation.devices import Devices

    DataTable = Source | PopulationSource
else:  # resolved when a study is read: algorithms and tasks import torch
    Adversary = Algorithm = Availability = Collection = DataTable = Devices = Partition = Shift = UpdateStage = Any
    Work = Annotated[Any, _WORK]
    TaskTable = Annotated[Any, _TASK]
    Times = Annotated[Any, _TIMES]
    StreamTable = Annotated[Any, _STREAM]

__all__ = [
    "Evaluation",
    "Method",
    "Run",
    "Study",
    "collector_faults",
    "dump_study",
    "is_decentralized",
    "load_study",
    "override_study",
    "parse_study",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One competitor of a study.

    Args:
        name: what it is called in this study; its kind when left out.
        algorithm: the method with its hyper-parameters.
        stages: what happens to an update between client and server, in this order.
        collector: how the server combines updates.
    """

    name: str = ""
    algorithm: Annotated[Algorithm, OneOf(ALGORITHMS)] = field(metadata={"flat": True})
    stages: tuple[Annotated[UpdateStage, OneOf(STAGES)], ...] = ()
    collector: Annotated[Collection, OneOf(COLLECTIONS)] = field(default_factory=_AVERAGED)

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.kind)
        require_label(self.name)

    @property
    def kind(self) -> str:
        """The name under which the algorithm is registered."""
        return kind_of(ALGORITHMS, self.algorithm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How long, with whom, from which seeds.

    Args:
        rounds: exchanges between server and clients, >= 0.
        cohort: clients per round, >= 1; ``"all"`` takes everyone available.
        sampling: ``uniform`` draws exactly so many; ``poisson`` draws each client by itself, so many on average, as the
            accountant of ``private_mean`` assumes; ``epochs`` draws exactly so many of those whose turn it is, which is
            in one round of every epoch, as ``dp_ftrl`` needs it.
        epoch: rounds of an epoch, >= 1; ``"auto"`` takes as many as cohorts need to take in everyone once. A longer
            one leaves more clients to choose from, where many are away.
        seeds: one trial of every method for each, distinct, 0 <= seed < 2**64.
        dtype: numbers of models and losses.
        log: what the message log keeps: ``none``, ``meta``, ``clients:[0, 5]`` or ``all``; left out, everything
            while that is small.
        executor: what trains the clients: ``tiled`` (many clients in one batched product, models that are chains of
            dense layers), ``functional`` (any model, one client at a time) or ``auto``: tiled where the model allows.
        workers: threads or processes that train side by side, >= 1; ``"auto"`` takes one per core. Results do not
            depend on it.
        device: where models are trained: ``auto``, ``cpu``, or a GPU such as ``cuda:0``.
        remembered: clients whose memory is kept between rounds, >= 1; beyond it those that took part longest ago are
            forgotten and start anew. ``"all"`` forgets nobody.
    """

    rounds: int = 50
    cohort: int | None = field(default=None, metadata={"none": "all"})
    sampling: Literal["uniform", "poisson", "epochs"] = "uniform"
    epoch: int | None = field(default=None, metadata={"none": "auto"})
    seeds: tuple[int, ...] = (0,)
    dtype: Literal["float32", "float64"] = "float32"
    log: str | None = None
    executor: Literal["auto", "functional", "tiled"] = "auto"
    workers: int | None = field(default=None, metadata={"none": "auto"})
    device: str = "auto"
    remembered: int | None = field(default=None, metadata={"none": "all"})

    def __post_init__(self) -> None:
        require(self.rounds, "rounds", least=0)
        if self.cohort is not None:
            require(self.cohort, "cohort", least=1)
        require_epoch(self.sampling, self.epoch, self.cohort)
        require_seeds(self.seeds)
        if self.log is not None:
            LogPolicy.parse(self.log)
        for name in ("workers", "remembered"):
            if (count := getattr(self, name)) is not None:
                require(count, name, least=1)
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", self.device):
            raise ConfigError(f'device is "{self.device}"', mend='Write "auto", "cpu" or "cuda:0".')


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How the methods are judged.

    Args:
        every: rounds between evaluations, >= 1; the end is always evaluated.
        unseen_clients: share of the clients that never train and are judged apart, in [0, 1).
        validation: share of each client's records to choose with, in [0, 1).
        test: share of each client's records to report on, in [0, 1).
    """

    every: int = 10
    unseen_clients: float = 0.0
    validation: float = 0.15
    test: float = 0.2

    def __post_init__(self) -> None:
        require(self.every, "every", least=1)
        for name in ("unseen_clients", "validation", "test"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", mend="Give a share of at least 0 and below 1.")
        if self.validation + self.test >= 1:
            shares = f"validation {self.validation} and test {self.test}"
            raise ConfigError(f"{shares} leave no record to train on", mend="Give shares whose sum is below 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A comparison of methods on the same clients, splits and seeds.

    Args:
        name: what the run folder is called after.
        data: where records come from.
        methods: the competitors, at least one.
        partition: how records that are not split yet are dealt to clients.
        shift: how clients differ on top of the split.
        stream: at which clients training records arrive while training goes on, and what they keep; None means that all
            are there from the start.
        availability: who is there when.
        adversary: which clients do harm, and how; None means that all are honest.
        devices: how fast the clients' devices and links are and what they consume; None asks for no simulated time.
        underlay: the network between the silos of decentralised methods; None asks for no simulated time.
        silos: what the silos do in a round, and their access links; None with an underlay takes the defaults.
        times: how their times of work and of messages scatter round the means; None leaves them at the means.
        task: model, loss and metric.
        work: local work of every method that does not say otherwise.
        run: rounds, cohort and seeds.
        evaluation: how often and on what.
        tuning: what ``--tune`` tries; None takes the defaults.
        audit: how `rivage run` audits what it has trained; None takes the defaults.
    """

    name: str
    data: Annotated[DataTable, OneOf(DATASETS)]
    methods: tuple[Method, ...]
    partition: Annotated[Partition, OneOf(PARTITIONS)] | None = None
    shift: Annotated[Shift, OneOf(SHIFTS)] | None = None
    stream: StreamTable | None = None
    availability: Annotated[Availability, OneOf(AVAILABILITY)] = field(default_factory=Always)
    adversary: Annotated[Adversary, OneOf(ADVERSARIES)] | None = None
    devices: Annotated[Devices, OneOf(DEVICES)] | None = None
    underlay: Annotated[Any, OneOf(NETWORKS)] | None = None
    silos: SiloSettings | None = None
    times: Times | None = None
    task: TaskTable = field(default_factory=_TASK)
    work: Work = field(default_factory=_WORK)
    run: Run = field(default_factory=Run)
    evaluation: Evaluation = field(default_factory=Evaluation)
    tuning: Tuning | None = None
    audit: Auditing | None = None

    def __post_init__(self) -> None:
        if problems := [
            *blank(self.name),
            *ambiguous([method.name for method in self.methods], "method", "methods", "fedavg"),
            *_unfit(self.methods),
            *_unsound(self.methods, self.run),
            *_without_server(self),
        ]:
            raise combine(problems)


def _unfit(methods: Sequence[Method]) -> Iterator[ConfigError]:
    """Methods that choose among others (a setting ``among``), and name what they cannot choose."""
    choosers = {method.name for method in methods if hasattr(method.algorithm, "among")}
    others = list(dict.fromkeys(method.name for method in methods if method.name not in choosers))
    for number, method in enumerate(methods, 1):
        if method.name not in choosers:
            continue
        where = f"[[methods]] {number}"
        if not others:
            yield ConfigError(
                f'"{method.name}" has no method to choose', where=where, mend='Add others, such as kind = "local".'
            )
        for name in getattr(method.algorithm, "among", ()):
            known = f"It may name: {', '.join(others)}."
            if name in choosers:
                yield ConfigError(f'among names "{name}", which itself chooses among others', where=where, mend=known)
            elif name not in others:
                mend = f"{known} {nearest(name, others)}".strip()
                yield ConfigError(f'among names "{name}", but no method is called so', where=where, mend=mend)


def is_decentralized(algorithm: Algorithm) -> bool:
    """Whether a method trains without a server: it has an overlay."""
    return hasattr(algorithm, "overlay")


def _without_server(study: Study) -> Iterator[ConfigError]:
    """Tables that decentralised methods cannot follow, and tables that only they can."""
    named = [method.name for method in study.methods if is_decentralized(method.algorithm)]
    if not named:
        for table in ("underlay", "silos", "times"):
            if getattr(study, table) is not None:
                mend = 'Leave it out, or add a decentralised method, such as kind = "dpasgd".'
                yield ConfigError("no method trains over a network", where=f"[{table}]", mend=mend)
        return
    for table in ("silos", "times"):
        if getattr(study, table) is not None and study.underlay is None:
            mend = f"Add [underlay], or leave [{table}] out."
            yield ConfigError("there is no network", where=f"[{table}]", mend=mend)
    if study.silos is not None and study.silos.local_steps != 1:
        mend = "Leave it out, and set updates or epochs in [work]."
        yield ConfigError("the local steps of a round are those of the method", where="[silos] local_steps", mend=mend)
    if study.stream is not None:
        mend = "Leave it out, or put decentralised methods in a study of their own."
        yield ConfigError(f'"{named[0]}" trains without a server, on records that stay', where="[stream]", mend=mend)
    servers = {
        "[run] cohort": study.run.cohort is not None,
        "[run] sampling": study.run.sampling != "uniform",
        "[availability]": not isinstance(study.availability, Always),
        "[adversary]": study.adversary is not None,
        "[devices]": study.devices is not None,
    }
    for where in (where for where, given in servers.items() if given):
        yield ConfigError(
            f'"{named[0]}" trains without a server: its silos are honest, always there, and all take part',
            where=where,
            mend="Leave it out, or put decentralised methods in a study of their own.",
        )


def _unsound(methods: Sequence[Method], run: Run) -> Iterator[ConfigError]:
    """Stages and collectors that cannot do what they promise."""
    for number, method in enumerate(methods, 1):
        for fault in _faults(method, run):
            yield ConfigError(fault.what, where=f"[[methods]] {number}", mend=fault.mend)


def _faults(method: Method, run: Run) -> Iterator[RivageError]:
    from rivage.federated.promises import promise_faults  # imports torch, as the methods have done by now
    from rivage.federated.stages import order_faults

    yield from promise_faults(method.algorithm, method.name, method.stages, method.collector, run.sampling)
    yield from order_faults(method.stages)
    if is_decentralized(method.algorithm):
        if method.stages or method.collector != _AVERAGED():
            yield ConfigError(f'"{method.name}" has no server', mend="Leave stages and collector out.")
        return
    if not getattr(method.algorithm, "federates", False):
        if method.stages or method.collector != _AVERAGED():
            yield ConfigError(f'"{method.name}" sends no updates', mend="Leave stages and collector out.")
        return
    try:
        method.collector.collector(each=method.algorithm.needs == "each")
    except RivageError as error:
        yield error
    yield from getattr(method.collector, "unsound", lambda stages: ())(method.stages)
    if run.cohort is not None:
        yield from collector_faults(
            method.collector, run.cohort, f"a cohort of {run.cohort} gives", "Raise run.cohort, or lower"
        )


def collector_faults(collector: Collection, clients: int, giver: str, mend: str = "Lower") -> Iterator[ConfigError]:
    """What a collector cannot do with the updates of so many clients, all that may arrive.

    Args:
        collector: of a method.
        clients: asked in a round.
        giver: what gives so few updates, as the start of a sentence.
        mend: what helps, before the setting that could be lower.
    """
    from rivage.federated.robust import Robust

    if hasattr(collector, "faults"):  # optional: a collector that words its own
        yield from collector.faults(clients, giver, mend)
    elif reason := collector.refusal(clients):
        yield ConfigError(f"{giver} {reason}", mend=f"{mend} faulty.")
    elif isinstance(collector, Robust) and (reason := collector.excess(clients)):
        yield ConfigError(reason, mend=f"{mend} keep.")


def load_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """The study in a TOML file; without a ``name`` it is called after the file.

    Args:
        path: of the file.
        overrides: ``KEY=VALUE`` as for `rivage.core.toml.apply_overrides`.

    Raises:
        ConfigError: listing everything that is wrong.
    """
    return _study({"name": path.stem, **load_toml(path)}, str(path), overrides)


def parse_study(text: str, where: str = "", overrides: Sequence[str] = ()) -> Study:
    """The study in a TOML text.

    Raises:
        ConfigError: listing everything that is wrong, after the place ``where``.
    """
    return _study(parse_toml(text, where), where, overrides)


def override_study(study: Study, overrides: Sequence[str]) -> Study:
    """The study with some settings replaced.

    Raises:
        ConfigError: listing everything that is wrong.
    """
    return _study(dump_study(study), f'study "{study.name}"', overrides) if overrides else study


def dump_study(study: Study) -> dict[str, Any]:
    """The study as a mapping of TOML types, fully resolved; a method's ``work`` is left out where it is [work]."""
    table = dump(study)
    for method in table["methods"]:
        if method.get("work") == table["work"]:
            del method["work"]
    return table


def _study(mapping: Mapping[str, Any], where: str, overrides: Sequence[str]) -> Study:
    if overrides:
        mapping = apply_overrides(mapping, overrides)
        where = " ".join([where, "with", *(f"--set {override}" for override in overrides)])
    if problems := list(_lone_stages(mapping)):
        raise combine(problems, where)
    return read(Study, _with_work(mapping), where)


def _lone_stages(mapping: Mapping[str, Any]) -> Iterator[ConfigError]:
    """Stages that are no list: of tables within tables `read` names the last key only, [[stages]]."""
    methods = mapping.get("methods")
    for number, method in enumerate(methods if isinstance(methods, list) else (), 1):
        stages = method.get("stages", []) if isinstance(method, dict) else []
        if not isinstance(stages, list):
            yield ConfigError(
                f"stages is {'a table' if isinstance(stages, dict) else repr(stages)}",
                where=f"[[methods]] {number}",
                mend="Write a list, stages = [{ kind = ... }], or one or several [[methods.stages]].",
            )


def _with_work(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with [work] put into the methods that go by it; a faulty [work] is reported once, not by each."""
    methods, work = mapping.get("methods"), mapping.get("work", {})
    if not isinstance(methods, list):
        return dict(mapping)
    if not isinstance(work, dict) or not _readable(type(_WORK()), work):
        work = {}
    filled = [{**method, "work": work} if _goes_by_work(method) else method for method in methods]
    return {**mapping, "methods": filled}


def _readable(cls: type, table: Mapping[str, Any]) -> bool:
    try:
        read(cls, table)
    except RivageError:
        return False
    return True


def _goes_by_work(method: Any) -> bool:
    if not isinstance(method, dict) or "work" in method or not isinstance(method.get("kind"), str):
        return False
    try:
        algorithm = ALGORITHMS.get(method["kind"])
    except RivageError:  # reported with its place when the methods are read
        return False
    return any(setting.name == "work" for setting in fields_of(algorithm))

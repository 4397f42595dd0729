"""The schema of a study file: which data, which methods, how long, judged how.

The tables are dataclasses; those of data, methods and availability are the registered classes themselves, so that
adding a method adds its settings. A study is read with `load_study`, changed with ``--set`` overrides, and written
back fully resolved with `dump_study`: ``parse_study(format_toml(dump_study(study))) == study``.

The ``[work]`` table is the local work of every method that has a setting ``work`` and no such table of its own; it
replaces the method's table as a whole, key by key merging would make ``updates`` outlive ``epochs``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rivage.core.errors import ConfigError, RivageError
from rivage.core.schema import fields_of
from rivage.core.settings import Located, OneOf, combine, dump, read
from rivage.core.toml import apply_overrides, load_toml, parse_toml
from rivage.data.build import DATASETS
from rivage.data.partition import PARTITIONS
from rivage.data.shifts import SHIFTS
from rivage.decentralized.silo_settings import NETWORKS, SiloSettings
from rivage.federated.kinds import ADVERSARIES
from rivage.federated.registry import ALGORITHMS
from rivage.simulation.availability import AVAILABILITY, Always
from rivage.simulation.devices import DEVICES
from rivage.studies.audit_settings import Auditing
from rivage.studies.shared_checks import ambiguous, blank
from rivage.studies.study_faults import is_decentralized, unfit, unsound
from rivage.studies.study_tables import Evaluation, Method, Run
from rivage.studies.tuning_settings import Tuning

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
    "Study",
    "dump_study",
    "load_study",
    "override_study",
    "parse_study",
]


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
            *unfit(self.methods),
            *unsound(self.methods, self.run),
            *_without_server(self),
        ]:
            raise combine(problems)


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

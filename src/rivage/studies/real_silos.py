"""A study played by silos that are processes of their own, ``--engine torchdist``.

The process of silo 0 plays the study as always, and hands its decentralised trials to `RealSilos`, which plays them
together with the other silos. These are started here, on this machine, or were started by ``torchrun`` with the same
command; they `follow`: each builds the same clients from the same study, takes part in the trials that silo 0 calls,
and keeps its checkpoints and times in the folder ``silos/<rank>`` of the trial.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from rivage.core.errors import ConfigError
from rivage.core.messages import LogPolicy
from rivage.core.observers import Observer, Silent
from rivage.core.records import RunRecord
from rivage.core.settings import combine
from rivage.core.trial_records import TrialRecord
from rivage.decentralized.gossip import GossipAlgorithm
from rivage.decentralized.silo_trial import SiloTrial
from rivage.decentralized.torchdist.company import Company, gathered
from rivage.decentralized.torchdist.meeting import PLAINTEXT, Meeting
from rivage.decentralized.torchdist.processes import Processes
from rivage.decentralized.torchdist.silo import Silo
from rivage.federated.checkpoint import Files
from rivage.federated.engine import Outcome
from rivage.studies.pipeline import run_study
from rivage.studies.settings import Study
from rivage.studies.silo_stage import Designs, SiloStage
from rivage.studies.stage import KEPT_BYTES, Stage
from rivage.studies.study_faults import is_decentralized

__all__ = ["RealSilos", "follow", "real_silos", "run_for_real"]

SILOS = "silos"
_NO_LOG = LogPolicy("none")

Observe = Callable[[Mapping[str, Any]], None]


def run_for_real(
    study: Study,
    *,
    out: Path | None = None,
    fresh: bool = False,
    observer: Observer | None = None,
    interface: str | None = None,
) -> RunRecord | None:
    """`run_study` with a process for every silo: the others are started here unless ``torchrun`` started this one.

    Args:
        study: whose methods are all decentralised.
        out: folder that holds runs.
        fresh: forget what an earlier start of the same study did.
        observer: is told what happens.
        interface: the network interface that models cross; None is loopback.

    Returns:
        The record; None in the processes of other silos than silo 0.

    Raises:
        ConfigError: for settings that do not fit, or an address off this machine without an interface.
        ProtocolError: when training breaks down, or naming the silo that ended.
    """
    observer, out = observer or Silent(), out or Path("runs")
    _require_decentralized(study)
    meeting = Meeting.from_environment(os.environ, interface)
    if meeting is None and interface is not None:
        raise ConfigError(
            "an interface is named, but all silos are started on this machine",
            where="--interface",
            mend="Leave it out, or start the silos with torchrun: see how-to/train-over-real-machines.",
        )
    if meeting is not None and meeting.rank:
        follow(study, meeting, out)
        return None
    if interface is not None:
        _warn(interface, observer)
    with real_silos(out, meeting) as silos:
        return run_study(study, out=out, fresh=fresh, observer=observer, play_silos=silos.play)


@contextmanager
def real_silos(out: Path, meeting: Meeting | None) -> Iterator[RealSilos]:
    """Silo 0 and its company, which ends with the block.

    Args:
        out: folder that holds runs.
        meeting: where the others are; None starts them when they are first needed.
    """
    with ExitStack() as stack:
        silos = RealSilos(out, meeting, stack)
        yield silos
        silos.dismiss()


class RealSilos:
    """Silo 0 and its company; made by `real_silos`."""

    def __init__(self, out: Path, meeting: Meeting | None, stack: ExitStack) -> None:
        self._out, self._meeting, self._stack = out, meeting, stack
        self._company: Company | None = None

    def play(self, trial: SiloTrial, folder: Path, journal: Files, observe: Observe) -> Outcome:
        """Play a trial together.

        Args:
            trial: what is played.
            folder: of the trial.
            journal: of the trial.
            observe: called with every event.
        """
        if self._company is None:
            self._join(trial.facts["silos"]["names"], folder.parents[2])
        company = self._company
        assert company is not None
        call = {
            "method": trial.name,
            "seed": trial.seed,
            "folder": folder.relative_to(self._out).as_posix(),
            "overlay": trial.facts["overlay"],
            "begun": bool(TrialRecord(folder).events("start")),
        }
        company.board.announce("trial", call)
        outcome = Silo(trial, company, journal, observe).run(KEPT_BYTES)
        assert outcome is not None, "this is silo 0"
        return outcome

    def dismiss(self) -> None:
        """Tell the others that all is done."""
        if self._company is None and self._meeting is not None:  # all was done before
            self._join([str(rank) for rank in range(self._meeting.size)], self._out)
        if self._company is not None:
            self._company.board.announce("trial", None)
            self._company.part()

    def _join(self, names: list[str], run: Path) -> None:
        meeting, processes = self._meeting, None
        if meeting is None:
            meeting = Meeting.here(len(names))
            command = [sys.executable, "-m", "rivage.cli", "train", str(run / "settings.toml"), "--quiet"]
            command += ["--engine", "torchdist", "--out", str(self._out)]
            processes = self._stack.enter_context(Processes(command, meeting, run / SILOS))
        self._company = self._stack.enter_context(gathered(meeting, names, processes))


def follow(study: Study, meeting: Meeting, out: Path) -> None:
    """Be another silo than silo 0: take part in its trials until it calls no more.

    Raises:
        ConfigError: for settings or data that are not those of silo 0.
        ProtocolError: when training breaks down, or naming the silo that ended.
    """
    stage = Stage.build(study, study.run.seeds[0])
    designs = Designs()
    names = SiloStage(stage, designs).silos(cast(GossipAlgorithm, study.methods[0].algorithm)).names
    with gathered(meeting, names) as company:
        while (call := company.board.announce("trial")) is not None:
            if stage.seed != call["seed"]:
                stage = Stage.build(study, call["seed"])
            _take_part(SiloStage(stage, designs), call, company, out)
        company.part()


def _take_part(silos: SiloStage, call: Mapping[str, Any], company: Company, out: Path) -> None:
    """One trial; the overlay is the one that silo 0 has."""
    folder = out / call["folder"] / SILOS / str(company.rank)
    if not call["begun"]:
        shutil.rmtree(folder, ignore_errors=True)
    called = TrialRecord.open(folder / "called")
    called.truncate(0)
    called.append({"event": "start", "overlay": call["overlay"]})
    method = next(method for method in silos.stage.study.methods if method.name == call["method"])
    with Files(folder, _NO_LOG, {}) as journal:
        Silo(silos.trial(method, called), company, journal).run(KEPT_BYTES)


def _require_decentralized(study: Study) -> None:
    problems = [
        ConfigError(
            f'"{method.name}" is not decentralised, and torchdist has no server',
            where=f"[[methods]] {number}",
            mend='Use decentralised kinds such as "dpsgd", or --engine local.',
        )
        for number, method in enumerate(study.methods, 1)
        if not is_decentralized(method.algorithm)
    ]
    if problems:
        raise combine(problems)


def _warn(interface: str, observer: Observer) -> None:
    there = [name for _, name in socket.if_nameindex()]
    if interface in there and interface not in ("lo", "lo0"):
        observer.on_event({"event": "notice", "text": PLAINTEXT.format(interface=interface)})

"""A run as an audit meets it: the log for the attacks, and for the evaluator alone the data behind it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from rivage.core.errors import ConfigError, DataError, RivageError, StoreError, nearest
from rivage.core.message_log import LOG_NAME, MessageLog
from rivage.core.records import RunRecord
from rivage.core.seeding import Streams
from rivage.core.trial_records import TrialRecord
from rivage.data.population import ClientData, Samples, joined
from rivage.federated.trial import Trial
from rivage.learning.bundle import ModelBundle
from rivage.privacy.attack import Attack
from rivage.privacy.attribute_grading import AttributeCase
from rivage.privacy.grading import Case, MembershipCase
from rivage.privacy.model_grading import ModelCase
from rivage.privacy.property_grading import PropertyCase
from rivage.privacy.questions import Attribute
from rivage.privacy.record_grading import RecordCase
from rivage.privacy.views import (
    ActiveServer,
    CuriousClient,
    CuriousServer,
    Eavesdropper,
    Recorded,
    Refused,
    ReleasedModel,
    SecAggServer,
)
from rivage.studies.audit_attributes import attributes
from rivage.studies.audit_clients import LiveClients
from rivage.studies.audit_settings import Auditing
from rivage.studies.models import MODELS
from rivage.studies.pipeline import require_same_data
from rivage.studies.settings import Study, is_decentralized, load_study
from rivage.studies.stage import Stage

__all__ = ["Scene", "scene_of_log", "scene_of_run"]

_MOST_FAULTS = 20  # that a result lists
_NOBODY = np.empty(0, np.int64)
_BACKGROUND = 5_000  # records of other clients that baselines and shadow models may learn from
_MOST_CLIENTS = 200  # that are asked about a property
_FEDERATION = (ReleasedModel, SecAggServer, CuriousClient)
"""Views in which no client's messages stand apart: they are asked about all targets together."""


@dataclass(frozen=True)
class Scene:
    """One trial, its log, and who is attacked.

    Args:
        trial: what was played; for the evaluator.
        log: what was sent.
        models: file of the trained models; None without.
        settings: of the audit.
        seed: of the audit.

    Attributes:
        shared: what attacks of this audit share.
    """

    trial: Trial
    log: Path
    models: Path | None
    settings: Auditing
    seed: int
    shared: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    _cases: dict[Any, Case] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def recorded(self) -> Recorded:
        """The log, as views read it.

        Raises:
            DataError: if it is the log of another model.
        """
        recorded = Recorded(self.log)
        try:
            recorded.header.check(self.trial.task.layout)
        except DataError as error:
            raise error.at(str(self.log)) from error
        return recorded

    @cached_property
    def exchanges(self) -> Mapping[int, int]:
        """Client -> rounds in which it answered; under secure aggregation, in which it was there."""
        found = self.recorded.survey.exchanges
        return found if found else _senders(self.log)

    @cached_property
    def targets(self) -> tuple[int, ...]:
        """Who is attacked: those named, or the honest clients with most records times messages.

        What a malicious client sends tells nothing of its records; where nobody else is left, it is attacked all the
        same.

        Raises:
            ConfigError: for a named client without a message.
        """
        if missing := [client for client in self.settings.clients if not self.exchanges.get(client)]:
            known = ", ".join(map(str, sorted(self.exchanges)[:20]))
            raise ConfigError(
                f"client {missing[0]} has no message in the log", where="--clients", mend=f"Clients with some: {known}."
            )
        if self.settings.clients:
            return self.settings.clients
        seen = self._honest(sorted(self.exchanges))
        worth = {client: self.exchanges[client] * len(self.data(client).train) for client in seen[:1000]}
        return tuple(sorted(sorted(worth, key=lambda client: (-worth[client], client))[: self.settings.targets]))

    def _honest(self, clients: list[int]) -> list[int]:
        """Those that do no harm; all where there are none."""
        adversary = self.trial.adversary
        if adversary is None:
            return clients
        malicious = adversary.malicious(np.array(clients, np.int64), self.trial.seed)
        return [client for client, harms in zip(clients, malicious.tolist(), strict=True) if not harms] or clients

    def data(self, client: int) -> ClientData:
        """What a client holds at the end; for the evaluator."""
        return self.trial.population.client(client, max(self.trial.rounds - 1, 0))

    @property
    def faults(self) -> list[str]:
        """What was wrong with the log, as far as it has been read."""
        survey = self.recorded.survey
        told = [f"no messages of rounds {first} to {last}" for first, last in survey.gaps]
        counts = {
            "messages were sent again, and the last of each counts": survey.repeated,
            "messages stand behind those of a later round, and count as lost": survey.late,
            "models were sent and never answered": survey.unanswered,
            "updates answer no broadcast": survey.unasked,
            "bytes at the end are no whole message": survey.torn,
        }
        told += [f"{count} {what}" for what, count in counts.items() if count]
        return [*told[:_MOST_FAULTS], *map(str, self.recorded.faults[:_MOST_FAULTS])]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the log."""
        digest = hashlib.sha256()
        with self.log.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    # --- views ---

    def views(self, attack: Attack, clients: Sequence[int | None]) -> Iterator[Any]:
        """The least view that an attack needs, of each of these targets.

        Raises:
            Refused: where there is none.
        """
        return (self._view(attack.view, client) for client in clients)

    def _view(self, view: type, client: int | None) -> Any:
        if view is ReleasedModel:
            return ReleasedModel(self.recorded.header, self._final)
        if view is SecAggServer or view is CuriousServer:
            return view(self.recorded)
        if view is ActiveServer:
            return ActiveServer(self.recorded, self._live)
        if view is CuriousClient:
            return CuriousClient(self.recorded, self._curious(client))
        if view is Eavesdropper and client is not None:
            return Eavesdropper(self.recorded, client)
        raise Refused(f"there is no view {view.__name__} to be had of a log")

    @cached_property
    def _live(self) -> LiveClients:
        return LiveClients(self.trial, Streams(Streams(self.seed).seed("live")))

    @cached_property
    def _final(self) -> Float[ndarray, "*groups dim"]:
        """The model for clients that nobody knows yet."""
        if self.models is None or not self.models.exists():
            raise Refused("the run has kept no final model", mend=f"Give a run folder whose trial has {MODELS}.")
        bundle = ModelBundle.load(self.models)
        if bundle.newcomer is None:
            raise Refused("the method releases no model: every client has one of its own")
        params, _ = bundle.parts(None)
        return params[0] if len(params) == 1 else params

    def _curious(self, target: int | None) -> int:
        """Who is curious: the client that has been asked most often, beside the target."""
        others = {client: count for client, count in self.exchanges.items() if client != target}
        if not others:
            raise Refused("there is no other client that could be curious")
        return max(others, key=lambda client: (others[client], -client))

    # --- questions ---

    def cases(self, attack: Attack, attribute: Attribute | None = None) -> Iterator[tuple[str, Case | RivageError]]:
        """What an attack is asked, one question per target with the target's name, or why one cannot be asked.

        Args:
            attack: that will answer.
            attribute: that is asked for.
        """
        together = attack.asks == "property" or (attack.asks == "membership" and attack.view in _FEDERATION)
        for client in [None] if together else self.targets:
            name = "all targets" if client is None else f"client {client}"
            try:
                yield name, self._case(attack, attribute, client)
            except RivageError as error:
                yield name, error

    def _case(self, attack: Attack, attribute: Attribute | None, client: int | None) -> Case:
        """The same for all attacks that ask the same: baselines and optima are found once."""
        key = attack.asks, None if attribute is None else attribute.name, client
        if key not in self._cases:
            self._cases[key] = self._new_case(attack, attribute, client)
        return self._cases[key]

    def _new_case(self, attack: Attack, attribute: Attribute | None, client: int | None) -> Case:
        match attack.asks:
            case "membership":
                return self._membership(client)
            case "attribute" if attribute is not None and client is not None:
                return AttributeCase.of(attribute, self.data(client), self._background(client, held_out=False))
            case "property" if attribute is not None:
                clients = [self.data(each) for each in sorted(self.exchanges)[:_MOST_CLIENTS]]
                own = joined([part for data in clients for part in (data.test, data.validation)])
                return PropertyCase.of(attribute, clients, own)
            case "record" if client is not None:
                return RecordCase(client, self.data(client).train, self._background(client, held_out=False))
            case "model" if client is not None:
                last = Eavesdropper(self.recorded, client).last().returned
                if last.ndim != 1:
                    raise Refused(f"the method sends {len(last)} models to a client, none of which is that of its data")
                return ModelCase(client, self.trial.task, self.data(client).train, last)
        raise Refused(f"nobody knows how to ask for a {attack.asks}")

    def shuffled(self) -> Scene:
        """The same with membership drawn anew: nothing can be found about it, and whatever finds something is wrong."""
        other = replace(self)
        for client in (None, *self.targets):
            streams = Streams(self.seed).child("shuffled", -1 if client is None else client)
            other._cases["membership", None, client] = self._membership(client).shuffled(streams)
        return other

    def _membership(self, client: int | None) -> MembershipCase:
        held = [self.data(target) for target in (self.targets if client is None else (client,))]
        others = self._background(client, held_out=True)
        # The data are in the path: whoever knows the seed of an audit cannot draw the answer.
        secret = self.trial.population.fingerprint
        streams = Streams(self.seed).child("membership", secret, -1 if client is None else client)
        return MembershipCase.of(held, [others], streams, client=client)

    def _background(self, target: int | None, *, held_out: bool) -> Samples:
        """Records of other clients, the first 5,000: held-out ones, or training records."""
        mine = self.targets if target is None else (target,)
        parts, size = [self.data(mine[0]).train.take(_NOBODY)], 0
        for client in sorted(self.exchanges):
            if client in mine or size >= _BACKGROUND:
                continue
            data = self.data(client)
            parts += [data.test, data.validation] if held_out else [data.train]
            size = sum(map(len, parts))
        return joined(parts)

    @cached_property
    def attributes(self) -> list[Attribute]:
        """The attributes that are asked for."""
        samples = joined([self.data(client).train for client in self.targets])
        return attributes(self.trial.population.schema, samples.x, self.settings.attribute)

    def close(self) -> None:
        """Let the workers go."""
        if "_live" in self.__dict__:
            self._live.close()


def _senders(log: Path) -> Mapping[int, int]:
    """Client -> rounds in which it sent anything."""
    rounds: dict[int, set[int]] = {}
    for message in MessageLog.read(log, payloads=False):
        role, _, number = message.sender.partition(":")
        if message.round >= 0 and role == "client" and number.isdecimal():
            rounds.setdefault(int(number), set()).add(message.round)
    return {client: len(took) for client, took in sorted(rounds.items())}


def scene_of_run(record: RunRecord, settings: Auditing, seed: int) -> Scene:
    """A trial of a run: of the method that is named, or of the first that has sent something; of the first seed.

    Raises:
        StoreError: if there is no such trial, or none with a log.
        ConfigError: if the method cannot be audited.
    """
    if record.is_game:
        raise ConfigError(
            f"`rivage {record.verb}` trains nothing", where=str(record.folder), mend="Give a run of `rivage train`."
        )
    study = load_study(record.folder / "settings.toml")
    silos = {method.name for method in study.methods if is_decentralized(method.algorithm)}
    trial = _trial(record, settings.method, silos)
    stage = Stage.build(study, trial.seed)
    require_same_data(stage, trial)
    return Scene(_played(stage, trial.method), trial.folder / LOG_NAME, trial.folder / MODELS, settings, seed)


def scene_of_log(log: Path, study: Study, settings: Auditing, seed: int) -> Scene:
    """A log of messages, with the study that tells model and data."""
    stage = Stage.build(study, study.run.seeds[0])
    return Scene(_played(stage, settings.method or study.methods[0].name), log, None, settings, seed)


def _trial(record: RunRecord, method: str, last: Collection[str]) -> TrialRecord:
    """Methods of the names in ``last`` are taken where there is no other."""
    if method:
        if method not in record.methods:
            mend = f"{nearest(method, record.methods)} Methods: {', '.join(record.methods)}.".strip()
            raise ConfigError(f'there is no method "{method}"', where="--method", mend=mend)
        trial = record.trial(method, min((t.seed for t in record.trials if t.method == method), default=0))
        trials = [trial]
    else:
        trials = [trial for trial in record.trials if any(event.get("bytes_up") for event in trial.events("round"))]
        trials.sort(key=lambda trial: trial.method in last)
    logged = [trial for trial in trials if (trial.folder / LOG_NAME).exists() and trial.finished]
    if not logged:
        raise StoreError(
            "holds no message log of a finished trial" + (f' of "{method}"' if method else ""),
            where=str(record.folder),
            mend='Train a method that sends updates, with run.log = "all", to its end.',
        )
    return logged[0]


def _played(stage: Stage, name: str) -> Trial:
    method = next((each for each in stage.study.methods if each.name == name), None)
    if method is None:
        known = ", ".join(each.name for each in stage.study.methods)
        raise ConfigError(f'there is no method "{name}"', where="--method", mend=f"Methods: {known}.")
    if is_decentralized(method.algorithm):
        what = "has no server, and the views of an audit are those of a server and its clients"
        raise ConfigError(f'"{name}" {what}', where="--method", mend="Audit a federated method.")
    if not getattr(method.algorithm, "federates", False):
        raise ConfigError(f'"{name}" sends nothing', where="--method", mend="Audit a federated method.")
    return stage.trial(name, method)

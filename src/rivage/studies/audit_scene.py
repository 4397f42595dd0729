"""A run as an audit meets it: the log for the attacks, and for the evaluator alone the data behind it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rivage.core.errors import DataError, RivageError, StoreError
from rivage.core.seeding import Streams
from rivage.data.population import ClientData, Samples, joined
from rivage.federated.trial import Trial
from rivage.privacy.attack import Attack
from rivage.privacy.attribute_grading import AttributeCase
from rivage.privacy.grading import Case, MembershipCase
from rivage.privacy.model_grading import ModelCase
from rivage.privacy.property_grading import PropertyCase
from rivage.privacy.questions import Attribute
from rivage.privacy.record_grading import RecordCase
from rivage.privacy.views import (
    CuriousClient,
    Eavesdropper,
    Recorded,
    Refused,
    ReleasedModel,
    SecAggServer,
)
from rivage.studies.audit_attributes import attributes
from rivage.studies.audit_settings import Auditing
from rivage.studies.audit_targets import honest, named, senders
from rivage.studies.audit_views import Views

__all__ = ["UNANSWERED", "Scene"]

UNANSWERED = "sent and never answered"
"""What a log tells of clients that dropped out; it may be whole all the same."""

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
        empty: rounds in which nobody was asked, as far as the record of a run tells.

    Attributes:
        shared: what attacks of this audit share.
    """

    trial: Trial
    log: Path
    models: Path | None
    settings: Auditing
    seed: int
    empty: frozenset[int] = frozenset()
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
        return found if found else senders(self.log)

    @cached_property
    def targets(self) -> tuple[int, ...]:
        """Who is attacked, ascending: those named, or the honest clients with most records times messages.

        What a malicious client sends tells nothing of its records; where nobody else is left, it is attacked all the
        same.

        Raises:
            ConfigError: for a named client that is not there, or without a message.
            StoreError: for a log in which nobody has sent anything.
        """
        if not self.exchanges:
            what = "no client has answered in it, so there is nobody to attack"
            raise StoreError(what, where=str(self.log), mend="Give a log that is whole, of at least one round.")
        if self.settings.clients:
            return named(self.settings.clients, self.trial.population, self.exchanges)
        seen = honest(self.trial, sorted(self.exchanges))
        worth = {client: self.exchanges[client] * len(self.data(client).train) for client in seen[:1000]}
        return tuple(sorted(sorted(worth, key=lambda client: (-worth[client], client))[: self.settings.targets]))

    def data(self, client: int) -> ClientData:
        """What a client holds at the end; for the evaluator."""
        return self.trial.population.client(client, max(self.trial.rounds - 1, 0))

    @property
    def faults(self) -> list[str]:
        """What was wrong with the log, as far as it has been read."""
        survey = self.recorded.survey
        counts = (
            (survey.torn, "byte at the end is", "bytes at the end are", "no whole message"),
            (survey.repeated, "message was", "messages were", "sent again, and the last counts"),
            (survey.late, "message stands", "messages stand", "behind those of a later round, taken for lost"),
            (survey.unanswered, "model was", "models were", UNANSWERED),
            (survey.unasked, "update answers", "updates answer", "no broadcast"),
        )
        told = [f"{count} {one if count == 1 else many} {what}" for count, one, many, what in counts if count]
        missing = ((a, b) for a, b in survey.gaps if not self.empty.issuperset(range(a, b + 1)))
        told += [f"no messages of round {a}" if a == b else f"no messages of rounds {a} to {b}" for a, b in missing]
        return [*told[:_MOST_FAULTS], *map(str, self.recorded.faults[:_MOST_FAULTS])]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the log."""
        digest = hashlib.sha256()
        with self.log.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    @cached_property
    def views(self) -> Views:
        """What there is to be seen."""
        return Views(self.trial, self.recorded, self.models, self.exchanges, Streams(Streams(self.seed).seed("live")))

    # --- questions ---

    def cases(
        self, attack: Attack, attribute: Attribute | None = None
    ) -> Iterator[tuple[int | None, Case | RivageError]]:
        """What an attack is asked, one question per target, or why one cannot be asked; None for all together.

        Args:
            attack: that will answer.
            attribute: that is asked for.
        """
        together = attack.asks == "property" or (attack.asks == "membership" and attack.view in _FEDERATION)
        for client in [None] if together else self.targets:
            try:
                yield client, self._case(attack, attribute, client)
            except RivageError as error:
                yield client, error

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
        population = self.trial.population
        samples = joined([self.data(client).train for client in self.targets])
        target = population.notes.get("target", {}).get("name", "")
        return attributes(population.schema, samples.x, self.settings.attribute, target=target)

    def close(self) -> None:
        """Let the workers go."""
        if "views" in self.__dict__:
            self.views.close()

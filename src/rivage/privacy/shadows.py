"""Reference models: what an attacker trains himself, to learn how models behave that have seen a record or have not.

The audited records, whose membership is asked about, are dealt to the reference models by a random balanced design:
each record is in exactly half of the models, so that what is compared is models with and without it, all else being
drawn alike. Records that are known to be the target's are in all of them. What is repeated is what the view shows:

=====================  ==========================================================================================
of the target          a reference model is
=====================  ==========================================================================================
one client's messages  that client's local training from each model that it was sent (*shadow clients*); cheap, since
                       nobody else's training is repeated
the released model     the same recipe on a subset of the audited records and of the attacker's own (*shadow models*),
                       or a whole simulated federation (*shadow federations*)
=====================  ==========================================================================================

Offline, reference models train on the attacker's own records only, before anybody asks.

The target is never among its own reference models. Attacks with equal settings share the models through
`Tools.shared`, whose randomness hangs on the question and not on who asks first.

Cost: shadow clients ``models · rounds`` local trainings; shadow models ``models`` trainings of ``rounds`` times the
work of a round; shadow federations ``models`` whole runs.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from rivage.core.errors import require
from rivage.core.seeding import Streams
from rivage.data.population import Samples, joined
from rivage.learning.params import to_numpy
from rivage.privacy.attack import Tools
from rivage.privacy.confidence import confidences
from rivage.privacy.dealing import Signals, balanced, bounded, clients_of, members_of
from rivage.privacy.questions import MembershipQuestion
from rivage.privacy.recipes import Method, Recipe, federate, method_of, recipe_of, train
from rivage.privacy.views import Eavesdropper, Exchange, Refused, ReleasedModel

__all__ = ["RETRAINED", "UPDATES", "Shadows"]

_ROUNDS = 20  # of a training whose header does not tell how many there were


@dataclass(frozen=True, kw_only=True)
class Shadows:
    """Settings of reference models.

    Args:
        models: how many, >= 4; each record is in half of them.
        audited: whether they train on audited records (online); else on the attacker's own only (offline).
        rounds: observed rounds of a client that are repeated, evenly spaced, the last among them; of a released model,
            how often the work of a round is done. None is all that are observed, or as many as the log tells.
        federations: whether a released model is repeated by whole federations.
        clients: of a repeated federation, >= 1.
        queries: what a model is asked about a record, >= 1: the record itself and copies with noise.
        noise: standard deviation of that noise in the unit of the inputs, >= 0.
        recipe: how a model is trained in one round; None is what the log tells.
    """

    models: int = 64
    audited: bool = True
    rounds: int | None = field(default=None, metadata={"none": "all"})
    federations: bool = False
    clients: int = 10
    queries: int = 1
    noise: float = 0.1
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        require(self.models, "models", least=4)
        for name in ("clients", "queries"):
            require(getattr(self, name), name, least=1)
        if self.rounds is not None:
            require(self.rounds, "rounds", least=1)
        require(self.noise, "noise", least=0)

    def signals(self, view: Eavesdropper | ReleasedModel, question: MembershipQuestion, tools: Tools) -> Signals:
        """Train the reference models, unless an attack with these settings has, and ask all models about the records.

        Raises:
            Refused: if several models are sent per round, the log does not tell how clients train, there are no own
                records for an offline attack, or training diverges.
        """
        key = (self, _identity(view), _digest(question))
        if key not in tools.shared:
            tools.shared[key] = self._asked(view, question, tools)
        found: Signals = tools.shared[key]
        return found

    def _asked(self, view: Eavesdropper | ReleasedModel, question: MembershipQuestion, tools: Tools) -> Signals:
        before, target_of = tools.meter.evaluations, -1 if question.target is None else question.target
        streams = Streams(tools.streams.root).child("references", view.name, target_of)
        if isinstance(view, Eavesdropper):
            question = bounded(question, streams)
        records = joined([question.records, question.others])
        design = self.design(question, streams, everything=isinstance(view, ReleasedModel))
        copies = [records, *(self._copy(records, streams.numpy("copy", copy)) for copy in range(1, self.queries))]
        target, references = [], []
        for model, others in self._repeated(view, question, records, design, tools, streams):
            for copy in copies:
                target.append(confidences(tools.task, [model], copy, tools.meter)[0])
                references.append(confidences(tools.task, others, copy, tools.meter))
        facts = {
            "references": self.models,
            "queries": len(target),
            "online": self.audited,
            "evaluations": tools.meter.evaluations - before,
        }
        return Signals(np.stack(target, -1), np.stack(references, -1), design, question.known, facts)

    def design(
        self, question: MembershipQuestion, streams: Streams, *, everything: bool
    ) -> Bool[ndarray, "models records"]:
        """Who trains on which record, audited ones first.

        Args:
            question: names the records.
            streams: of the design.
            everything: deal all of the attacker's own records as well, as for a model that many clients trained;
                else only as many as stand in for the target's, and none online.
        """
        audited, own = len(question.records), len(question.others)
        generator = streams.numpy("design")
        inside = np.zeros((self.models, audited + own), bool)
        if self.audited:
            inside[:, :audited] = balanced(self.models, audited, generator)
            inside[:, :audited][:, question.known] = question.member[question.known]
        elif not own:
            raise Refused("there are no records of the attacker's own", mend="Give some, or attack online.")
        dealt = own if everything else (0 if self.audited else min(own, audited))
        rows = audited + generator.choice(own, dealt, replace=False)
        inside[:, rows] = balanced(self.models, dealt, generator)
        return inside

    def _repeated(
        self,
        view: Eavesdropper | ReleasedModel,
        question: MembershipQuestion,
        records: Samples,
        design: Bool[ndarray, "models records"],
        tools: Tools,
        streams: Streams,
    ) -> Iterator[tuple[Float[ndarray, "dim"], Float[ndarray, "models dim"]]]:
        """The target's model and the reference models, of one repeated round at a time."""
        if isinstance(view, ReleasedModel):
            apart = 0 if question.target is None else len(question.records)
            yield view.params, self._retrained(view, records, design, apart, tools, streams)
            return
        method, members = self._method(view), members_of(records, design)
        for exchange in _spaced(view, self.rounds):
            found = train(
                tools.task,
                method,
                exchange.sent,
                members,
                streams=streams,
                meter=tools.meter,
                round=exchange.round,
            )
            yield exchange.returned, found

    def _retrained(
        self,
        view: ReleasedModel,
        records: Samples,
        design: Bool[ndarray, "models records"],
        apart: int,
        tools: Tools,
        streams: Streams,
    ) -> Float[ndarray, "models dim"]:
        """Reference models of a released one; in federations the first ``apart`` records are those of one client."""
        if view.params.ndim != 1:
            raise Refused(_SEVERAL, mend=_ONE)
        task, rounds = tools.task, self.rounds or int(view.header.fields.get("rounds", _ROUNDS))
        if not self.federations:
            recipe = (recipe_of(view.header) if self.recipe is None else self.recipe).times(rounds)
            starts = np.stack([to_numpy(task.initial(streams.seed("start", m))) for m in range(self.models)])
            members = members_of(records, design)
            return train(task, recipe.method, starts, members, streams=streams, meter=tools.meter)
        method, models = self._method(view), []
        for m, parts in enumerate(clients_of(records, design, clients=self.clients, apart=apart, streams=streams)):
            models.append(federate(task, method, parts, rounds, streams=streams.child(m), meter=tools.meter))
        return np.stack(models)

    def _method(self, view: Eavesdropper | ReleasedModel) -> Method:
        """How clients train."""
        if self.recipe is not None:
            return self.recipe.method
        return method_of(view.header) if "method" in view.header.fields else recipe_of(view.header).method

    def _copy(self, records: Samples, generator: np.random.Generator) -> Samples:
        """The records with noise on their inputs."""
        if records.x.dtype.kind != "f":
            raise Refused("inputs that are no real numbers have no noisy copies", mend="Set queries = 1.")
        noise = self.noise * generator.standard_normal(records.x.shape)
        return replace(records, x=(records.x + noise).astype(records.x.dtype))


UPDATES = Shadows(rounds=5)
"""Of one client's messages: its training in five rounds, by 64 reference clients."""
RETRAINED = Shadows(models=16, federations=True)
"""Of a released model: 16 whole federations."""


def _identity(view: Eavesdropper | ReleasedModel) -> Hashable:
    return view if isinstance(view, Eavesdropper) else blake2b(view.params.tobytes()).digest()


def _digest(question: MembershipQuestion) -> Hashable:
    """Equal for equal questions."""
    digest = blake2b(repr(question.target).encode())
    for samples in (question.records, question.others):
        digest.update(np.ascontiguousarray(samples.x).data)
        digest.update(np.ascontiguousarray(samples.y).data)
    digest.update(question.known.tobytes() + question.member.tobytes())
    return digest.digest()


def _spaced(view: Eavesdropper, count: int | None) -> Iterator[Exchange]:
    """So many of the target's exchanges, evenly spaced, the last among them; one in memory at a time."""
    exchanges, seen = view.exchanges(), view.rounds  # a log without single updates refuses now, and says why
    if not seen:
        raise Refused(f"client {view.target} has no exchange", mend="Name another one.")
    wanted = seen if count is None else min(count, seen)
    chosen = {seen - 1 - (seen * i) // wanted for i in range(wanted)}
    for number, exchange in enumerate(exchanges):
        if exchange.sent.ndim != 1:
            raise Refused(_SEVERAL, mend=_ONE)
        if number in chosen:
            yield exchange


_SEVERAL = "the method sends several models per round, and what a client makes of them is not one training"
_ONE = "Audit a method with one shared model."

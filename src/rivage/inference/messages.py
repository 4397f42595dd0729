"""INFIDA without a centre: nodes learn their slopes from messages along the paths of the requests.

Si Salem, Castellano, Neglia, Pianese, Araldo. Towards inference delivery networks. IEEE/ACM Transactions on Networking
32(1), 2024, arXiv 2105.02510: control messages.

At the end of a slot the first node of a path asks, for each type that had requests. The *question* goes up the path; a
node adds, for each of its models of the task, what a request costs with it and how many it takes, y l. Once these are
enough for the requests, and the network alone costs more than the worst of them that is needed, γ*, nobody further up
matters. The *answer* γ* goes back down, and each node adds l max(0, γ* − C) to the slope of each model that it offered.
That is the slope of `rivage.inference.gain`; 2 (J − 1) messages per type at most for a path of J nodes.

Nodes know their own models, fractions and capacities, and the next nodes of the paths through them: nothing else. A
message that is lost takes its type out of the slope of all nodes that then hear no answer: too small, never too large.
One that is late counts in the slot in which it comes, unless that is more than ``patience`` slots after. Then
the promise of INFIDA is no longer about what happened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.seeding import Streams
from rivage.inference.gain import Slot
from rivage.inference.infida import INFIDA, InfidaState
from rivage.inference.instance import Instance

__all__ = ["Agent", "Answer", "Exchange", "Offer", "Question", "Stop", "agents_of", "exchange"]

Fate = Literal["now", "late", "never"]
Row = Float64[ndarray, "models"]

_TOLERANCE = 1e-9  # of the requests of a type, as in `rivage.inference.gain`


class Offer(NamedTuple):
    """What a model could take.

    Args:
        cost: C, of a request.
        capacity: y l, requests.
    """

    cost: float
    capacity: float


@dataclass(frozen=True, slots=True)
class Question:
    """What is enough for the requests of a type?

    Args:
        slot: whose requests.
        type: of requests.
        requests: r.
        latency_ms: round trip from the first node to the receiver.
        offers: of the nodes so far.
    """

    slot: int
    type: int
    requests: float
    latency_ms: float
    offers: tuple[Offer, ...] = ()

    @property
    def numbers(self) -> int:
        """How many it carries."""
        return 4 + 2 * len(self.offers)


@dataclass(frozen=True, slots=True)
class Answer:
    """The worst cost that is needed.

    Args:
        slot: of the question.
        type: of requests.
        worst: γ*.
    """

    slot: int
    type: int
    worst: float
    numbers: ClassVar[int] = 3


Message = Question | Answer


@dataclass(frozen=True, slots=True, eq=False)
class Stop:
    """What a node knows of a type whose path leads through it.

    Args:
        before: the node before it on the path, None for the first.
        after: the node after it, None for the last.
        link_ms: round trip to that one.
        models: of the task that it could offer.
        ranks: their places in the ranking, where its capacities are read.
        costs: of a request with each of them here: delay and inaccuracy.
        delays_ms: of each of them.
        deadline_ms: of the type.
        late_cost: after it.
    """

    before: int | None
    after: int | None
    link_ms: float
    models: Int64[ndarray, "n"]
    ranks: Int64[ndarray, "n"]
    costs: Float64[ndarray, "n"]
    delays_ms: Float64[ndarray, "n"]
    deadline_ms: float
    late_cost: float

    def full_costs(self, latency_ms: float) -> Float64[ndarray, "n"]:
        """C of each model, from so far away."""
        return self.costs + latency_ms + self.late_cost * (latency_ms + self.delays_ms > self.deadline_ms)


class Offered(NamedTuple):
    """What a node remembers of a question: places of its models, their costs and capacities."""

    models: Int64[ndarray, "n"]
    costs: Float64[ndarray, "n"]
    capacity: Float64[ndarray, "n"]


@dataclass(slots=True, eq=False)
class Agent:
    """A node that learns.

    Args:
        node: its number.
        stops: what it knows of each type whose path leads through it.
        held: models that it holds anyhow.
        policy: its settings.
        state: its own block; None where there is nothing to decide.
        patience: slots after which an answer no longer counts.
        waiting: questions without an answer.
        slope: so far, of each model.
    """

    node: int
    stops: Mapping[int, Stop]
    held: Bool[ndarray, "models"]
    policy: INFIDA
    state: InfidaState | None
    patience: int = 1
    waiting: dict[tuple[int, int], Offered] = field(default_factory=dict)
    slope: Row = field(init=False)

    def __post_init__(self) -> None:
        self.slope = np.zeros(len(self.held))

    @property
    def y(self) -> Row:
        """Fractions of the models here."""
        return self.held.astype(np.float64) if self.state is None else self.state.y[0]

    @property
    def drawn(self) -> Row:
        """Fractions that the loaded models were drawn from."""
        return self.held.astype(np.float64) if self.state is None else self.state.drawn[0]

    @property
    def loaded(self) -> Bool[ndarray, "models"]:
        """The models here."""
        return self.held if self.state is None else self.state.loaded[0]

    def ask(self, slot: int, type_: int, requests: float) -> Question:
        """The question about requests that entered here."""
        return Question(slot, type_, requests, 0.0)

    def hear(self, question: Question, capacity: Float64[ndarray, "n"]) -> tuple[int, Message] | None:
        """Offer models, and send the question on or the answer back.

        Args:
            question: to this node.
            capacity: l, what each model here could serve of the type now; a late question meets what there is now.

        Returns:
            Who is next and what they get; None where this is known or nobody is left.
        """
        stop, capacity = self.stops[question.type], np.minimum(capacity, question.requests)
        costs = stop.full_costs(question.latency_ms)
        self.waiting[question.slot, question.type] = Offered(stop.models, costs, capacity)
        takes = self.y[stop.models] * capacity
        own = [Offer(*pair) for pair in zip(costs.tolist(), takes.tolist(), strict=True) if pair[1] > 0]
        offers = (*question.offers, *own)
        worst = _worst(offers, question.requests)
        further = question.latency_ms + stop.link_ms
        if worst is not None and (stop.after is None or further >= worst):
            return self.settle(Answer(question.slot, question.type, worst))
        if stop.after is None:
            return None
        return stop.after, replace(question, latency_ms=further, offers=offers)

    def settle(self, answer: Answer) -> tuple[int, Message] | None:
        """Learn from an answer, and pass it on; one that nobody waits for changes nothing here."""
        offered = self.waiting.pop((answer.slot, answer.type), None)
        if offered is not None:
            gains = offered.capacity * np.maximum(0.0, answer.worst - offered.costs)
            self.slope[offered.models] += gains
        before = self.stops[answer.type].before
        return None if before is None else (before, answer)

    def step(self, slot: int) -> None:
        """The end of a slot: a step along the slope, and forget what is too old."""
        if self.state is not None:
            self.state = self.policy.learn(self.state, self.slope[self.state.blocks.place])
        self.slope = np.zeros(len(self.held))
        self.waiting = {key: offered for key, offered in self.waiting.items() if slot - key[0] < self.patience}


def _worst(offers: tuple[Offer, ...], requests: float) -> float | None:
    """γ*: the cost at which the cheapest offers together take all requests."""
    total = 0.0
    for cost, capacity in sorted(offers):
        total += capacity
        if total >= requests * (1.0 - _TOLERANCE):
            return cost
    return None


def agents_of(
    policy: INFIDA, instance: Instance, streams: Streams, *, slots: int | None = None, patience: int = 1
) -> list[Agent]:
    """The agents of a network, one for each node, each with its part alone; draws are those of the whole."""
    state = policy.init(instance, streams, slots=slots)
    blocks = {int(node): number for number, node in enumerate(state.blocks.node)}
    stops = _stops(instance)
    return [
        Agent(
            node,
            stops.get(node, {}),
            state.blocks.held[node],
            policy,
            state.part(blocks[node]) if node in blocks else None,
            patience,
        )
        for node in range(instance.shape[0])
    ]


def _stops(instance: Instance) -> dict[int, dict[int, Stop]]:
    ranking, found = instance.ranking, dict[int, dict[int, Stop]]()
    for type_, path in enumerate(instance.paths):
        way = path[path >= 0].tolist()
        ranks = np.arange(ranking.first[type_], ranking.first[type_ + 1])
        for hop, node in enumerate(way):
            here = ranks[ranking.hop[ranks] == hop]
            models, last = ranking.model[here], hop == len(way) - 1
            latency = instance.latency_ms[type_]
            delays = instance.delays_ms[node, models]
            found.setdefault(node, {})[type_] = Stop(
                before=way[hop - 1] if hop else None,
                after=None if last else way[hop + 1],
                link_ms=0.0 if last else float(latency[hop + 1] - latency[hop]),
                models=models,
                ranks=here,
                costs=delays + 100.0 * instance.alpha * (1.0 - instance.accuracy[models]),
                delays_ms=delays,
                deadline_ms=np.inf if instance.deadline_ms is None else float(instance.deadline_ms[type_]),
                late_cost=instance.late_cost,
            )
    return found


class Exchange(NamedTuple):
    """What a slot's messages amounted to.

    Args:
        messages: sent.
        numbers: in them.
        late: those that come in the next slot, with their receivers.
    """

    messages: int
    numbers: int
    late: tuple[tuple[int, Message], ...]


def exchange(
    agents: list[Agent],
    number: int,
    slot: Slot,
    *,
    late: tuple[tuple[int, Message], ...] = (),
    fate: Callable[[Message], Fate] = lambda message: "now",
) -> Exchange:
    """All messages of a slot, questions first asked in the order of the types.

    Args:
        agents: of all nodes.
        number: of the slot.
        slot: its requests and capacities; each agent is shown its own.
        late: of the slot before.
        fate: of each message between nodes.
    """
    instance, queue = slot.instance, deque(late)
    for type_ in np.flatnonzero(slot.requests > 0).tolist():
        first = int(instance.paths[type_, 0])
        queue.append((first, agents[first].ask(number, type_, float(slot.requests[type_]))))
    sent = numbers = 0
    delayed = list[tuple[int, Message]]()
    while queue:
        receiver, message = queue.popleft()
        agent = agents[receiver]
        if isinstance(message, Answer):
            reply = agent.settle(message)
        else:
            reply = agent.hear(message, slot.capacity[agent.stops[message.type].ranks])
        if reply is None:
            continue
        sent, numbers = sent + 1, numbers + reply[1].numbers
        what = fate(reply[1])
        if what == "now":
            queue.append(reply)
        elif what == "late":
            delayed.append(reply)
    return Exchange(sent, numbers, tuple(delayed))

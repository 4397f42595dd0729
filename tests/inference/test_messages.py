"""INFIDA by messages: the same slopes and models as computed centrally, and what happens when messages do not come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.inference.gain import Slot
from rivage.inference.infida import INFIDA
from rivage.inference.infida_by_messages import InfidaByMessages
from rivage.inference.instance import Instance
from rivage.inference.messages import Agent, Answer, Message, Question, agents_of, exchange
from rivage.inference.policy import DELIVERY_POLICIES, DeliveryPolicy, Seen
from rivage.inference.replay import deliver
from rivage.testing.strategies import delivery_network, delivery_slot, delivery_slots

from .conftest import REQUESTS, alone, line

seeds = st.integers(0, 2**32 - 1)


def slopes(agents: list[Agent], instance: Instance) -> np.ndarray:
    """What the agents have learnt, where there is something to decide."""
    return np.array([agent.slope for agent in agents]) * instance.free


@settings(max_examples=200)
@given(delivery_slots() | delivery_slots(shared_pins=True))
def test_slopes_are_those_computed_centrally(slot: Slot) -> None:
    agents = agents_of(INFIDA(), slot.instance, Streams(0))
    y = np.array([agent.y for agent in agents])
    sent = exchange(agents, 1, slot)
    central = slot.slope(y).gradient * slot.instance.free
    assert slopes(agents, slot.instance) == pytest.approx(central, rel=1e-9, abs=1e-9)
    hops = (slot.instance.paths >= 0).sum(axis=1) - 1
    assert sent.messages <= 2 * hops[slot.requests > 0].sum()
    models = (slot.instance.task[:, None] == slot.instance.asked).sum(axis=0)
    assert sent.numbers <= sum(
        sum(4 + 2 * models[t] * hop for hop in range(1, hops[t] + 1)) + 3 * hops[t]
        for t in np.flatnonzero(slot.requests)
    )


@settings(max_examples=30)
@given(seeds)
def test_networks_that_learn_by_messages_do_what_a_center_would(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = delivery_network(rng, nodes=6, tasks=2, variants=4, types=5)
    batches = [rng.integers(0, 30, instance.types).astype(float) for _ in range(25)]
    policy = INFIDA(step=("scale_free", "self_confident")[seed % 2], refresh=1 + seed % 3)
    central, apart = (
        deliver(each, instance, batches, streams=Streams(seed)) for each in (policy, InfidaByMessages(policy=policy))
    )
    for one, other in zip(central.points, apart.points, strict=True):
        assert one["gain"] == pytest.approx(other["gain"], rel=1e-9, abs=1e-6)
        assert one["fractional"] == pytest.approx(other["fractional"], rel=1e-7, abs=1e-6)
        assert other["bound"] is None or other["bound"] == pytest.approx(one["bound"], rel=1e-7, abs=1e-6)
    fractions = np.array([agent.y for agent in apart.state.agents])
    assert fractions == pytest.approx(central.state.y, rel=1e-7, abs=1e-12)


def test_question_and_answer_by_hand() -> None:
    """Task 1 from node 0, α = 0 and nothing loaded: 30 requests that only node 3 takes, at 27 + 2 ms."""
    instance = line(0.0, budgets=(0.0, 0.0, 0.0), keep_oversize=False)
    agents = agents_of(INFIDA(), instance, Streams(0))
    question = agents[0].ask(7, 2, 30.0)
    assert question == Question(7, 2, 30.0, 0.0)
    place, message = 0, question
    for node, latency in enumerate((6.0, 12.0, 27.0), 1):
        heard = agents[place].hear(message, alone(instance).capacity[agents[place].stops[2].ranks])
        assert heard == (node, Question(7, 2, 30.0, latency))
        place, message = heard
    # The ranking ends with the cheapest model of node 3: no other is ever needed.
    assert agents[3].hear(message, np.array([30.0])) == (2, Answer(7, 2, 29.0))
    assert agents[2].settle(Answer(7, 2, 29.0)) == (1, Answer(7, 2, 29.0))
    assert agents[0].settle(Answer(7, 2, 29.0)) is None


def test_questions_stop_where_nobody_further_matters() -> None:
    """Node 0 holds all models and serves 30 of 30 requests in 8 ms; node 1 is 6 ms away, but cannot be below that."""
    instance = line(0.0, budgets=(21.0, 4.0, 5.0))
    requests = np.array([0.0, 0, 5, 0, 0, 0])
    agents = agents_of(INFIDA(), instance, Streams(0))
    fast = exchange(agents, 1, alone(instance, requests))
    assert fast.messages == 2  # to node 1, where a model may still be below 8 ms, and back: node 2 is 12 ms away


def played(fate: dict[int, str], slot: Slot) -> np.ndarray:
    """Slopes when some messages, counted from 0, are lost or late."""
    agents, count = agents_of(INFIDA(), slot.instance, Streams(0)), iter(range(10**6))
    sent = exchange(agents, 1, slot, fate=lambda _: fate.get(next(count), "now"))  # type: ignore[arg-type,return-value]
    if sent.late:
        for agent in agents:
            agent.waiting = {key: offered for key, offered in agent.waiting.items() if 1 - key[0] < agent.patience}
        exchange(agents, 2, Slot(instance=slot.instance, requests=0 * slot.requests, capacity=0 * slot.capacity), late=sent.late)  # fmt: skip  # noqa: E501
    return slopes(agents, slot.instance)


@settings(max_examples=100)
@given(delivery_slots(), seeds)
def test_lost_messages_make_slopes_smaller_only(slot: Slot, seed: int) -> None:
    whole = played({}, slot)
    rng = np.random.default_rng(seed)
    some = played({number: "never" for number in range(100) if rng.random() < 0.3}, slot)
    assert (some <= whole + 1e-9).all()
    assert played(dict.fromkeys(range(1000), "never"), slot)[0].sum() == 0


def test_late_answers_count_in_the_next_slot(golden: Slot) -> None:
    """What was offered is remembered, so that a late answer counts as it would have."""
    whole = played({}, golden)
    agents = agents_of(INFIDA(), golden.instance, Streams(0))

    def fate(message: Message) -> str:
        return "late" if isinstance(message, Answer) else "now"

    first = exchange(agents, 1, golden, fate=fate)  # type: ignore[arg-type]
    assert first.late
    at_once = slopes(agents, golden.instance)
    nothing = Slot(instance=golden.instance, requests=0 * golden.requests, capacity=0 * golden.capacity)
    late = first.late
    for number in (2, 3, 4):  # an answer is late at every link
        late = exchange(agents, number, nothing, late=late, fate=fate).late  # type: ignore[arg-type]
    assert not late
    assert slopes(agents, golden.instance) == pytest.approx(whole)
    assert at_once.sum() < whole.sum()


def test_answers_that_are_too_late_do_not_count(golden: Slot) -> None:
    agents = agents_of(INFIDA(), golden.instance, Streams(0), patience=1)
    first = exchange(agents, 1, golden, fate=lambda m: "late" if isinstance(m, Answer) else "now")
    for number in (1, 2):
        for agent in agents:
            agent.step(number)
    nothing = Slot(instance=golden.instance, requests=0 * golden.requests, capacity=0 * golden.capacity)
    exchange(agents, 3, nothing, late=first.late)
    assert not slopes(agents, golden.instance).any()
    assert not any(agent.waiting for agent in agents)


def test_an_answer_counts_once(golden: Slot) -> None:
    agents = agents_of(INFIDA(), golden.instance, Streams(0))
    exchange(agents, 1, golden)
    before = slopes(agents, golden.instance)
    agents[1].settle(Answer(1, 0, 1000.0))
    assert (slopes(agents, golden.instance) == before).all()


@pytest.mark.parametrize("policy", [InfidaByMessages(lost=0.2), InfidaByMessages(late=0.3), InfidaByMessages(lost=0.1, late=0.1, patience=4)])  # fmt: skip  # noqa: E501
def test_learning_survives_lost_and_late_messages(policy: InfidaByMessages) -> None:
    instance = line(keep_oversize=False)
    perfect, rough = (
        np.mean([deliver(each, instance, [REQUESTS] * 200, streams=Streams(seed)).last["gain"] for seed in range(3)])
        for each in (InfidaByMessages(), policy)
    )
    assert rough > 0.9 * perfect


def test_deadlines_are_known_to_the_nodes() -> None:
    golden = line(keep_oversize=False)
    fields = {name: getattr(golden, name) for name in golden.__dataclass_fields__}
    instance = Instance(**{**fields, "deadline_ms": np.array([20.0, 30, 20, np.inf, 10, 5]), "late_cost": 37.0})
    slot, agents = alone(instance), agents_of(INFIDA(), instance, Streams(0))
    exchange(agents, 1, slot)
    y = np.array([agent.y for agent in agents])
    assert slopes(agents, instance) == pytest.approx(slot.slope(y).gradient * instance.free, rel=1e-9)


def test_settings_and_registry() -> None:
    with pytest.raises(ConfigError, match="nothing arrives"):
        InfidaByMessages(lost=0.6, late=0.4)
    with pytest.raises(ConfigError):
        InfidaByMessages(patience=0)
    with pytest.raises(ConfigError, match="Set candidates to 1"):
        InfidaByMessages(policy=INFIDA(candidates=2))
    assert DELIVERY_POLICIES.get("infida_by_messages") is InfidaByMessages
    assert isinstance(InfidaByMessages(), DeliveryPolicy)


def test_same_seed_same_fate() -> None:
    rng = np.random.default_rng(0)
    instance = delivery_network(rng)
    slots = [delivery_slot(rng, instance) for _ in range(5)]
    policy = InfidaByMessages(lost=0.3)
    counts = []
    for seed in (1, 1, 2):
        state = policy.init(instance, Streams(seed))
        for slot in slots:
            loaded = policy.act(state)
            state = policy.update(state, Seen(slot, loaded, slot.served(loaded)))
        counts.append((state.messages, state.numbers, slopes(state.agents, instance).sum(), state.agents[1].y.sum()))
    assert counts[0] == counts[1]

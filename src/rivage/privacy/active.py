"""Attribute inference by a server that sends one client models of its own.

Diana, Marfoq, Xu, Neglia, Giroire, Thomas. Attribute inference attacks for federated regression tasks. AAAI 2025, arXiv
2411.12697, Algorithm 3.

*Walk.* The server starts from the client's last returned model and optimises it as if the client's pseudo-gradients
were gradients. With x what is sent and o what comes back,

    p = x − o ,   m ← β₁ m + (1 − β₁) p ,   v ← β₂ v + (1 − β₂) p² ,
    x ← x − α (m / (1 − β₁ᵏ)) / (√(v / (1 − β₂ᵏ)) + ε) ,

for k = 1, 2, ...; the model that the client returned last then decides every record
(`rivage.privacy.model_attributes`). α, β₁ and β₂ are drawn at random, α log-uniformly, and the walk is kept whose last
pseudo-gradient is shortest: at the client's optimum there is none.

*Isolation.* The server sends the client its own returned model back, round after round, and nothing of the others; the
gradient-based attack then reads these messages (Lyu & Chen, arXiv 2108.06910, as in the paper's comparison).

Deviations. The public code chooses α, β₁ and β₂ by the loss on the client's own records, which no server knows; that
is not an attack and not offered. A draw costs the client as many rounds as a walk is long, hence few draws are the
default; the facts say how many rounds the client answered. Its first draw has step size 0: the server goes nowhere,
which is isolation, and what the other draws have to beat.

Cost: draws times rounds local trainings of the client.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.federated.algorithm import Reference
from rivage.privacy.attack import Asks, Tools
from rivage.privacy.gradient_attributes import GradientAttributes
from rivage.privacy.model_attributes import REFERENCE, Decision, require_attackable
from rivage.privacy.questions import AttributeAnswer, AttributeQuestion
from rivage.privacy.views import ActiveServer, Exchange, Refused

__all__ = ["ActiveAttributes", "IsolatedAttributes", "Walk", "isolated"]

_EPSILON = 1e-8


@dataclass(frozen=True, slots=True)
class Walk:
    """Step size and averaging of a walk.

    Args:
        step_size: α >= 0; 0 sends the client its own model back.
        first: β₁ in [0, 1).
        second: β₂ in [0, 1).
    """

    step_size: float
    first: float = 0.9
    second: float = 0.99

    def exchanges(self, view: ActiveServer, client: int, rounds: int, turn: int = 0) -> Iterator[Exchange]:
        """What passes between server and client.

        Args:
            view: of the server.
            client: who is sent models.
            rounds: how many.
            turn: how many the client has answered before.
        """
        last = view.of(client).last()
        x = last.returned.astype(np.float64)
        mean, square = np.zeros_like(x), np.zeros_like(x)
        for k in range(1, rounds + 1):
            with np.errstate(over="ignore"):
                sent = x.astype(last.returned.dtype)
            exchange = Exchange(last.round + turn + k, client, sent, view.send(client, sent, turn + k - 1))
            yield exchange
            if not self.step_size:
                x = exchange.returned.astype(np.float64)
                continue
            with np.errstate(all="ignore"):  # a walk that runs away is known by its last answer
                pseudo = exchange.pseudo_gradient
                mean = self.first * mean + (1 - self.first) * pseudo
                square = self.second * square + (1 - self.second) * pseudo**2
                scale = np.sqrt(square / (1 - self.second**k)) + _EPSILON
                x = x - self.step_size * mean / (1 - self.first**k) / scale


def isolated(view: ActiveServer, client: int, rounds: int) -> Iterator[Exchange]:
    """A client that is sent its own model back, so often."""
    return Walk(0.0).exchanges(view, client, rounds)


@dataclass(frozen=True, kw_only=True)
class ActiveAttributes:
    """Model-based inference by a server that walks to the client's optimum.

    Args:
        rounds: that the client is asked for in each walk, >= 1.
        draws: walks, >= 1.
        step_sizes: least and largest α, > 0.
        averaging: least and largest β, in [0, 1).
        decision: how the last model decides.
    """

    reference: ClassVar[Reference] = REFERENCE
    asks: ClassVar[Asks] = "attribute"
    view: ClassVar[type] = ActiveServer
    oracle: ClassVar[str] = ""

    rounds: int = 50
    draws: int = 8
    step_sizes: tuple[float, float] = (0.1, 50.0)
    averaging: tuple[float, float] = (0.6, 0.999)
    decision: Decision = field(default_factory=Decision)

    def __post_init__(self) -> None:
        require(self.rounds, "rounds", least=1)
        require(self.draws, "draws", least=1)
        _require_range(self.step_sizes, "step_sizes", math.inf)
        _require_range(self.averaging, "averaging", 1.0)

    def run(self, view: ActiveServer, question: AttributeQuestion, tools: Tools) -> AttributeAnswer:
        """The values that fit the last model of the best walk.

        Raises:
            Refused: for methods that send several models, and for clients that do not answer.
        """
        client = _target(view, question)
        params, facts = self.estimate(view, client, tools.streams)
        return self.decision.answer(params, question, tools, facts)

    def estimate(
        self, view: ActiveServer, client: int, streams: Streams
    ) -> tuple[Float[ndarray, "dim"], dict[str, Any]]:
        """The client's last model after the best walk, and which one that was."""
        norms, ends = [], []
        walks = list(self._walks(streams))
        for number, walk in enumerate(walks):
            (last,) = deque(walk.exchanges(view, client, self.rounds, number * self.rounds), maxlen=1)
            with np.errstate(all="ignore"):
                norm = float(np.linalg.norm(last.pseudo_gradient))
            norms.append(norm if math.isfinite(norm) and np.isfinite(last.returned).all() else math.inf)
            ends.append(last.returned)
        best = int(np.argmin(norms))
        facts = {
            "step_size": walks[best].step_size,
            "averaging": [walks[best].first, walks[best].second],
            "pseudo_gradient": norms[best],
            "active_rounds": self.rounds * len(walks),
        }
        if math.isinf(norms[best]):
            raise Refused("every walk ended in models that are not finite", mend="Lower step_sizes.")
        return ends[best], facts

    def _walks(self, streams: Streams) -> Iterator[Walk]:
        yield Walk(0.0)
        generator = streams.numpy("walks")
        least, largest = np.log(self.step_sizes)
        for _ in range(self.draws - 1):
            first, second = generator.uniform(*self.averaging, size=2)
            yield Walk(float(np.exp(generator.uniform(least, largest))), float(first), float(second))


@dataclass(frozen=True, kw_only=True)
class IsolatedAttributes:
    """Gradient-based inference from the messages of a client that the server isolates.

    Args:
        rounds: of isolation, >= 1.
        attack: on the messages.
    """

    reference: ClassVar[Reference] = GradientAttributes.reference
    asks: ClassVar[Asks] = "attribute"
    view: ClassVar[type] = ActiveServer
    oracle: ClassVar[str] = ""

    rounds: int = 50
    attack: GradientAttributes = field(default_factory=GradientAttributes)

    def __post_init__(self) -> None:
        require(self.rounds, "rounds", least=1)

    def run(self, view: ActiveServer, question: AttributeQuestion, tools: Tools) -> AttributeAnswer:
        """The values whose gradients are most similar.

        Raises:
            Refused: for methods that send several models, and for clients that do not answer.
        """
        messages = isolated(view, _target(view, question), self.rounds)
        candidates = self.attack.search(messages, self.rounds, question, tools)
        best, facts = self.attack.best(candidates)
        return AttributeAnswer(best.values, facts | {"active_rounds": self.rounds})


def _target(view: ActiveServer, question: AttributeQuestion) -> int:
    """Who is asked about, once it is known that this can be attacked."""
    if question.target is None:
        raise Refused("no client is named", mend="Name the client that the server should send models to.")
    require_attackable(question, view.of(question.target).last().returned)
    return question.target


def _require_range(values: tuple[float, float], name: str, below: float) -> None:
    least, largest = values
    if not 0 < least <= largest < below:
        raise ConfigError(
            f"{name} is {list(values)}",
            mend=f"Give the least, above 0, and the largest, {'finite' if math.isinf(below) else f'below {below:g}'}.",
        )

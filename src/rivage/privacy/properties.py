"""Property inference: what kind of records a client holds, from how it moves the last layer.

Melis, Song, De Cristofaro, Shmatikov. Exploiting unintended feature leakage in collaborative learning. S&P 2019,
arXiv 1805.04049, passive property inference.

The server knows what it sent in a round. It trains reference clients from there on records of its own, half of them
with more than half of their records having the property, and learns to tell their updates from those of the other half:
logistic regression on the update of the last linear layer, scaled to length 1 and then standardised. A client's score
is the mean log-odds over the rounds in which it is observed.

Deviations: the classifier is a new one in every round, since what an update looks like depends on the model it starts
from; the share of records with the property is uniform in each half. Updates of the paper's single steps are those of a
whole local training here.

Cost: ``models`` local trainings per observed round, with as many records as clients hold in the median.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Float64
from numpy import ndarray

from rivage.core.errors import require, require_extra
from rivage.data.population import Samples
from rivage.federated.algorithm import Reference
from rivage.learning.params import to_numpy
from rivage.privacy.attack import Asks, Tools
from rivage.privacy.questions import PropertyAnswer, PropertyQuestion
from rivage.privacy.recipes import Method, Recipe, method_of, recipe_of, train
from rivage.privacy.views import CuriousServer, Refused

__all__ = ["PropertyInference"]

_SIZE = 50  # records of a reference client where no weight tells what clients hold


@dataclass(frozen=True, kw_only=True)
class PropertyInference:
    """Reference clients with and without the property, and a classifier of their updates.

    Args:
        models: reference clients per observed round, >= 8.
        rounds: observed rounds, evenly spaced, >= 1; the last round of a client that none of them has is added.
        recipe: how clients train; None is what the log tells.
    """

    reference: ClassVar[Reference] = Reference(
        key="melis19",
        authors="Luca Melis and Congzheng Song and Emiliano De Cristofaro and Vitaly Shmatikov",
        title="Exploiting Unintended Feature Leakage in Collaborative Learning",
        venue="IEEE Symposium on Security and Privacy",
        year=2019,
        arxiv="1805.04049",
        part="passive property inference",
    )
    asks: ClassVar[Asks] = "property"
    view: ClassVar[type] = CuriousServer
    oracle: ClassVar[str] = ""

    models: int = 64
    rounds: int = 5
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        require(self.models, "models", least=8)
        require(self.rounds, "rounds", least=1)

    def run(self, view: CuriousServer, question: PropertyQuestion, tools: Tools) -> PropertyAnswer:
        """Score the clients.

        Raises:
            Refused: if the log does not tell how clients train, several models are sent per round, or the attacker's
                records do not have both kinds.
        """
        if question.has.all() or not question.has.any():
            raise Refused("the attacker's records are all of one kind", mend="Give some with and some without.")
        method = self._method(view)
        seen = [(each.round, each.client, each.weight) for each in view.exchanges() if each.client in question.clients]
        chosen, size = self._chosen(seen), _size([weight for _, _, weight in seen])
        odds: dict[int, list[float]] = {}
        current, learnt = -1, dict[int, tuple[ndarray, Any]]()  # by what was sent, which stays in memory meanwhile
        for exchange in view.exchanges():
            if exchange.round not in chosen or exchange.client not in question.clients:
                continue
            if exchange.round != current:
                current, learnt = exchange.round, {}
            sent = exchange.sent
            if id(sent) not in learnt:
                learnt[id(sent)] = sent, self._classifier(sent, method, size, question, tools, current)
            update = -_head(tools, exchange.pseudo_gradient)
            odds.setdefault(exchange.client, []).append(float(learnt[id(sent)][1](update[None])[0]))
        scores = [float(np.mean(odds[client])) if client in odds else np.nan for client in question.clients]
        return PropertyAnswer(np.array(scores), {"rounds": sorted(chosen), "records": size, "references": self.models})

    def _method(self, view: CuriousServer) -> Method:
        if self.recipe is not None:
            return self.recipe.method
        return method_of(view.header) if "method" in view.header.fields else recipe_of(view.header).method

    def _chosen(self, seen: Sequence[tuple[int, int, float | None]]) -> set[int]:
        """Rounds to observe: evenly spaced, and the last one of every client that would be missed."""
        rounds = sorted({number for number, _, _ in seen})
        wanted = min(self.rounds, len(rounds))
        chosen = {rounds[-1 - len(rounds) * i // wanted] for i in range(wanted)}
        last: Mapping[int, int] = {client: number for number, client, _ in seen}
        covered = {client for number, client, _ in seen if number in chosen}
        return chosen | {number for client, number in last.items() if client not in covered}

    def _classifier(
        self,
        sent: Float[ndarray, "dim"],
        method: Method,
        size: int,
        question: PropertyQuestion,
        tools: Tools,
        number: int,
    ) -> Any:
        """The log-odds of an update, learnt from reference clients that start from what was sent."""
        linear = require_extra("sklearn.linear_model", extra="train", purpose="Property inference")
        if sent.ndim != 1:
            raise Refused("the method sends several models per round", mend="Audit a method with one shared model.")
        streams = tools.streams.child("property", number)
        generator, most = streams.numpy("records"), np.arange(self.models) % 2 == 0
        members = [_drawn(question.records, question.has, size, many, generator) for many in most.tolist()]
        found = train(tools.task, method, sent, members, streams=streams, meter=tools.meter, round=number)
        updates = _head(tools, found.astype(np.float64) - sent)
        center, spread = updates.mean(0), updates.std(0) + 1e-12
        model = linear.LogisticRegression(max_iter=1000).fit((updates - center) / spread, most)
        return lambda update: model.decision_function((update - center) / spread)


def _head(tools: Tools, updates: Float64[ndarray, "*lead dim"]) -> Float64[ndarray, "*lead head"]:
    """The part that concerns the last linear layer, of length 1."""
    task = tools.task
    part = updates[..., to_numpy(task.layout.mask(task.head))]
    result: ndarray = part / np.maximum(np.linalg.norm(part, axis=-1, keepdims=True), 1e-12)
    return result


def _size(weights: Sequence[float | None]) -> int:
    """Records of a client in the median, where weights are whole numbers above 1."""
    told = [weight for weight in weights if weight is not None and weight > 1 and weight == int(weight)]
    return int(np.median(told)) if told else _SIZE


def _drawn(records: Samples, has: Bool[ndarray, "n"], size: int, many: bool, generator: np.random.Generator) -> Samples:
    """Records of a reference client; more than half of them have the property, or at most half."""
    share = generator.uniform(0.5, 1) if many else generator.uniform(0, 0.5)
    count = int(np.clip(round(share * size), size // 2 + 1, size)) if many else min(round(share * size), size // 2)
    rows = [
        generator.choice(np.flatnonzero(side), wanted, replace=bool(wanted > side.sum()))
        for side, wanted in ((has, count), (~has, size - count))
    ]
    return records.take(np.concatenate(rows))

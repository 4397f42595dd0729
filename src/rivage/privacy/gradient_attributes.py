"""Gradient-based attribute inference: values under which the client's gradients would look like its messages.

Lyu, Chen. A novel attribute reconstruction attack in federated learning. arXiv 2108.06910. The baseline of Diana,
Marfoq, Xu, Neglia, Giroire, Thomas. Attribute inference attacks for federated regression tasks. AAAI 2025, arXiv
2411.12697, with whose grids and step sizes it is run here.

All records of the client are attacked jointly. With g_t the pseudo-gradients of a set R of rounds and v_t(s) the
gradient at the model sent, over all records in one batch, with values s plugged in,

    minimise over s   Σ_{t in R} (1 − cos(v_t(s), g_t)) .

Values are relaxed: a value has logits a, drawn from a normal law; in each iteration it is sampled, hard forwards and
soft backwards, and plain SGD moves the logits. With temperature τ a *binary* attribute has one logit and is 1 where

    σ((a + Λ) / τ) > ½ ,   Λ logistic: the difference of two Gumbel variables;

a *categorical* one has K logits, a Gumbel variable on each, and softmax; a *numerical* one is its own value, without
noise, kept within its range. R are the first rounds, by fractions of all there are. Of all fractions and step sizes the
answer is the one whose final values have the smallest mean 1 − cos: over all rounds read by default, as one round alone
is easily matched by wrong values, or on the search's own rounds.

Deviations. The authors' public code for binary attributes adds ONE Gumbel variable, under which a logit of 0 is a 1
with probability 1 − 1/e = 0.632, not one half; ``noise="gumbel"`` replicates that. Categorical and numerical attributes
are ours. How the paper chooses among the grid is not known to us.

Cost: see `rivage.privacy.attribute_gradients`; messages of the rounds used are held in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise, product
from operator import attrgetter
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Shaped
from numpy import ndarray
from torch import Tensor

from rivage.core.errors import ConfigError, require, require_one_of
from rivage.federated.algorithm import Reference
from rivage.learning.params import from_numpy, to_numpy
from rivage.privacy.attack import Asks, Tools
from rivage.privacy.attribute_gradients import Dissimilarity, Messages, Tabulated, Unrolled, table_bytes
from rivage.privacy.attribute_relaxations import Sample, relaxation
from rivage.privacy.model_attributes import require_attackable
from rivage.privacy.questions import AttributeAnswer, AttributeQuestion
from rivage.privacy.views import Eavesdropper, Exchange, Refused

__all__ = ["Candidate", "GradientAttributes", "chosen", "hindsight"]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """The outcome of one search.

    Args:
        rounds: how many messages, from the first, it was matched with.
        learning_rate: of the logits.
        own: mean of 1 − cos over these rounds at the final values.
        overall: the same over all rounds that were read.
        values: index of a value per record, or a number.
    """

    rounds: int
    learning_rate: float
    own: float
    overall: float
    values: Shaped[ndarray, "n"]


def chosen(candidates: Sequence[Candidate], compare: Literal["overall", "own"] = "overall") -> Candidate:
    """The most similar one; ties go to the first."""
    return min(candidates, key=attrgetter(compare))


def hindsight(candidates: Sequence[Candidate], truth: Shaped[ndarray, "n"]) -> Candidate:
    """An oracle: the one that is right most often, or nearest; ties go to the first."""
    if truth.dtype.kind == "f":
        return min(candidates, key=lambda candidate: float(np.square(candidate.values - truth).mean()))
    return max(candidates, key=lambda candidate: float((candidate.values == truth).mean()))


@dataclass(frozen=True, kw_only=True)
class GradientAttributes:
    """Gradient-based inference by a passive observer of one client.

    Args:
        fractions: of the exchanges, from the first, each in [0, 1]; 0 is one exchange.
        learning_rates: of the logits, all tried, each > 0.
        iterations: of SGD, >= 1.
        temperature: τ > 0.
        noise: of a binary attribute; see the module.
        compare: which rounds decide among the grid: the ``own`` of each search, or all that were read.
        most_bytes: of messages held in memory; later ones are left out.
        table_bytes: of gradients by value held in memory, where that is enough for all of them; else they are computed
            anew for every guess, with the same result.
    """

    reference: ClassVar[Reference] = Reference(
        key="lyu21",
        authors="Lingjuan Lyu and Chen Chen",
        title="A Novel Attribute Reconstruction Attack in Federated Learning",
        venue="arXiv",
        year=2021,
        arxiv="2108.06910",
        part="attribute reconstruction by gradient matching",
        entry="misc",
    )
    asks: ClassVar[Asks] = "attribute"
    view: ClassVar[type] = Eavesdropper
    oracle: ClassVar[str] = ""

    fractions: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
    learning_rates: tuple[float, ...] = (1e2, 1e3, 1e4, 1e5, 1e6)
    iterations: int = 100
    temperature: float = 1.0
    noise: Literal["logistic", "gumbel"] = "logistic"
    compare: Literal["overall", "own"] = "overall"
    most_bytes: int = 64 << 20
    table_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        if not self.fractions or not self.learning_rates:
            raise ConfigError("nothing is to be tried", mend="Give at least one fraction and one learning rate.")
        for fraction in self.fractions:
            require(fraction, "fractions", least=0)
            require(1 - fraction, "1 - fractions", least=0)
        for rate in self.learning_rates:
            require(rate, "learning_rates", above=0)
        require(self.iterations, "iterations", least=1)
        require(self.temperature, "temperature", above=0)
        require_one_of(self.noise, "noise", ("logistic", "gumbel"))
        require(self.most_bytes, "most_bytes", least=1)

    def run(self, view: Eavesdropper, question: AttributeQuestion, tools: Tools) -> AttributeAnswer:
        """The values whose gradients are most similar.

        Raises:
            Refused: for methods that send several models, and for a client that has sent nothing.
        """
        best, facts = self.best(self.search(view.exchanges(), view.rounds, question, tools))
        return AttributeAnswer(best.values, facts)

    def best(self, candidates: Sequence[Candidate]) -> tuple[Candidate, dict[str, Any]]:
        """The answer of the grid, and what a report should say of it."""
        best = chosen(candidates, self.compare)
        facts = {
            "rounds": best.rounds,
            "learning_rate": best.learning_rate,
            "dissimilarity": getattr(best, self.compare),
            "tried": len(candidates),
        }
        return best, facts

    def search(
        self, exchanges: Iterable[Exchange], total: int, question: AttributeQuestion, tools: Tools
    ) -> tuple[Candidate, ...]:
        """All searches of the grid.

        Args:
            exchanges: in order; only as many are read as the largest fraction needs.
            total: how many there are.
            question: records without the attribute.
            tools: architecture, randomness, meter.
        """
        counts = sorted({max(1, round(fraction * total)) for fraction in self.fractions})
        messages = self._messages(islice(exchanges, counts[-1]), question, tools)
        counts = sorted({min(count, len(messages.sent)) for count in counts})
        return self._descend(self._dissimilarity(messages, question, tools), counts, question, tools)

    def _messages(self, exchanges: Iterable[Exchange], question: AttributeQuestion, tools: Tools) -> Messages:
        sent: list[ndarray] = []
        moved: list[ndarray] = []
        size = 0
        for exchange in exchanges:
            require_attackable(question, exchange.sent)
            size += 2 * exchange.sent.nbytes
            if sent and size > self.most_bytes:
                break
            sent.append(exchange.sent)
            moved.append(exchange.pseudo_gradient[: tools.task.layout.trainable])
        if not sent:
            raise Refused("the client has sent nothing", mend="Ask about a client that took part.")
        units = np.stack(moved)
        units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), np.finfo(np.float64).tiny)
        return Messages(_tensor(np.stack(sent), tools), _tensor(units, tools))

    def _dissimilarity(self, messages: Messages, question: AttributeQuestion, tools: Tools) -> Dissimilarity:
        if question.attribute.kind != "numerical" and table_bytes(messages, question) <= self.table_bytes:
            return Tabulated(messages, question, tools)
        return Unrolled(messages, question, tools)

    def _descend(
        self, unlike: Dissimilarity, counts: Sequence[int], question: AttributeQuestion, tools: Tools
    ) -> tuple[Candidate, ...]:
        """All searches side by side, so that a round is looked at once per iteration by all that use it."""
        grid = list(product(counts, self.learning_rates))
        rates = _tensor(np.array([rate for _, rate in grid]), tools)
        relaxed = relaxation(question.attribute, _tensor(question.attribute.codes, tools), self.temperature, self.noise)
        generator = torch.Generator().manual_seed(tools.streams.seed("gradients"))
        logits = relaxed.start(len(grid), len(question.x), generator)
        rates = rates.view(-1, *(1 for _ in logits.shape[1:]))
        for _ in range(self.iterations):
            sample = relaxed.sample(logits, generator)
            slope = torch.zeros_like(sample.columns)
            for first, rounds in self._stretches(counts):
                slope[first:] += unlike(rounds, *_of(sample, first))[1]
            logits = relaxed.keep(logits - rates * relaxed.back(sample, slope))
        return tuple(self._judged(unlike, counts, grid, relaxed.decide(logits)))

    def _stretches(self, counts: Sequence[int]) -> Iterator[tuple[int, slice]]:
        """Rounds between two counts, and the first search that uses them."""
        for number, (start, stop) in enumerate(pairwise((0, *counts))):
            yield number * len(self.learning_rates), slice(start, stop)

    def _judged(
        self, unlike: Dissimilarity, counts: Sequence[int], grid: Sequence[tuple[int, float]], final: Sample
    ) -> Iterator[Candidate]:
        """How well the final values of each search explain its own rounds, and all."""
        parts = torch.stack([unlike(rounds, *_of(final, 0))[0] for _, rounds in self._stretches(counts)])
        totals = parts.cumsum(dim=0).nan_to_num(nan=math.inf)
        values = to_numpy(final.columns[..., 0].double() if final.index is None else final.index)
        for search, (count, rate) in enumerate(grid):
            own, overall = (float(totals[row, search]) for row in (counts.index(count), -1))
            yield Candidate(count, rate, own / count, overall / counts[-1], values[search])


def _of(sample: Sample, first: int) -> tuple[Tensor, Tensor | None]:
    """The searches from one on."""
    return sample.columns[first:], None if sample.index is None else sample.index[first:]


def _tensor(array: ndarray, tools: Tools) -> Tensor:
    return from_numpy(array, dtype=tools.task.dtype, device=tools.task.device)

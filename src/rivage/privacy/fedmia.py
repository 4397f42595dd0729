"""Membership by comparing the target's messages with those of the other clients.

Zhu, Li, Gu, Yao, Fan, Han. FedMIA: an effective membership inference attack exploiting "all for one" principle in
federated learning. CVPR 2025, arXiv 2402.06289.

Clients hold different records, so what the server sees of the others says how a client's message looks when a record is
not in it: no shadow model has to be trained. With a signal m_{c,t}(x) of client c in round t,

    score(x) = Σ_t log Φ((m_{target,t}(x) − μ_t(x)) / σ_t(x)),

where mean and standard deviation are those of the other clients of the round, values above mean + 3 standard deviations
left out. Signals: ``cosine``, between the gradient of x at the model sent and the pseudo-gradient of the client
(FedMIA-II); ``loss``, minus the loss of x under the model returned (FedMIA-I).

Deviations: with fewer than 8 other clients in a round a variance per record would be noise, and a variance that is near
0 by chance decides the sum; there all records share one variance, as Carlini et al. do with few shadow models. Rounds
with fewer than two other clients are left out. A record that another client holds as well looks less like a member.
Several models sent at once count as their equal mixture.

Cost: ``cosine``: one forward and one backward pass of the records per round and distinct model sent, however many
clients, plus O(records · D) per client; ``loss``: one forward pass per client and round. Memory: the pseudo-gradients
of 16 clients, and a number per record and client of one round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from scipy.special import log_ndtr

from rivage.core.errors import require, require_one_of
from rivage.federated.algorithm import Reference
from rivage.privacy.attack import Asks, Tools
from rivage.privacy.membership import answered, spread
from rivage.privacy.probing import Probe
from rivage.privacy.questions import MembershipAnswer, MembershipQuestion
from rivage.privacy.views import CuriousServer, Exchange, Refused

__all__ = ["FedMIA", "tail"]

_LEAST = 2  # other clients, of which there is a variance
_FEW = 8  # below so many others records share a variance
_TOGETHER = 16  # pseudo-gradients held at a time
_OUTLIER = 3.0  # standard deviations


@dataclass(frozen=True, kw_only=True)
class FedMIA:
    """Membership by the target's signal among those of the others.

    Args:
        signal: ``cosine`` or ``loss``.
        rounds: how many of the target's are looked at, >= 1, spread over the last two thirds; None for all.
    """

    reference: ClassVar[Reference] = Reference(
        key="zhu25",
        authors="Gongxi Zhu and Donghao Li and Hanlin Gu and Yuan Yao and Lixin Fan and Yuxing Han",
        title='FedMIA: An Effective Membership Inference Attack Exploiting "All for One" Principle in Federated '
        "Learning",
        venue="CVPR",
        year=2025,
        arxiv="2402.06289",
    )
    asks: ClassVar[Asks] = "membership"
    view: ClassVar[type] = CuriousServer
    oracle: ClassVar[str] = ""

    signal: Literal["cosine", "loss"] = "cosine"
    rounds: int | None = field(default=None, metadata={"none": "all"})

    def __post_init__(self) -> None:
        require_one_of(self.signal, "signal", ("cosine", "loss"))
        if self.rounds is not None:
            require(self.rounds, "rounds", least=1)

    def run(self, view: CuriousServer, question: MembershipQuestion, tools: Tools) -> MembershipAnswer:
        """The sum of log Φ over the rounds of the target.

        Raises:
            Refused: if no client is asked about, or no round has the target and two others.
        """
        target = question.target
        if target is None:
            raise Refused("it asks about one client, and none is named", mend="Name a target.")
        wanted = set(spread([exchange.round for exchange in view.of(target).exchanges()], self.rounds))
        total, rounds, fewest = np.zeros(len(question.records)), 0, 0
        for _round, group in groupby(self._signals(view, wanted, question, tools), key=lambda found: found[0]):
            values = {client: value for _, client, value in group}
            mine = values.pop(target)
            if len(values) >= _LEAST:
                total += tail(mine, np.stack(list(values.values())))
                rounds, fewest = rounds + 1, min(fewest or len(values), len(values))
        if not rounds:
            raise Refused(
                f"in none of the {len(wanted)} rounds of client {target} took two others part",
                mend="Use an attack that reads one client only.",
            )
        return answered(total, question, rounds=rounds, fewest_others=fewest)

    def _signals(
        self, view: CuriousServer, wanted: set[int], question: MembershipQuestion, tools: Tools
    ) -> Iterator[tuple[int, int, Float64[ndarray, "n"]]]:
        """Round, client and signal of every exchange in the wanted rounds."""
        probe = Probe(tools, question.records)
        exchanges = (exchange for exchange in view.exchanges() if exchange.round in wanted)
        if self.signal == "loss":
            for exchange in exchanges:
                yield exchange.round, exchange.client, -probe.losses(exchange.returned)
            return
        for part in _alike(exchanges):
            aims = np.stack([exchange.pseudo_gradient for exchange in part])
            for exchange, cosines in zip(part, probe.alignments(part[0].sent, aims), strict=True):
                yield exchange.round, exchange.client, cosines


def _alike(exchanges: Iterator[Exchange]) -> Iterator[list[Exchange]]:
    """Runs of exchanges of one round that started from the same model, 16 at most."""
    part: list[Exchange] = []
    for exchange in exchanges:
        if part and not (
            len(part) < _TOGETHER and exchange.round == part[0].round and np.array_equal(exchange.sent, part[0].sent)
        ):
            yield part
            part = []
        part.append(exchange)
    if part:
        yield part


def tail(mine: Float64[ndarray, "n"], others: Float64[ndarray, "clients n"]) -> Float64[ndarray, "n"]:
    """The logarithm of Φ of the target's standardised signal; log 1/2 where all clients are equal.

    With fewer than 8 others the variance is the mean over records.
    """
    kept = others <= others.mean(axis=0) + _OUTLIER * others.std(axis=0, ddof=1)
    count = kept.sum(axis=0)
    mean = np.where(kept, others, 0.0).sum(axis=0) / count
    squares = (np.where(kept, others - mean, 0.0) ** 2).sum(axis=0)
    variance = squares / np.maximum(count - 1, 1)
    if len(others) < _FEW:
        variance = np.full_like(variance, squares.sum() / np.maximum(count - 1, 1).sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (mine - mean) / np.sqrt(variance)
    result: ndarray = log_ndtr(np.nan_to_num(z, nan=0.0, posinf=1e3, neginf=-1e3))
    return result

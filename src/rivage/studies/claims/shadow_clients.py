"""Reference clients: what the messages of one client of an over-fitted federation tell.

Four clients hold 150 digits each, of which 30 % have labels drawn anew; 60 rounds of 10 local epochs. The question is
which of 300 digits, half of them its own, a client has trained on. The recipe is ours.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from rivage.core.message_log import LOG_NAME
from rivage.core.messages import LogPolicy
from rivage.core.seeding import Streams
from rivage.core.settings import dump
from rivage.data.arrays import ArrayPopulation
from rivage.data.population import ClientData, Samples
from rivage.federated.algorithm import Phase
from rivage.federated.checkpoint import Files
from rivage.federated.engine import run
from rivage.federated.fedavg import FedAvg
from rivage.federated.trial import Trial
from rivage.learning.params import to_numpy
from rivage.learning.task import Task
from rivage.privacy import lira, rmia
from rivage.privacy.attack import Meter, Tools
from rivage.privacy.confidence import confidences, log_likelihood
from rivage.privacy.dealing import Signals
from rivage.privacy.questions import MembershipQuestion
from rivage.privacy.roc import auc
from rivage.privacy.shadows import Shadows
from rivage.privacy.views import Eavesdropper, Recorded
from rivage.studies.claims.claim import Claim, Outcome
from rivage.studies.claims.reference_attacks import digits

__all__ = ["CLAIMS", "CLIENTS", "Federation", "areas", "federation"]

CLIENTS = 4
_SIZE, _OWN, _ROUNDS = 150, 500, 60
_METHOD = FedAvg(learning_rate=0.2, work=Phase(epochs=10, batch_size=32))


@dataclass(frozen=True, eq=False)
class Federation:
    """A federation that has been played.

    Args:
        task: what it learnt.
        log: its messages.
        final: its model.
        records: first those of the clients in turn, then as many others, then the attacker's own.
    """

    task: Task
    log: Recorded
    final: Float[ndarray, "dim"]
    records: Samples

    def question(self, client: int) -> MembershipQuestion:
        """Which of these did the client train on? The first half."""
        others = CLIENTS * _SIZE
        rows = np.r_[self._of(client), others + self._of(client)]
        nobody = np.zeros(2 * _SIZE, bool)
        own = self.records.take(np.arange(2 * others, 2 * others + _OWN))
        return MembershipQuestion(self.records.take(rows), nobody, nobody, own, client)

    @property
    def member(self) -> Bool[ndarray, "audited"]:
        """The answer."""
        return np.arange(2 * _SIZE) < _SIZE

    def signals(self, client: int, models: int, rounds: int) -> Signals:
        """What reference clients tell of a client."""
        tools = Tools(self.task, Streams(client))
        return Shadows(models=models, rounds=rounds).signals(
            Eavesdropper(self.log, client), self.question(client), tools
        )

    def of_final(self, client: int) -> float:
        """Area of the loss under the final model, which all clients have in common."""
        found = confidences(self.task, [self.final], self.question(client).records, Meter())
        return auc(found[0], self.member)

    @staticmethod
    def _of(client: int) -> ndarray:
        return np.arange(client * _SIZE, (client + 1) * _SIZE)


def federation(seed: int, folder: Path) -> Federation:
    """Play it, with its log in a folder."""
    records, task = digits(0.3, Streams(seed).child("federation"))
    parts = [records.take(Federation._of(client)) for client in range(CLIENTS)]
    clients = tuple(ClientData(k, part, part.take(_NONE), part.take(_NONE), _SIZE) for k, part in enumerate(parts))
    population = ArrayPopulation(clients=clients, names=tuple(map(str, range(CLIENTS))), schema=task.schema)
    header = {
        **task.layout.as_json(),
        "loss": task.loss.name,
        "method": "fedavg",
        "hyper_parameters": dump(_METHOD),
    }
    trial = Trial(
        name="claim",
        algorithm=_METHOD,
        population=population,
        task=task,
        rounds=_ROUNDS,
        every=_ROUNDS,
        seed=seed,
    )
    with Files(folder, LogPolicy(), header) as journal:
        outcome = run(trial, journal)
    return Federation(task, Recorded(folder / LOG_NAME), to_numpy(outcome.state["params"]), records)


_NONE = np.empty(0, np.int64)


def areas(signals: Signals, member: Bool[ndarray, "audited"], columns: Sequence[int]) -> dict[str, float]:
    """Area of each attack that reads these of the rounds."""
    audited = len(member)
    own, others = signals.target[:, columns], signals.references[:, :, columns]
    ratios = rmia.log_ratio(log_likelihood(own, "class"), log_likelihood(others, "class"), signals.inside)
    likelihood = lira.online(own[:audited], others[:, :audited], signals.inside[:, :audited])
    return {
        "LiRA": auc(likelihood, member),
        "RMIA": auc(ratios[:audited], member),
        "loss": auc(signals.target[:audited, -1], member),
    }


def _found(seed: int) -> Iterator[dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        played = federation(seed, Path(folder))
        for client in range(CLIENTS):
            signals = played.signals(client, 16, 5)
            yield areas(signals, played.member, range(5)) | {"final loss": played.of_final(client)}


def _clients() -> Outcome:
    gains, lines = [], []
    for seed in range(3):
        found = list(_found(seed))
        mean = {name: float(np.mean([each[name] for each in found])) for name in found[0]}
        gains.append(min(mean["LiRA"], mean["RMIA"]) - mean["loss"])
        lines.append(f"seed {seed}: " + ", ".join(f"{name} {area:.3f}" for name, area in mean.items()))
    least = min(gains)
    return Outcome(least, "holds" if least >= 0.03 else "fails", "mean area over 4 clients; " + "; ".join(lines))


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="shadow-clients-beat-the-loss",
        paper="Carlini et al., S&P 2022, arXiv 2112.03570, and Zarifzadeh et al., ICML 2024, arXiv 2312.03262, on the "
        "messages of a client",
        where="digits, MLP 64-64-10, 4 clients of 150 records with 30 % of the labels redrawn, 60 rounds, three seeds; "
        "recipe and threshold are ours",
        statement="Sixteen reference clients in five observed rounds give LiRA and RMIA an area that exceeds that of "
        "the loss under the client's last model by at least 0.03.",
        expected="gain at least 0.03",
        tolerance=0.0,
        cost="slow",
        run=_clients,
    ),
)

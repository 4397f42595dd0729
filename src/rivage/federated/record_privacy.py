"""Differential privacy of single records: which methods keep its promise, and what it is.

Every step of a client that trains under `Phase.noise` publishes, in effect, one noisy sum of clipped gradients

    Σ_{i in batch} g_i · min(1, C/‖g_i‖) + N(0, (z C)² I),        each record in the batch with probability q = B/n.

What a client sends is then a function of such sums, of what it was sent, and of nothing else that depends on its
records: that is what a method has to ensure. Those of `SOUND` do. The others also send, or weigh records by, numbers
that are taken from the records without noise; they are refused, as is a method nobody has looked at. A method of a
plug-in vouches for itself with an attribute ``record_private = True`` of its own class: a subclass inherits no promise,
as it may send more.

The relation is *add or remove* one record while the number n of a client's records is public: it is sent as the weight
of the update, and it decides q. Local models leave the device in every round, so that all rounds a client takes part in
are composed. Personal models, memories and neighbours' records never leave it, and are not covered.

References:
    Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang. Deep learning with differential privacy. CCS 2016,
    arXiv 1607.00133, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rivage.core.errors import ConfigError
from rivage.federated.algorithm import Algorithm, Phase, Reference
from rivage.federated.batches import round_to_word
from rivage.federated.executors.jobs import expected
from rivage.learning.params import ParameterMap

__all__ = [
    "REFERENCE",
    "SOUND",
    "UNSOUND",
    "model_faults",
    "phase_of",
    "record_faults",
    "sampling_rate",
    "statement",
    "vouched",
]

REFERENCE = Reference(
    key="abadi16",
    authors="Martín Abadi and Andy Chu and Ian Goodfellow and H. Brendan McMahan and Ilya Mironov and Kunal Talwar and "
    "Li Zhang",
    title="Deep learning with differential privacy",
    venue="CCS",
    year=2016,
    arxiv="1607.00133",
    part="noise in every step, Algorithm 1",
)

SOUND = frozenset(
    {
        "rivage.federated.apfl:APFL",
        "rivage.federated.ditto:Ditto",
        "rivage.federated.fedavg:FedAvg",
        "rivage.federated.fedopt:FedAdagrad",
        "rivage.federated.fedopt:FedAdam",
        "rivage.federated.fedopt:FedAvgM",
        "rivage.federated.fedopt:FedYogi",
        "rivage.federated.fedprox:FedProx",
        "rivage.federated.fedrep:FedRep",
        "rivage.federated.finetuned:FineTuned",
        "rivage.federated.knnper:KNNPer",
        "rivage.federated.l2gd:L2GD",
        "rivage.federated.perfedavg:PerFedAvg",
        "rivage.federated.scaffold:Scaffold",
    }
)
"""Methods whose messages are functions of noisy gradients and of messages alone."""

UNSOUND: Mapping[str, str] = {
    "rivage.federated.afl:AFL": "clients send their mean loss without noise",
    "rivage.federated.clustered:Clustered": "clients choose their cluster by losses without noise, and send the choice",
    "rivage.federated.fedem:FedEM": "records are weighted by losses of all records of the client, without noise",
    "rivage.federated.fedem_heads:FedEMHeads": "records are weighted by losses of all records of the client, "
    "without noise",
    "rivage.federated.fedstream:FedStream": "records are weighted by how long they are held, and what the server asks "
    "of them is sent without noise",
    "rivage.federated.pfedme:PFedMe": "a batch is differentiated several times, which is not accounted",
    "rivage.federated.qffl:QFFL": "updates are scaled by the client's loss without noise, and the scale is sent",
}
"""Methods of this package that are refused, and why."""


def phase_of(algorithm: Any) -> Phase | None:
    """The local work with noise of a method; None where it has none, or sends nothing."""
    work = getattr(algorithm, "work", None)
    private = isinstance(work, Phase) and work.noise is not None and getattr(algorithm, "federates", True)
    return work if private else None


def vouched(algorithm: Any, attribute: str) -> Any:
    """What the author of a method says of it, in its very class; None where only a base class says so, or nobody."""
    return vars(type(algorithm)).get(attribute)


def record_faults(algorithm: Any, name: str) -> Iterator[ConfigError]:
    """Why noise would promise nothing under this method.

    Args:
        algorithm: any method, decentralised ones too.
        name: of the method in its study.
    """
    if phase_of(algorithm) is None:
        return
    kind = f"{type(algorithm).__module__}:{type(algorithm).__qualname__}"
    if kind in SOUND or vouched(algorithm, "record_private") is True:
        return
    reason = UNSOUND.get(kind, "nobody has checked that all it sends is covered by the noise")
    if not isinstance(algorithm, Algorithm):
        reason = "what silos send one another is not accounted"
    yield ConfigError(
        f'work.noise cannot protect "{name}": {reason}',
        mend='Leave noise out, or take a method such as kind = "fedavg".',
    )


def model_faults(algorithm: Any, name: str, layout: ParameterMap) -> Iterator[ConfigError]:
    """Why noise would promise nothing with this model."""
    if phase_of(algorithm) is not None and (layout.buffers or layout.kept):
        yield ConfigError(
            f'work.noise cannot protect "{name}": batch statistics mix the records and are sent without noise',
            where="[task] model",
            mend="Use group norm in place of batch norm, or leave noise out.",
        )


def sampling_rate(phase: Phase, records: int) -> float:
    """The probability with which `rivage.federated.batches` takes a record into a batch, to the last bit.

    Example:
        >>> sampling_rate(Phase(batch_size=32), 64), sampling_rate(Phase(batch_size=None), 64)
        (0.5, 1.0)
    """
    return round_to_word(expected(phase, records) / records) / 2**32 if records else 0.0


def statement(phase: Phase) -> dict[str, Any]:
    """What record and message log say of the promise."""
    return {
        "unit": "record",
        "relation": "add-remove",
        "protects": "what a client sends in all rounds",
        "mechanism": "DP-SGD: clipped gradients of single records, Gaussian noise in every step",
        "noise_multiplier": phase.noise,
        "sampling": "poisson",
        "batch_size": phase.batch_size,
        "clip": phase.clip,
        "delta": phase.delta,
        "public": ["number of training records of a client"],
        "not_covered": [
            "set-up messages",
            "personal models and memories on devices",
            "evaluations in the record",
            "choice of settings on the same data",
        ],
    }

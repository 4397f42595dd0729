"""What a method of a study promises of its noise, whether it can, and what each round spends of it.

There is at most one promise: of single records by `Phase.noise`, of clients by the server's noise
(`rivage.federated.user_privacy`, `rivage.federated.dp_ftrl`), by their own (`rivage.federated.local_noise`), or under a
mask (`rivage.federated.secagg`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from rivage.core.errors import ConfigError, MissingExtra
from rivage.federated.accounting import require_accountants
from rivage.federated.algorithm import Algorithm, Phase
from rivage.federated.clipped_sum import ClippedMean
from rivage.federated.clipping import Clip
from rivage.federated.collectors import Collection
from rivage.federated.local_noise import GaussianNoise
from rivage.federated.privacy_ledger import EVERYONE
from rivage.federated.record_privacy import phase_of, record_faults, sampling_rate, statement, vouched
from rivage.federated.stages import UpdateStage

__all__ = ["Sampling", "Spending", "accounting_faults", "entry_of", "promise", "promise_faults"]

Sampling = Literal["uniform", "poisson", "epochs"]

_ENTRIES = {
    "rivage.federated.apfl:APFL": "params",
    "rivage.federated.ditto:Ditto": "params",
    "rivage.federated.fedavg:FedAvg": "params",
    "rivage.federated.fedavg:FedSGD": "params",
    "rivage.federated.fedem:FedEM": "params",
    "rivage.federated.fedopt:FedAdagrad": "params",
    "rivage.federated.fedopt:FedAdam": "params",
    "rivage.federated.fedopt:FedAvgM": "params",
    "rivage.federated.fedopt:FedYogi": "params",
    "rivage.federated.fedprox:FedProx": "params",
    "rivage.federated.fedrep:FedRep": "body",
    "rivage.federated.finetuned:FineTuned": "params",
    "rivage.federated.knnper:KNNPer": "params",
    "rivage.federated.perfedavg:PerFedAvg": "params",
    "rivage.federated.pfedme:PFedMe": "params",
}
"""Methods whose clients send one vector that was broadcast under the same name, and nothing else."""

_ALIKE = frozenset(
    {
        "rivage.federated.fedem_heads:FedEMHeads",
        "rivage.federated.l2gd:L2GD",
        "rivage.federated.scaffold:Scaffold",
    }
)
"""Methods whose clients send several vectors, or none in some rounds, that mean the same when all count alike."""


def entry_of(algorithm: Any) -> str | None:
    """The one entry that clients of a method send; None where they send several, or where nobody has looked.

    A method of a plug-in names it in an attribute ``private_entry`` of its own class.
    """
    kind = f"{type(algorithm).__module__}:{type(algorithm).__qualname__}"
    named: str | None = _ENTRIES.get(kind, vouched(algorithm, "private_entry"))
    if getattr(algorithm, "average_over", "cohort") == "everyone":  # steps by the weight that arrived
        return None
    return named


def _counts_alike(algorithm: Any) -> bool:
    """Whether a method still is itself when its clients' weights are ignored.

    A method of a plug-in says so in an attribute ``counts_alike`` of its own class, or sends one entry.
    """
    kind = f"{type(algorithm).__module__}:{type(algorithm).__qualname__}"
    alike = kind in _ALIKE or vouched(algorithm, "counts_alike") is True
    return alike or entry_of(algorithm) is not None


def accounting_faults(algorithm: Any, told: dict[str, Any] | None, share: float) -> Iterator[MissingExtra]:
    """What would be missing when the privacy of a run is accounted for: better known before training than after.

    Args:
        algorithm: of the trial.
        told: its promise.
        share: probability with which a client is in the cohort.
    """
    if told is None or told["sampling"] != "poisson":
        return
    phase = phase_of(algorithm)
    rate = share if phase is None else float(phase.batch_size is None)
    if rate < 1:
        try:
            require_accountants()
        except MissingExtra as error:
            yield error


def promise(
    algorithm: Any,
    stages: Sequence[UpdateStage],
    collector: Collection,
    sampling: Sampling = "uniform",
    epoch: int | None = None,
) -> dict[str, Any] | None:
    """What record and message log say; None without noise.

    Args:
        algorithm: of the method.
        stages: of its updates.
        collector: of its updates.
        sampling: how cohorts are drawn.
        epoch: rounds in which a client takes part at most once; None where nothing keeps it from more.
    """
    if (phase := phase_of(algorithm)) is not None:
        return statement(phase)
    clip, noise = _stage(stages, Clip), _stage(stages, GaussianNoise)
    if noise is not None and clip is not None:
        return _local(clip, noise)
    if isinstance(collector, ClippedMean):
        chance = sampling == "poisson"
        relation = {"relation": "add-remove" if chance else "zero-out", "sampling": "poisson" if chance else "none"}
        return {**collector.promise(), **relation, **({} if epoch is None else {"epoch": epoch})}
    return _masked(collector)


def _masked(collector: Collection) -> dict[str, Any] | None:
    """The promise of a collector that words its own."""
    told: dict[str, Any] = collector.statement() if hasattr(collector, "statement") else {}
    return told.get("differential_privacy")


def _stage(stages: Sequence[UpdateStage], kind: type) -> Any:
    return next((stage for stage in stages if isinstance(stage, kind)), None)


def _local(clip: Clip, noise: GaussianNoise) -> dict[str, Any]:
    return {
        "unit": "user",
        "relation": "replace",
        "protects": "what a client sends in all rounds",
        "mechanism": "local Gaussian noise on every clipped update",
        "noise_multiplier": noise.deviation / (2 * clip.norm),
        "sampling": "none",
        "clip": clip.norm,
        "delta": noise.delta,
        "not_covered": [
            "that a client took part, and the number of its records, which is the weight of its update",
            "metrics that a method sends along",
            "set-up messages",
            "evaluations",
            "choice of settings on the same data",
        ],
    }


def promise_faults(
    algorithm: Any,
    name: str,
    stages: Sequence[UpdateStage],
    collector: Collection,
    sampling: Sampling = "uniform",
) -> Iterator[ConfigError]:
    """Why noise would promise nothing under these settings."""
    yield from record_faults(algorithm, name)
    noise, users = _stage(stages, GaussianNoise), isinstance(collector, ClippedMean)
    masked = _masked(collector) is not None
    found = {
        "work.noise": phase_of(algorithm) is not None,
        "stage gaussian_noise": noise is not None,
        "noise of the collector": users,
        "collector secagg": masked,
    }
    given = [what for what, there in found.items() if there]
    if len(given) > 1:
        yield ConfigError(
            f'"{name}" has noise by {" and ".join(given)}', mend="Keep one: their promises do not add up."
        )
    if noise is not None and not any(isinstance(stage, Clip) for stage in stages[: list(stages).index(noise)]):
        yield ConfigError("stage gaussian_noise bounds nothing by itself", mend="Put a stage clip before it.")
    if (noise is not None or users) and getattr(algorithm, "federates", False) and entry_of(algorithm) is None:
        yield ConfigError(
            f'noise on updates cannot protect "{name}": clients send more than one vector, or nobody has looked',
            mend='Take a method such as kind = "fedavg".',
        )
    if isinstance(collector, ClippedMean) and collector.needs_epochs and sampling != "epochs":
        yield ConfigError(
            "noise on prefix sums counts on clients that take part at most once in an epoch",
            mend='Set run.sampling = "epochs".',
        )
    if masked and getattr(algorithm, "federates", False) and not _counts_alike(algorithm):
        yield ConfigError(
            f'noise under masks ignores weights, but "{name}" is another method without them, or nobody has looked',
            mend='Leave noise_multiplier and clip out, or take a method such as kind = "fedavg".',
        )


class Spending:
    """What the clients of one round release.

    Args:
        algorithm: of the trial.
        told: its promise.
        share: probability with which a client is in the cohort.
    """

    def __init__(self, algorithm: Algorithm, told: dict[str, Any], share: float) -> None:
        self._phase: Phase | None = phase_of(algorithm)
        self._released: dict[int, tuple[float, int]] = {}
        self._hidden = told["unit"] == "user" and told["sampling"] == "poisson"
        if self._hidden:
            self._released[EVERYONE] = (share, 1)

    def note(self, client: int, records: int, steps: int) -> None:
        """A client has sent something.

        Args:
            client: who.
            records: on which it has trained.
            steps: that it did.
        """
        if self._phase is not None:
            self._released[client] = (sampling_rate(self._phase, records), steps)
        elif not self._hidden:
            self._released[client] = (1.0, 1)

    def event(self, multiplier: float | None = None) -> dict[str, Any]:
        """For the round's event.

        Args:
            multiplier: of the noise in this round, where it is not that of the promise.
        """
        noises = {} if multiplier is None else {"noise": [multiplier] * len(self._released)}
        return {
            "clients": list(self._released),
            "sampling": [sampling for sampling, _ in self._released.values()],
            "steps": [steps for _, steps in self._released.values()],
            **noises,
        }

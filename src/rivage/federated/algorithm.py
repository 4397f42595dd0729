"""The protocol of a federated algorithm, and the values its hooks exchange.

An algorithm is one frozen dataclass of hyper-parameters, written for ONE client and run for many. The last axis of
every array is the flat parameter vector D; per-client scalars have shape ``[..., 1]``; so the same code broadcasts
over a stack of clients unchanged. Hooks get and return torch tensors of the run's dtype and device; engines know no
algorithm, algorithms know no engine.

A round, as the engine plays it::

    cohort    = select(state, candidates, streams, task)
    down      = broadcast(state, client, task)                        one per client, shared when it is one object
    local     = start(down, memory, data, losses, streams, task)      on the client
    local     = <executor runs cohort.work on local>                  the only place where gradients are taken
    update    = finish(local, task)                                   payload leaves the device, memory never does
    state     = aggregate(state, sums | updates, task)

Optional hooks are the protocols `Adapts`, `Corrects` and `Steps`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from jaxtyping import Float, Float64
from numpy import ndarray
from torch import Tensor

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData, ClientIds
from rivage.federated.cohorts import Candidates

if TYPE_CHECKING:
    from rivage.learning.neighbours import Neighbours
    from rivage.learning.task import Task

__all__ = [
    "Adapts",
    "Algorithm",
    "Cohort",
    "Corrects",
    "Local",
    "LocalWork",
    "Mean",
    "Phase",
    "Predictor",
    "Pull",
    "Reference",
    "State",
    "Steps",
    "Update",
]

State = Mapping[str, Tensor]
"""Named tensors, scalars as 0-d tensors: a server's state or a client's memory, saved without further help."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a method comes from.

    Args:
        key: citation key, ``mcmahan17``.
        authors: as the paper prints them.
        title: of the paper.
        venue: where it appeared.
        year: when.
        arxiv: identifier, if there is one.
        part: which algorithm, equation or section is implemented.
        entry: BibTeX type, ``inproceedings``, ``article``, ``book`` or ``misc``.
    """

    key: str
    authors: str
    title: str
    venue: str
    year: int
    arxiv: str = ""
    part: str = ""
    entry: str = "inproceedings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of local training with one setting.

    Args:
        epochs: passes over the training records; with ``updates`` set it is ignored.
        updates: number of mini-batch steps instead of passes; None counts passes.
        batch_size: records per step, >= 1; None takes all records in one step (B = ∞).
        batches: ``shuffle`` (every pass a new permutation), ``poisson`` (each record independently with rate
            batch_size / n) or ``endless`` (the loader's position survives rounds).
        train: parts of the model that learn, by name (``"head"``, ``"body.0.weight"``); ``"@head"`` is the last linear
            layer, whatever it is called, ``"@body"`` all the rest; empty means all.
        denominator: the batch loss is divided by its ``rows`` or by the ``expected`` batch size.
        clip: largest Euclidean norm of one record's gradient, over all groups together, > 0: what is longer is scaled
            down before records are summed. None clips nothing.
        noise: multiplier z of Gaussian noise, > 0: every step adds N(0, (z · clip)²) to each coordinate of the sum of
            clipped gradients, before it is divided. It needs ``clip``, ``poisson`` batches and the ``expected``
            denominator, without which it would promise nothing. None adds none.
        delta: δ at which the ε of this noise is told, in (0, 1); far below 1 / records.
    """

    epochs: int = 1
    updates: int | None = None
    batch_size: int | None = field(default=32, metadata={"none": "all"})
    batches: Literal["shuffle", "poisson", "endless"] = "shuffle"
    train: tuple[str, ...] = ()
    denominator: Literal["rows", "expected"] = "rows"
    clip: float | None = field(default=None, metadata={"none": "off"})
    noise: float | None = field(default=None, metadata={"none": "off"})
    delta: float = 1e-5

    def __post_init__(self) -> None:
        require(self.epochs, "epochs", least=0)
        if self.updates is not None:
            require(self.updates, "updates", least=0)
        if self.batch_size is not None:
            require(self.batch_size, "batch_size", least=1)
        if self.clip is not None:
            require(self.clip, "clip", above=0)
        if self.batches == "endless" and self.updates is None:
            raise ConfigError("endless batches have no end of pass to count", mend="Set updates.")
        if not 0 < self.delta < 1:
            raise ConfigError(f"delta is {self.delta}", mend="Give a probability above 0 and below 1.")
        if self.noise is not None:
            require(self.noise, "noise", above=0)
            self._require_private()

    def _require_private(self) -> None:
        """Refuse noise under which no bound holds for one record."""
        if self.clip is None:
            raise ConfigError("noise without clip hides nothing: one gradient may be of any length", mend="Set clip.")
        if self.batches != "poisson":
            raise ConfigError(
                f"noise is accounted for batches drawn by chance, not for {self.batches} batches",
                mend='Set batches = "poisson".',
            )
        if self.denominator != "expected":
            raise ConfigError(
                "noise with denominator rows divides by a number that tells how many records were drawn",
                mend='Set denominator = "expected".',
            )


@dataclass(frozen=True, slots=True)
class LocalWork:
    """What every client of a cohort does between `start` and `finish`.

    Args:
        phases: run in order.
        learning_rate: step size of plain SGD, > 0.
    """

    phases: tuple[Phase, ...]
    learning_rate: float

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)


@dataclass(frozen=True, slots=True)
class Cohort:
    """Who takes part in a round.

    Args:
        ids: distinct clients.
        weights: importance of each, >= 0, not normalised.
        work: what they do; None is an exchange without training.
    """

    ids: ClientIds
    weights: Float64[ndarray, "cohort"]
    work: LocalWork | None


@dataclass(frozen=True, slots=True)
class Pull:
    """Adds ``strength · (w − anchor)`` to the gradient: a proximal term.

    Args:
        strength: one for all groups, or one per group; 0 leaves a group alone.
        anchor: one for all groups, or one per group.
    """

    strength: float | Float[Tensor, "groups 1"]
    anchor: Float[Tensor, "*groups dim"]


@dataclass(slots=True)
class Local:
    """One client's training job: set by `start`, filled by the executor, read by `finish`.

    Args:
        params: where each group starts and, after training, where it ended.
        weights: weight of each training record (by row) in each group's loss; batches are divided by their rows,
            never by the sum of weights. None means 1.
        pull: proximal term, fixed at `start`.
        drift: constant vector added to the gradient, fixed at `start`.
        extra: tensors for `correct` and `step`, which may replace them.
        keep: tensors carried from `start` to `finish` untouched.
        weight: importance of the client in this cohort (filled by the engine).
        steps: number of SGD steps done (filled by the executor).
        records: number of training records held (filled by the executor).
        rate: step size used (filled by the executor).
        gradients: number of records differentiated, over all steps and groups (filled by the executor).
    """

    params: Float[Tensor, "groups dim"]
    weights: Float[Tensor, "records groups"] | None = None
    pull: Pull | None = None
    drift: Float[Tensor, "groups dim"] | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)
    keep: dict[str, Tensor] = field(default_factory=dict)
    weight: float = 1.0
    steps: int = 0
    records: int = 0
    rate: float = 0.0
    gradients: int = 0


@dataclass(slots=True)
class Update:
    """What a client returns.

    Args:
        payload: all that leaves the device; each vector with its own weight.
        metrics: named numbers, sent along; the record holds their mean over the cohort.
        memory: what stays on the device until it takes part again; None keeps what was there.
        client: who sent it (filled by the engine).
        version: round of the broadcast this update answers (filled by the engine).
    """

    payload: Mapping[str, tuple[Tensor, float]]
    metrics: Mapping[str, float] = field(default_factory=dict)
    memory: State | None = None
    client: int = -1
    version: int = -1


@dataclass(frozen=True, slots=True)
class Mean:
    """Weighted mean of one payload entry over the updates that arrived, and the sum of their weights."""

    mean: Tensor
    weight: float

    @property
    def total(self) -> Tensor:
        """Weighted sum."""
        return self.mean * self.weight


@dataclass(frozen=True, slots=True)
class Predictor:
    """A client's personal model, declared rather than run, so that evaluation can be stacked.

    Args:
        params: one parameter vector per group.
        mix: weight of each group's prediction (probabilities, or real outputs), on the simplex.
        neighbours: remembered records that predict beside the groups, compared by the features of the first group;
            None without.
    """

    params: Float[Tensor, "groups dim"]
    mix: Float[Tensor, "groups"]
    neighbours: Neighbours | None = None


@runtime_checkable
class Algorithm(Protocol):
    """A federated algorithm."""

    reference: ClassVar[Reference]
    needs: ClassVar[Literal["sum", "each"]]
    """``each`` wants single updates and is refused under secure aggregation."""
    needs_losses: ClassVar[bool]
    """Whether `start` and `adapt` get the loss of every local record under each row of the broadcast's ``params``."""
    federates: ClassVar[bool]
    """False for methods without exchange: no round is played, only `adapt` runs."""

    def init(self, task: Task, clients: int, streams: Streams) -> State:
        """Server state before round 0; ``clients`` is how many may ever take part."""
        ...

    def select(self, state: State, candidates: Candidates, streams: Streams, task: Task) -> Cohort:
        """Who takes part, with which weights, doing what."""
        ...

    def broadcast(self, state: State, client: int, task: Task) -> State | None:
        """What goes down to one client; the same object for all is sent and stored once."""
        ...

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Float[Tensor, "records groups"] | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """The training job of one client."""
        ...

    def finish(self, local: Local, task: Task) -> Update:
        """What the client returns once the executor has trained."""
        ...

    def aggregate(self, state: State, received: Any, task: Task) -> State:
        """The next server state, from ``Mapping[str, Mean]`` or ``Sequence[Update]`` as `needs` says.

        Called when at least one update was accepted. The mapping is empty after a round in which no client sent a
        payload.
        """
        ...

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The personal model of one client; ``local`` is what `adapt` trained, if it did.

        Without memory and ``local`` it is asked for the general model, for clients nobody knows yet.
        """
        ...


@runtime_checkable
class Adapts(Protocol):
    """Personalisation that trains before a prediction; newcomers get it too. Nothing is sent."""

    @property
    def adaptation(self) -> LocalWork | None:
        """What the executor runs on the job that `adapt` returns; None leaves the job as it is."""
        ...

    def adapt(
        self,
        state: State,
        memory: State,
        data: ClientData,
        losses: Float[Tensor, "records groups"] | None,
        streams: Streams,
        task: Task,
    ) -> Local | None:
        """The job; None when this client needs none."""
        ...


@runtime_checkable
class Corrects(Protocol):
    """Elementwise correction of gradients where pull and drift do not suffice."""

    def correct(self, extra: dict[str, Tensor], params: Tensor, gradients: Tensor) -> Tensor:
        """The gradients to descend along, same shape; sees the old parameters."""
        ...


@runtime_checkable
class Steps(Protocol):
    """An update rule of its own: vector algebra on the groups, given a gradient oracle for the current batch.

    Pull and drift are not applied, and `adapt`'s jobs go through it as well; ``extra`` can tell them apart. The oracle
    writes buffers, where the model has some, into the tensor it is given.
    """

    def step(
        self, extra: dict[str, Tensor], params: Tensor, gradient: Callable[[Tensor], Tensor], rate: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """New parameters and new extra."""
        ...

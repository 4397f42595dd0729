"""What happens to an update between the client and the server: clip it, choose coordinates, round numbers.

Stages act in order on each entry of a payload, flattened to one vector in the run's dtype. An entry that was broadcast
under the same name and shape travels as its difference to the broadcast, the model update, and the server adds the
broadcast back; another one travels as it is. Entries of whole numbers pass untouched. Without stages nothing is
subtracted and nothing is rounded.

Error feedback: a stage with ``feedback`` keeps what it, and the stages behind it, did not send. With v what enters that
stage and e the client's residual, zero at first,

    u = v + e,   sent = C(u),   e' = u − C(u),

so that the vectors sent in T rounds and the last residual add up to the vectors that were to be sent, to rounding. The
residual never leaves the device. A client that takes part rarely sends a stale one.

References:
    Karimireddy, Rebjock, Stich, Jaggi. Error feedback fixes SignSGD and other gradient compression schemes. ICML 2019,
    arXiv 1901.09847, Algorithm 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray
from torch import Tensor

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.core.settings import combine
from rivage.federated.algorithm import State, Update
from rivage.learning.params import from_numpy, to_numpy

__all__ = ["Encoded", "Pipeline", "Transmitted", "UpdateStage", "narrow", "order_faults"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """What one stage makes of a vector.

    Args:
        vector: the numbers, or codes of numbers, that the next stage gets; not always as many as came in.
        side: further arrays the server needs to undo the stage; they travel beside the vector.
    """

    vector: Shaped[ndarray, "k"]
    side: Mapping[str, Shaped[ndarray, "..."]] = field(default_factory=dict)


@runtime_checkable
class UpdateStage(Protocol):
    """One step between the client and the server, a frozen dataclass of settings.

    Attributes:
        linear: whether decode(encode(u)) + decode(encode(v)) = decode(encode(u + v)): the stage may stand before
            secure aggregation.
        role: ``bounds`` stages change numbers and keep their meaning, ``chooses`` stages send some of them, ``rounds``
            stages turn them into codes. They may only stand in this order.
    """

    linear: ClassVar[bool]
    role: ClassVar[Literal["bounds", "chooses", "rounds"]]

    @property
    def feedback(self) -> bool:
        """Whether the client keeps what this stage and those behind it did not send."""
        ...

    def encode(self, vector: Float[ndarray, "d"], streams: Streams) -> Encoded:
        """On the client; the vector is not written to. NaN and infinity must stay visible to the server."""
        ...

    def decode(self, encoded: Encoded, dimension: int) -> Float[ndarray, "d"]:
        """On the server: a vector of the length that `encode` got, from what it made."""
        ...

    def sends(self, dimension: int) -> int:
        """How many numbers the next stage gets when this one gets ``dimension``."""
        ...

    def nbytes(self, dimension: int) -> int:
        """Exact bytes of vector and side arrays in a float32 run when no stage follows; framing is not counted."""
        ...


@dataclass(frozen=True, slots=True)
class Transmitted:
    """One update on its way.

    Args:
        payload: arrays as on the wire, by entry; side arrays are called ``entry.stage.name`` with the position of
            their stage. Weights and metrics are the engine's to add.
        update: as the server decodes it.
        residuals: what was not sent, by entry, flat; empty without error feedback. Never leaves the device.
    """

    payload: dict[str, Shaped[ndarray, "..."]]
    update: Update
    residuals: State


class Pipeline:
    """Stages in their order.

    Args:
        stages: none leaves updates as they are.

    Raises:
        ConfigError: for an order that cannot be sound, listing every fault.
    """

    def __init__(self, stages: Sequence[UpdateStage]) -> None:
        if faults := list(order_faults(stages)):
            raise combine(faults)
        self.stages = tuple(stages)
        # Position of the stage whose residual is kept; behind the last one if none is.
        self._cut = next((number for number, stage in enumerate(stages) if stage.feedback), len(self.stages))

    def transmit(self, update: Update, down: State, residuals: State, streams: Streams) -> Transmitted:
        """Send an update.

        Args:
            update: what the client wants to send.
            down: what was broadcast to it.
            residuals: what it did not send before; an entry of another length starts anew.
            streams: of this client and round.
        """
        if not self.stages:
            return Transmitted({name: to_numpy(tensor) for name, (tensor, _) in update.payload.items()}, update, {})
        payload: dict[str, ndarray] = {}
        received: dict[str, tuple[Tensor, float]] = {}
        kept: dict[str, Tensor] = {}
        for name, (tensor, weight) in update.payload.items():
            if not tensor.is_floating_point():
                payload[name], received[name] = to_numpy(tensor), (tensor, weight)
                continue
            base = _base(name, tensor, down)
            wanted = to_numpy(tensor if base is None else tensor - base).reshape(-1)
            sent, residual = self._encode(name, wanted, residuals.get(name), streams.child(name))
            decoded = from_numpy(self.decode(name, sent, wanted.size), dtype=tensor.dtype, device=tensor.device)
            decoded = decoded.reshape(tensor.shape)
            payload |= sent
            received[name] = (decoded if base is None else decoded + base, weight)
            if residual is not None:
                kept[name] = from_numpy(residual)
        return Transmitted(payload, replace(update, payload=received), kept)

    def decode(self, name: str, payload: Mapping[str, Shaped[ndarray, "..."]], dimension: int) -> Float[ndarray, "d"]:
        """One entry from the wire alone: what the server adds to the broadcast, if the entry was broadcast.

        Args:
            name: of the entry.
            payload: arrays as on the wire.
            dimension: numbers of the entry, which the server knows.
        """
        return self._undo(name, payload, self._lengths(dimension), 0)

    def nbytes(self, dimension: int) -> int:
        """Exact bytes of one entry on the wire in a float32 run, without its weight and framing."""
        if not self.stages:
            return 4 * dimension
        *before, last = self.stages
        lengths = self._lengths(dimension)
        side = sum(stage.nbytes(d) - 4 * stage.sends(d) for stage, d in zip(before, lengths, strict=False))
        return side + last.nbytes(lengths[-1])

    def _lengths(self, dimension: int) -> list[int]:
        """How many numbers each stage gets."""
        lengths: list[int] = []
        for stage in self.stages:
            lengths.append(dimension)
            dimension = stage.sends(dimension)
        return lengths

    def _encode(
        self, name: str, vector: ndarray, residual: Tensor | None, streams: Streams
    ) -> tuple[dict[str, ndarray], ndarray | None]:
        """The arrays on the wire, and what they leave unsent."""
        lengths = self._lengths(vector.size)
        sent: dict[str, ndarray] = {}
        intended = None
        for number, stage in enumerate(self.stages):
            if number == self._cut:
                vector = intended = _added(vector, residual)
            encoded = stage.encode(vector, streams.child(number))
            vector = encoded.vector
            sent |= {f"{name}.{number}.{key}": array for key, array in encoded.side.items()}
        sent[name] = vector
        if intended is None:
            return sent, None
        return sent, _missed(intended, self._undo(name, sent, lengths, self._cut))

    def _undo(self, name: str, payload: Mapping[str, ndarray], lengths: Sequence[int], first: int) -> ndarray:
        """What the stages from the end to ``first`` decode."""
        vector = payload[name]
        for number in range(len(self.stages) - 1, first - 1, -1):
            prefix = f"{name}.{number}."
            side = {key.removeprefix(prefix): array for key, array in payload.items() if key.startswith(prefix)}
            vector = self.stages[number].decode(Encoded(vector, side), lengths[number])
        return vector


def _base(name: str, tensor: Tensor, down: State) -> Tensor | None:
    """What was broadcast under the same name and shape."""
    base = down.get(name)
    return base if base is not None and base.shape == tensor.shape else None


def _added(vector: ndarray, residual: Tensor | None) -> ndarray:
    if residual is None or residual.numel() != vector.size:
        return vector
    total: ndarray = vector + to_numpy(residual).astype(vector.dtype)
    return total


def _missed(intended: ndarray, arrived: ndarray) -> ndarray | None:
    """What did not arrive; nothing is kept of an update that the server will reject."""
    with np.errstate(invalid="ignore"):
        missed: ndarray = intended - arrived.astype(intended.dtype)
    return missed if bool(np.isfinite(missed).all()) else None


def narrow(vector: Float[ndarray, "d"], dtype: type[np.floating[Any]]) -> Float[ndarray, "d"]:
    """Round to a narrower type, to nearest even; finite numbers beyond its range become its largest.

    NaN and infinity stay what they are, so that the server sees that a client diverged.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        rounded: ndarray = vector.astype(dtype)
    beyond = np.isinf(rounded) & np.isfinite(vector)
    rounded[beyond] = np.copysign(np.finfo(dtype).max, rounded[beyond])
    return rounded


_WHY = {
    ("chooses", "bounds"): "a norm is bounded before coordinates are left out",
    ("chooses", "chooses"): "the second would choose among what the first sends",
    ("rounds", "bounds"): "codes of rounded numbers have no norm",
    ("rounds", "chooses"): "codes of rounded numbers cannot be compared",
    ("rounds", "rounds"): "codes of rounded numbers cannot be rounded again",
}


def order_faults(stages: Sequence[UpdateStage]) -> Iterator[ConfigError]:
    """What is unsound about this order, every fault once."""
    names = [type(stage).__name__ for stage in stages]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield ConfigError(f"stage {name} stands there {names.count(name)} times", mend="Keep one of them.")
    for before, after in combinations(dict(zip(names, stages, strict=True)).values(), 2):
        if why := _WHY.get((before.role, after.role)):
            yield ConfigError(
                f"stage {type(after).__name__} stands behind {type(before).__name__}: {why}",
                mend=_mend(before, after),
            )


def _mend(before: UpdateStage, after: UpdateStage) -> str:
    first, second = type(before).__name__, type(after).__name__
    return "Keep one of the two." if before.role == after.role else f"Put {second} before {first}."

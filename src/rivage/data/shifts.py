"""Heterogeneity on top of a split: clients that see other features, or mean other things by the same labels.

A shift is a frozen dataclass whose `apply` is a pure function of the seed and the client: no client's shift
depends on who else is there, except that a share of the clients is a share of exactly this population.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64, Shaped
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.core.registry import Registry
from rivage.core.seeding import Streams
from rivage.data.dataset import Arrays

__all__ = ["SHIFTS", "ConceptShift", "FeatureShift", "Shift"]


@runtime_checkable
class Shift(Protocol):
    """A registered kind of ``[shift]``."""

    def apply(self, records: Arrays, client: int, size: int, streams: Streams) -> Arrays:
        """The records of one client of ``size``, shifted; all its records alike, test records too."""
        ...


@dataclass(frozen=True, slots=True)
class FeatureShift:
    """Each client sees the world through its own device: x -> c · R(φ) x + s · noise.

    Every client draws once: angle φ ~ U(−rotation, rotation), factor c with log c ~ U(−scale, scale), noise
    level s ~ U(0, noise); the noise itself is standard normal for every number.

    Args:
        rotation: largest angle in degrees, in [0, 180]. Images turn about their centre (bilinear, zero
            outside); vectors turn in the planes of features (0, 1), (2, 3), …, which keeps their norm.
        scale: largest log of the factor, >= 0; 0.7 is about half to double.
        noise: largest standard deviation of the noise, in units of the inputs, >= 0.
    """

    rotation: float = 0.0
    scale: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rotation", "scale", "noise"):
            require(getattr(self, name), name, least=0.0)
        if self.rotation > 180:
            raise ConfigError(f"rotation is {self.rotation}", mend="Give at most 180 degrees.")

    def apply(self, records: Arrays, client: int, size: int, streams: Streams) -> Arrays:
        """The same targets seen with shifted inputs. O(size of the records)."""
        if records.schema.target == "tokens":
            raise ConfigError("tokens cannot be turned or scaled", where="[shift]", mend="Remove [shift].")
        rng = streams.numpy(client)
        angle, factor = rng.uniform(-1, 1, 2) * (self.rotation, self.scale)
        level = rng.uniform(0, self.noise) if self.noise else 0.0
        x = _rotate(records.x, angle) if self.rotation else records.x
        x = x * np.float32(np.exp(factor)) + np.float32(level) * rng.standard_normal(x.shape, np.float32)
        return Arrays(x, records.y, records.schema)


@dataclass(frozen=True, slots=True)
class ConceptShift:
    """A share of the clients mean other classes by the same inputs: no single model can serve everyone.

    Args:
        share: share of the clients that are shifted, in [0, 1]; rounded to whole clients, chosen at random.
        offset: their class y becomes (y + offset) mod C; left out, each of them gets a random relabelling
            of its own in which no class keeps its name.
    """

    share: float = 0.5
    offset: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"share is {self.share}", mend="Give a share from 0 to 1.")

    def apply(self, records: Arrays, client: int, size: int, streams: Streams) -> Arrays:
        """The same inputs with the client's classes. O(records + size)."""
        if records.schema.target != "class":
            raise ConfigError(
                "a concept shift relabels classes, but the target is no class",
                where="[shift]",
                mend='Use kind = "features", or remove [shift].',
            )
        chosen = streams.numpy("share").permutation(size)[: round(self.share * size)]
        if client not in chosen:
            return records
        names = self._relabelling(records.schema.num_classes, streams.numpy("names", client))
        return Arrays(records.x, names[records.y], records.schema)

    def _relabelling(self, num_classes: int, rng: np.random.Generator) -> Int64[ndarray, "classes"]:
        if self.offset is not None:
            return (np.arange(num_classes) + self.offset) % num_classes
        cycle = rng.permutation(num_classes)  # a random cycle through all classes leaves none in place
        names = np.empty(num_classes, np.int64)
        names[cycle] = np.roll(cycle, -1)
        return names


SHIFTS = Registry(
    "rivage.shifts",
    "shift",
    {"concept": "rivage.data.shifts:ConceptShift", "features": "rivage.data.shifts:FeatureShift"},
)


def _rotate(x: Shaped[ndarray, "n *input"], angle: float) -> Float32[ndarray, "n *input"]:
    """Images about their centre, vectors in the planes of neighbouring features; ``angle`` in degrees."""
    if x.ndim > 2:
        from scipy.ndimage import rotate

        turned: Float32[ndarray, "n *input"] = rotate(x, angle, axes=(-1, -2), reshape=False, order=1)
        return turned
    cosine, sine = np.float32(np.cos(np.radians(angle))), np.float32(np.sin(np.radians(angle)))
    even, odd = x[:, 0 : x.shape[1] // 2 * 2 : 2], x[:, 1::2]
    result = x.copy()
    result[:, 0 : x.shape[1] // 2 * 2 : 2] = cosine * even - sine * odd
    result[:, 1::2] = sine * even + cosine * odd
    return result

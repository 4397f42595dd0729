"""Mechanisms that claim what they do not keep, planted to see whether an audit finds them; for tests and claims."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from jaxtyping import Float64
from numpy import ndarray

from rivage.core.seeding import Streams
from rivage.federated.algorithm import Mean, State
from rivage.federated.clipped_sum import Moment
from rivage.federated.dp_ftrl import DPFTRL, TreeSum
from rivage.federated.user_privacy import PrivateMean, PrivateSum

__all__ = ["ClippingLeftOut", "QuarterOfTheNoise", "QuarterOfTheTree", "TheSameNoiseEveryRound"]


class QuarterOfTheNoise(PrivateMean):
    """Adds a quarter of the noise that it claims."""

    def on_sums(self, clients: float) -> float:
        """A quarter of the multiplier."""
        return super().on_sums(clients) / 4


class QuarterOfTheTree(DPFTRL):
    """Adds a quarter of the noise that it claims to every node of its tree."""

    def summed(self) -> TreeSum:
        """A sum with too little noise."""
        return _Thin(self)


class _Thin(TreeSum):
    def noise(self) -> Float64[ndarray, "dim"]:
        return super().noise() / 4


class ClippingLeftOut(PrivateMean):
    """Adds all the noise, but bounds no update."""

    def summed(self) -> PrivateSum:
        """A sum of updates of any length."""
        return _Unbounded(self)


class _Unbounded(PrivateSum):
    def begin(self, entry: str, state: State, expected: float, moment: Moment) -> None:
        super().begin(entry, state, expected, moment)
        self.claimed, self.clip = self.clip, math.inf

    def result(self) -> Mapping[str, Mean]:
        self.clip = self.claimed
        return super().result()


class TheSameNoiseEveryRound(PrivateMean):
    """Draws its noise from one seed, so that it cancels between rounds."""

    def summed(self) -> PrivateSum:
        """A sum with noise that is always the same."""
        return _OneSeed(self)


class _OneSeed(PrivateSum):
    def begin(self, entry: str, state: State, expected: float, moment: Moment) -> None:
        super().begin(entry, state, expected, replace(moment, streams=Streams(0)))

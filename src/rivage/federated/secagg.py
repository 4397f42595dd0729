"""Secure aggregation as a collector: the server learns the mean of a cohort's updates and no single one.

The clients of a round and the server exchange the messages of SecAgg+ (`rivage.federated.secagg_client`,
`rivage.federated.secagg_server`), with real cryptography, encoded and counted as on the wire::

    broadcast      server → client   the model
    secagg_keys    client → server   two public keys                          server → client   those of its neighbours
    secagg_shares  client → server   shares of its secrets, sealed            server → client   those sealed for it
                   <training>
    secagg_masked  client → server   the update as whole numbers, masked
    secagg_unmask  server → client   who arrived, who did not                 client → server   shares that unmask

A client whose update is lost leaves before its masked numbers; for experiments clients may be made to leave at any
stage. Where fewer than ``survivors`` updates arrive, or too few shares to take the masks off, the round is refused: the
model stays, the round counts.

What is left out: metrics of clients (they would travel in the clear), and entries of integers.

**A simulation.** The protocol is that for servers that follow it and look at all they see (honest but curious); it does
not withstand a server that invents clients or tells different clients different things. All keys come from the seed of
the run. Exchanges are counted in bytes; that they wait for one another is not in the simulated time.

References:
    Bonawitz, Ivanov, Kreuter, Marcedone, McMahan, Patel, Ramage, Segal, Seth. Practical secure aggregation for
    privacy-preserving machine learning. CCS 2017, doi 10.1145/3133956.3133982.
    Bell, Bonawitz, Gascón, Lepoint, Raykova. Secure single-server aggregation with (poly)logarithmic overhead. CCS
    2020.
    Kairouz, Liu, Steinke. The distributed discrete Gaussian mechanism for federated learning with secure aggregation.
    ICML 2021, arXiv 2102.06387 (noise under the mask; we do not rotate, the range of the grid is wide enough).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.federated.algorithm import Reference
from rivage.federated.privacy_ledger import CONCENTRATED
from rivage.federated.secagg_coding import Coding, Entry, Noisy, Weighted
from rivage.federated.secagg_field import Grid, Ring
from rivage.federated.secagg_keys import require_cryptography
from rivage.federated.secagg_round import Secured
from rivage.federated.stages import UpdateStage

__all__ = ["SecAgg"]

_TAILS = 16  # standard deviations of noise for which the modulus has room


@dataclass(frozen=True, kw_only=True)
class SecAgg:
    """Sums under masks.

    Args:
        clipping_range: largest size of a coordinate, of the difference to the broadcast times its relative weight, > 0.
        quantisation_bits: the range is cut in 2^bits steps, 2 to 32.
        modulus_bits: sums are modulo 2^bits.
        max_weight: largest weight of an update, > 0: one with more stops the run. ``"auto"`` takes the largest in the
            cohort, at least 1, which the server knows.
        rounding: ``stochastic`` (right on average) or ``nearest``.
        neighbours: clients that each client exchanges masks with, rounded up to an even number; ``"auto"`` takes
            6 log₂ of the cohort. In small cohorts, all others.
        threshold: share of the holders of a secret that must be exceeded to recover it, 1/2 <= threshold < 1.
        survivors: smallest number of updates whose sum the server may see, >= 2.
        dropouts: probability that a client leaves before it sends keys, shares, its masked update, and its answer to
            the server's last question, for experiments; besides clients whose update is lost.
        noise_multiplier: of the noise that clients add together, in units of the largest change one client can make
            to the sum, when ``survivors`` updates arrive; needs ``clip``, and weights are ignored. ``"off"`` adds none.
        clip: largest norm of an update, all entries together, at most clipping_range.
        delta: δ at which the ε of this noise is told, in (0, 1).
    """

    reference: ClassVar[Reference] = Reference(
        key="bell20",
        authors="James Henry Bell and Kallista A. Bonawitz and Adrià Gascón and Tancrède Lepoint and Mariana Raykova",
        title="Secure single-server aggregation with (poly)logarithmic overhead",
        venue="CCS",
        year=2020,
        part="SecAgg+, honest but curious",
    )

    clipping_range: float = 8.0
    quantisation_bits: int = 22
    modulus_bits: Literal[16, 32, 64] = 32
    max_weight: float | None = field(default=None, metadata={"none": "auto"})
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    neighbours: int | None = field(default=None, metadata={"none": "auto"})
    threshold: float = 0.5
    survivors: int = 3
    dropouts: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    noise_multiplier: float | None = field(default=None, metadata={"none": "off"})
    clip: float | None = field(default=None, metadata={"none": "off"})
    delta: float = 1e-5

    def __post_init__(self) -> None:
        require(self.clipping_range, "clipping_range", above=0)
        require(self.survivors, "survivors", least=2)
        for name in ("max_weight", "noise_multiplier", "clip"):
            if (value := getattr(self, name)) is not None:
                require(value, name, above=0)
        if self.neighbours is not None:
            require(self.neighbours, "neighbours", least=1)
        if not 2 <= self.quantisation_bits <= 32:
            raise ConfigError(f"quantisation_bits is {self.quantisation_bits}", mend="Give a number from 2 to 32.")
        if not 0.5 <= self.threshold < 1:
            raise ConfigError(f"threshold is {self.threshold}", mend="Give a share of at least 0.5 and below 1.")
        if not all(0 <= share <= 1 for share in self.dropouts):
            raise ConfigError(f"dropouts are {list(self.dropouts)}", mend="Give four probabilities from 0 to 1.")
        if not 0 < self.delta < 1:
            raise ConfigError(f"delta is {self.delta}", mend="Give a probability above 0 and below 1.")
        self._require_clip()

    def _require_clip(self) -> None:
        if (self.clip is None) != (self.noise_multiplier is None):
            raise ConfigError(
                "clip and noise_multiplier belong together", mend='Give both, or clip updates by a stage "clip".'
            )
        if self.clip is not None and self.clip > self.clipping_range:
            raise ConfigError(
                f"clip is {self.clip}, but no coordinate may exceed clipping_range {self.clipping_range}",
                mend="Raise clipping_range.",
            )

    @property
    def grid(self) -> Grid:
        """Of coordinates."""
        return Grid(self.clipping_range, self.quantisation_bits)

    @property
    def ring(self) -> Ring:
        """Where they are added up."""
        return Ring(self.modulus_bits)

    def refusal(self, received: int) -> str | None:
        """Why the sum of so many updates must not be read, or cannot be."""
        if received < self.survivors:
            return f"{received} updates where secure aggregation needs {self.survivors}"
        if not self._fits(received):
            steps = f"{received} updates of 2^{self.quantisation_bits} steps"
            noise = "" if self.noise_multiplier is None else " and their noise"
            return f"{steps}{noise}, whose sum overflows a modulus of 2^{self.modulus_bits}"
        return None

    def _fits(self, clients: int) -> bool:
        if self.noise_multiplier is None or self.clip is None:
            return self.ring.holds(clients, self.quantisation_bits)
        largest = self.clip / self.grid.step
        noise = self.noise_multiplier * largest * math.sqrt(clients / self.survivors)
        return 2 * (clients * (largest + 1) + _TAILS * noise) < 1 << self.modulus_bits

    def coding(self, entries: Sequence[Entry], most: float) -> Coding:
        """How updates of this form become whole numbers; ``most`` is the largest weight."""
        stochastic = self.rounding == "stochastic"
        if self.noise_multiplier is None or self.clip is None:
            return Weighted(self.grid, stochastic, entries, most)
        return Noisy(self.grid, stochastic, entries, self.clip, self.noise_multiplier, self.survivors)

    def most(self, weights: Float64[ndarray, "clients"]) -> float:
        """The largest weight that an update may have, given those of the cohort; with noise, weights do not matter."""
        if self.noise_multiplier is not None:
            return math.inf
        return max(1.0, float(weights.max(initial=0.0))) if self.max_weight is None else self.max_weight

    def faults(self, clients: int, giver: str, mend: str) -> Iterator[ConfigError]:
        """What cannot work for a cohort of so many clients.

        Args:
            clients: asked in a round.
            giver: what gives so many updates, as the start of a sentence.
            mend: what helps against too few, before the setting that could be lower.
        """
        if reason := self.refusal(clients):
            wide = "Raise modulus_bits, or lower quantisation_bits."
            yield ConfigError(f"{giver} {reason}", mend=f"{mend} survivors." if clients < self.survivors else wide)

    def unsound(self, stages: Sequence[UpdateStage]) -> Iterator[ConfigError]:
        """Stages whose output cannot be summed under a mask."""
        for stage in stages:
            if stage.role != "bounds":
                name = type(stage).__name__
                yield ConfigError(
                    f"stage {name} stands before secure aggregation, which sums whole vectors of plain numbers",
                    mend=f"Leave {name} out: a masked coordinate takes {self.modulus_bits // 8} bytes whatever it is.",
                )

    def statement(self) -> dict[str, Any]:
        """What the header of a message log says: nothing that depends on the data."""
        told = {
            "protocol": "SecAgg+",
            "clipping_range": self.clipping_range,
            "quantisation_bits": self.quantisation_bits,
            "modulus_bits": self.modulus_bits,
            "rounding": self.rounding,
            "threshold": self.threshold,
            "survivors": self.survivors,
        }
        if self.noise_multiplier is None:
            return {"secure_aggregation": told}
        privacy = {
            "unit": "user",
            "relation": "zero-out",
            "protects": "what the server reads in all rounds",
            "mechanism": "distributed discrete Gaussian",
            "noise_multiplier": self.noise_multiplier,
            "clip": self.clip,
            "sampling": "none",
            "delta": self.delta,
            "accounting": CONCENTRATED,
            "holds_from": self.survivors,
            "not_covered": [
                "that a client took part",
                "set-up messages",
                "evaluations",
                "choice of settings on the same data",
            ],
        }
        return {"secure_aggregation": told, "differential_privacy": privacy}

    def collector(self, *, each: bool) -> Secured:
        """The collector of one round.

        Raises:
            ConfigError: for methods that want single updates.
            MissingExtra: without the library for cryptography.
        """
        if each:
            raise ConfigError(
                "secure aggregation hides single updates, but the method combines single updates itself",
                mend='Take collector = "mean" for this method, or a method that needs sums only.',
            )
        require_cryptography()
        return Secured(self)

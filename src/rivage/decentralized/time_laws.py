"""Laws of how long the work of a round takes, as factors of mean 1 that multiply the mean of each silo.

A law gives three things: its quantile function, by which times are drawn from uniforms (so that two graphs, or two
laws, meet the same luck); the mean of the largest of n, how long n silos take that all wait for one another; and
ln E e^{θX}, from which bounds on sparse graphs follow (`rivage.decentralized.stragglers`).

====================== ================================== ===================================== ====================
kind                   X                                  E max of n                            ln E e^{θX}
====================== ================================== ===================================== ====================
``constant``           1                                  1                                     θ
``exponential``        E, of mean 1                       H_n = 1 + 1/2 + … + 1/n               −ln(1 − θ), θ < 1
``shifted``            s + (1 − s) E                      s + (1 − s) H_n                       θs − ln(1 − θ(1 − s))
``uniform``            on [l, 2 − l]                      l + 2 (1 − l) n / (n + 1)             closed form
``pareto``             shape a > 1, least x = (a − 1)/a   x Γ(n+1) Γ(1−1/a) / Γ(n+1−1/a)        infinite
``lognormal``          exp(σZ − σ²/2)                     by quadrature                         infinite
``stalls``             1, or f with probability p; / mean closed form                           closed form
``trace``              one of the given times; / mean     exact sum                             exact sum
====================== ================================== ===================================== ====================

Where ln E e^{θX} is infinite for all θ > 0 the tail is heavy: rare rounds last very long.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import ConfigError, DataError, require
from rivage.core.registry import Registry

__all__ = [
    "LAWS",
    "Constant",
    "Exponential",
    "Law",
    "LogNormal",
    "Pareto",
    "ShiftedExponential",
    "Stalls",
    "Trace",
    "Uniform",
    "harmonic",
]

_LEAST = 2.0**-54  # stands for a uniform of 0 where its quantile is infinite


@runtime_checkable
class Law(Protocol):
    """A law of positive factors X with E X = 1."""

    def quantile(self, uniform: Float64[ndarray, "*n"]) -> Float64[ndarray, "*n"]:
        """The inverse distribution function at each number in [0, 1)."""
        ...

    def mean_of_max(self, count: int) -> float:
        """E of the largest of ``count`` independent draws."""
        ...

    def log_moment(self, theta: float) -> float:
        """Of θ > 0: ln E e^{θX}, inf where it is infinite."""
        ...


def harmonic(count: int) -> float:
    """H_n = 1 + 1/2 + … + 1/n."""
    return float(np.sum(1 / np.arange(1, count + 1)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Constant:
    """Always the mean."""

    def quantile(self, uniform: Float64[ndarray, "*n"]) -> Float64[ndarray, "*n"]:
        """Ones."""
        return np.ones_like(uniform)

    def mean_of_max(self, count: int) -> float:
        """One."""
        return 1.0

    def log_moment(self, theta: float) -> float:
        """θ."""
        return theta


@dataclass(frozen=True, kw_only=True, slots=True)
class ShiftedExponential:
    """A part that is always there, and an exponential one: s + (1 − s) E.

    Args:
        shift: s in [0, 1): the share of the mean that no round falls below.
    """

    shift: float = 0.5

    def __post_init__(self) -> None:
        require(self.shift, "shift", least=0)
        if self.shift >= 1:
            raise ConfigError(f"shift is {self.shift}", mend='Give a number below 1, or kind = "constant".')

    def quantile(self, uniform: Float64[ndarray, "*n"]) -> Float64[ndarray, "*n"]:
        """At u: s − (1 − s) ln(1 − u)."""
        return np.asarray(self.shift - (1 - self.shift) * np.log1p(-uniform))

    def mean_of_max(self, count: int) -> float:
        """Of n: s + (1 − s) H_n."""
        return self.shift + (1 - self.shift) * harmonic(count)

    def log_moment(self, theta: float) -> float:
        """θs − ln(1 − θ(1 − s)), inf from θ = 1/(1 − s) on."""
        rest = 1 - theta * (1 - self.shift)
        return float(theta * self.shift - np.log(rest)) if rest > 0 else np.inf


@dataclass(frozen=True, kw_only=True, slots=True)
class Exponential:
    """Without memory: the standard deviation is the mean."""

    def quantile(self, uniform: Float64[ndarray, "*n"]) -> Float64[ndarray, "*n"]:
        """−ln(1 − u)."""
        return np.asarray(-np.log1p(-uniform))

    def mean_of_max(self, count: int) -> float:
        """H_n."""
        return harmonic(count)

    def log_moment(self, theta: float) -> float:
        """−ln(1 − θ), inf from θ = 1 on."""
        return float(-np.log1p(-theta)) if theta < 1 else np.inf


@dataclass(frozen=True, kw_only=True, slots=True)
class Uniform:
    """All between two ends alike.

    Args:
        least: the lower end l in [0, 1); the upper one is 2 − l.
    """

    least: float = 0.0

    def __post_init__(self) -> None:
        require(self.least, "least", least=0)
        if self.least >= 1:
            raise ConfigError(f"least is {self.least}", mend='Give a number below 1, or kind = "constant".')

    def quantile(self, uniform: Float64[ndarray, "*n"]) -> Float64[ndarray, "*n"]:
        """At u: l + 2 (1 − l) u."""
        return self.least + 2 * (1 - self.least) * uniform

    def mean_of_max(self, count: int) -> float:
        """Of n: l + 2 (1 − l) n / (n + 1)."""
        return self.least + 2 * (1 - self.least) * count / (count + 1)

    def log_moment(self, theta: float) -> float:
        """θ (2 − l) + ln((1 − e^{−wθ}) / (wθ)) with w = 2 (1 − l)."""
        product = 2 * (1 - self.least) * theta
        return float(theta * (2 - self.least) + np.log(-np.expm1(-product) / product))


@dataclass(frozen=True, kw_only=True, slots=True)
class Pareto:
    """A heavy tail: P(X > t) = (x/t)^a from x = (a − 1)/a on.

    Args:
        shape: a > 1; the variance is infinite up to 2.
    """

    shape: float = 3.0

    def __post_init__(self) -> None:
        require(self.shape, "shape", above=1)

    @property
    def _least(self) -> float:
        return (self.shape - 1) / self.shape

    def quantile(self, uniform: Float64[ndarray, "*n"]) -> Float64[ndarray, "*n"]:
        """At u: x (1 − u)^{−1/a}."""
        return np.asarray(self._least * (1 - uniform) ** (-1 / self.shape))

    def mean_of_max(self, count: int) -> float:
        """Of n: x Γ(n + 1) Γ(1 − 1/a) / Γ(n + 1 − 1/a), which grows like n^{1/a}."""
        from scipy.special import gammaln

        power = 1 / self.shape
        return float(self._least * np.exp(gammaln(count + 1) + gammaln(1 - power) - gammaln(count + 1 - power)))

    def log_moment(self, theta: float) -> float:
        """Infinite."""
        return np.inf


@dataclass(frozen=True, kw_only=True, slots=True)
class LogNormal:
    """Products of many small causes: exp(σZ − σ²/2).

    Args:
        sigma: standard deviation of the logarithm, > 0.
    """

    sigma: float = 0.5

    def __post_init__(self) -> None:
        require(self.sigma, "sigma", above=0)

    def quantile(self, uniform: Float64[ndarray, "*n"]) -> Float64[ndarray, "*n"]:
        """exp(σ Φ^{−1}(u) − σ²/2)."""
        from scipy.special import ndtri

        return np.asarray(np.exp(self.sigma * ndtri(np.maximum(uniform, _LEAST)) - self.sigma**2 / 2))

    def mean_of_max(self, count: int) -> float:
        """∫ n φ(z − σ) Φ(z)^{n−1} dz, by the trapezoidal rule, which is exact to rounding here."""
        from scipy.special import log_ndtr

        z = np.linspace(-12, 12 + self.sigma, 6_001)
        log_density = -((z - self.sigma) ** 2) / 2 - np.log(2 * np.pi) / 2 + (count - 1) * log_ndtr(z)
        return float(count * np.exp(log_density).sum() * (z[1] - z[0]))

    def log_moment(self, theta: float) -> float:
        """Infinite."""
        return np.inf


@dataclass(frozen=True, kw_only=True, slots=True)
class Stalls:
    """Now and then a round takes a multiple: a garbage collection, a neighbour on the machine, a lost packet.

    Args:
        probability: p that a round stalls, in (0, 1).
        factor: f, by how much it is longer than one that does not, >= 1.
    """

    probability: float = 0.05
    factor: float = 10.0

    def __post_init__(self) -> None:
        require(self.factor, "factor", least=1)
        if not 0 < self.probability < 1:
            raise ConfigError(f"probability is {self.probability}", mend="Give a number above 0 and below 1.")

    @property
    def _mean(self) -> float:
        return 1 + self.probability * (self.factor - 1)

    def quantile(self, uniform: Float64[ndarray, "*n"]) -> Float64[ndarray, "*n"]:
        """The factor f over the mean for the last p of the unit interval, else 1 over the mean."""
        return np.where(uniform < 1 - self.probability, 1.0, self.factor) / self._mean

    def mean_of_max(self, count: int) -> float:
        """Of n, some stall with probability 1 − (1 − p)^n."""
        return float(1 - np.expm1(count * np.log1p(-self.probability)) * (self.factor - 1)) / self._mean

    def log_moment(self, theta: float) -> float:
        """ln((1 − p) e^{θ/m} + p e^{θf/m})."""
        powers = np.array([1.0, self.factor]) * theta / self._mean
        return _log_mean_exp(powers, np.array([1 - self.probability, self.probability]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """Measured times, drawn again with replacement (the bootstrap).

    Args:
        times: in any unit, each >= 0, one at least above 0.
        file: a text file that holds them instead, one number a line; ``#`` begins a comment.

    Raises:
        ConfigError: when both are given or neither, or a time is out of range.
        DataError: when the file cannot be read as numbers.
    """

    times: tuple[float, ...] = ()
    file: Path | None = None
    ordered: Float64[ndarray, "times"] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if bool(self.times) == (self.file is not None):
            raise ConfigError("a trace needs either times or a file", mend="Give one of the two.")
        values = np.asarray(self.times, np.float64) if self.file is None else _read(self.file)
        good = (values >= 0) & (values < np.inf)
        if not good.all() or not values.any():
            worst = values[np.argmin(good)]
            raise ConfigError(f"a time of the trace is {worst}", mend="Give finite times >= 0, not all of them 0.")
        object.__setattr__(self, "ordered", np.sort(values))

    @property
    def mean(self) -> float:
        """Of the times, in their unit."""
        return float(self.ordered.mean())

    def quantile(self, uniform: Float64[ndarray, "*n"]) -> Float64[ndarray, "*n"]:
        """The ⌊u · N⌋-th smallest of the N times, over their mean."""
        return np.asarray(self.ordered[(uniform * len(self.ordered)).astype(np.int64)] / self.mean)

    def mean_of_max(self, count: int) -> float:
        """Σ_k x_(k) ((k/N)^n − ((k − 1)/N)^n) over the mean."""
        levels = np.arange(len(self.ordered) + 1) / len(self.ordered)
        return float(np.diff(levels**count) @ self.ordered / self.mean)

    def log_moment(self, theta: float) -> float:
        """Of the N times."""
        powers = theta * self.ordered / self.mean
        return _log_mean_exp(powers, np.full(len(powers), 1 / len(powers)))


def _log_mean_exp(powers: Float64[ndarray, "n"], shares: Float64[ndarray, "n"]) -> float:
    top = float(powers.max())
    return top + float(np.log(shares @ np.exp(powers - top)))


def _read(file: Path) -> Float64[ndarray, "times"]:
    try:
        values = np.loadtxt(file, np.float64, ndmin=1)
    except (OSError, ValueError) as error:
        raise DataError(f"no times can be read ({error})", where=str(file), mend="Give one number a line.") from None
    if values.ndim != 1:
        raise DataError(f"{values.shape[1]} numbers a line", where=str(file), mend="Give one number a line.")
    return values


LAWS = Registry(
    "rivage.time_laws",
    "law of times",
    {
        "constant": "rivage.decentralized.time_laws:Constant",
        "exponential": "rivage.decentralized.time_laws:Exponential",
        "lognormal": "rivage.decentralized.time_laws:LogNormal",
        "pareto": "rivage.decentralized.time_laws:Pareto",
        "shifted": "rivage.decentralized.time_laws:ShiftedExponential",
        "stalls": "rivage.decentralized.time_laws:Stalls",
        "trace": "rivage.decentralized.time_laws:Trace",
        "uniform": "rivage.decentralized.time_laws:Uniform",
    },
)

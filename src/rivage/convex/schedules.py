"""Step sizes of online gradient and mirror descent, each with the regret it guarantees.

Against any gradients g_1 … g_T, descent x_{t+1} = Π(x_t − η_t g_t) with steps that do not grow has

    regret <= W²/(2 η_T) + ½ Σ η_t ‖g_t‖²,

where W² is the largest squared distance between two points of the set. With a *constant* step it may be replaced by D²,
the largest squared distance from the first point (``diameter_squared`` of the sets); always W <= 2 D. For mirror
descent with a map that is σ-strongly convex, read 2 max B(x, x_1) for D² and the dual norm's square over σ for ‖g‖².
The bounds hold for convex losses with g_t a subgradient at x_t, and for concave gains with the signs turned.

A schedule is a frozen dataclass; what it remembers is a `Progress`. At the end of round t::

    step, progress = schedule.next(progress, ‖g_t‖²)      # g_t included
    if progress.restart: x = set.center                   # `Doubling` only
    else:                x = set.project(x - step * g)

A step is 0 while every gradient was 0: there is nothing to follow. ``bound(horizon, …)`` is the guaranteed regret after
``horizon`` rounds.

References:
    Zinkevich. Online convex programming and generalized infinitesimal gradient ascent. ICML 2003.
    Shalev-Shwartz. Online learning and online convex optimization. Foundations and Trends in Machine Learning, 2012
    (doubling: section 2.3.1).
    Auer, Cesa-Bianchi, Gentile. Adaptive and self-confident on-line learning algorithms. JCSS, 2002.
    Orabona, Pál. Scale-free online learning. Theoretical Computer Science, 2018, arXiv 1601.01974.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rivage.core.errors import require

__all__ = ["Constant", "Doubling", "Progress", "ScaleFree", "Schedule", "SelfConfident", "Theory"]


@dataclass(frozen=True, slots=True)
class Progress:
    """What a schedule has seen.

    Args:
        rounds: gradients so far.
        squares: sum of their squared norms.
        largest: largest squared norm.
        restart: the next iterate shall be the first point again.
    """

    rounds: int = 0
    squares: float = 0.0
    largest: float = 0.0
    restart: bool = False

    def seen(self, gradient_norm_squared: float) -> Progress:
        """After one more gradient."""
        return Progress(self.rounds + 1, self.squares + gradient_norm_squared, max(self.largest, gradient_norm_squared))


@runtime_checkable
class Schedule(Protocol):
    """Chooses the step of every round."""

    def start(self) -> Progress:
        """Before the first round."""
        ...

    def next(self, progress: Progress, gradient_norm_squared: float) -> tuple[float, Progress]:
        """The step for the gradient just seen, and what is remembered."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """The same step η in every round.

    Args:
        step: η >= 0.
    """

    step: float

    def __post_init__(self) -> None:
        require(self.step, "step", least=0.0)

    def start(self) -> Progress:
        """Before the first round."""
        return Progress()

    def next(self, progress: Progress, gradient_norm_squared: float) -> tuple[float, Progress]:
        """η."""
        return self.step, progress.seen(gradient_norm_squared)

    def bound(self, horizon: int, *, diameter_squared: float, gradient_squared: float) -> float:
        """D²/(2η) + η G² T/2; linear in T.

        Args:
            horizon: T.
            diameter_squared: D².
            gradient_squared: G², no smaller than any ‖g_t‖².
        """
        if self.step == 0:
            return math.inf if diameter_squared > 0 else 0.0
        return diameter_squared / (2 * self.step) + self.step * gradient_squared * horizon / 2


@dataclass(frozen=True, slots=True)
class Theory:
    """The best constant step for a known horizon, η = √(D²/(G² T)): regret <= √(D² G² T).

    For a cache of k of N items, D² = k (1 − k/N); batches of R requests, at most h for one item, weights at most w have
    G² = w² h R. With the entropy D² = 2k ln(N/k) and G² = k w² h².

    Args:
        diameter_squared: D² >= 0; 0 makes the step 0.
        gradient_squared: G² >= 0; 0 makes the step 0.
        horizon: T >= 1.
    """

    diameter_squared: float
    gradient_squared: float
    horizon: int

    def __post_init__(self) -> None:
        require(self.diameter_squared, "diameter_squared", least=0.0)
        require(self.gradient_squared, "gradient_squared", least=0.0)
        require(self.horizon, "horizon", least=1)

    @property
    def step(self) -> float:
        """η."""
        if self.gradient_squared == 0:
            return 0.0
        return math.sqrt(self.diameter_squared / self.gradient_squared / self.horizon)

    def start(self) -> Progress:
        """Before the first round."""
        return Progress()

    def next(self, progress: Progress, gradient_norm_squared: float) -> tuple[float, Progress]:
        """η."""
        return self.step, progress.seen(gradient_norm_squared)

    def bound(self, horizon: int | None = None) -> float:
        """½ √(D² G² T) (1 + t/T) after t rounds, t = T unless ``horizon`` says otherwise.

        Another end than planned is covered: stopping early or playing on only changes the second term.
        """
        rounds = self.horizon if horizon is None else horizon
        whole = math.sqrt(self.diameter_squared * self.gradient_squared * self.horizon)
        return whole * (1 + rounds / self.horizon) / 2


@dataclass(frozen=True, slots=True)
class Doubling:
    """`Theory` for horizons 1, 2, 4, …, each from a fresh start: regret < 2.92 √(D² G² T) for all T.

    Epoch m are the rounds 2^m … 2^(m+1) − 1. The last step of an epoch comes with ``restart``; D² is measured from the
    first point, so the bound needs the restart. The factor is 1/(√2 − 1) + ½, reached when an epoch begins; the usual
    √2/(√2 − 1) = 3.41 charges an epoch in full from its first round.

    Args:
        diameter_squared: D² >= 0.
        gradient_squared: G² >= 0.
    """

    diameter_squared: float
    gradient_squared: float

    def __post_init__(self) -> None:
        Theory(self.diameter_squared, self.gradient_squared, 1)

    def start(self) -> Progress:
        """Before the first round."""
        return Progress()

    def next(self, progress: Progress, gradient_norm_squared: float) -> tuple[float, Progress]:
        """The step of the epoch that this round belongs to."""
        seen = progress.seen(gradient_norm_squared)
        epoch = 1 << (seen.rounds.bit_length() - 1)  # its length, and its first round
        ends = seen.rounds == 2 * epoch - 1
        step = Theory(self.diameter_squared, self.gradient_squared, epoch).step
        return step, Progress(seen.rounds, seen.squares, seen.largest, restart=ends)

    def bound(self, horizon: int) -> float:
        """Sum of the bounds of the epochs, the last one as far as it went."""
        total, epoch = 0.0, 1
        while epoch <= horizon:
            rounds = min(epoch, horizon - epoch + 1)
            total += Theory(self.diameter_squared, self.gradient_squared, epoch).bound(rounds)
            epoch *= 2
        return total


@dataclass(frozen=True, slots=True)
class SelfConfident:
    """η_t = D/√(‖g_1‖² + … + ‖g_t‖²), for horizons and gradients nobody knows: regret <= 3 D √(Σ ‖g_t‖²).

    From Σ η_t ‖g_t‖² <= 2 D √(Σ ‖g_t‖²) and W <= 2 D. The same for gradients in any unit.

    Args:
        diameter_squared: D² >= 0.
    """

    diameter_squared: float

    def __post_init__(self) -> None:
        require(self.diameter_squared, "diameter_squared", least=0.0)

    def start(self) -> Progress:
        """Before the first round."""
        return Progress()

    def next(self, progress: Progress, gradient_norm_squared: float) -> tuple[float, Progress]:
        """η_t."""
        seen = progress.seen(gradient_norm_squared)
        return (math.sqrt(self.diameter_squared / seen.squares) if seen.squares > 0 else 0.0), seen

    def bound(self, horizon: int, *, gradient_squared: float, width_squared: float | None = None) -> float:
        """(W²/(2D) + D) √(G² T).

        Args:
            horizon: T.
            gradient_squared: G², no smaller than the *mean* of ‖g_t‖².
            width_squared: W²; 4 D² when not given.
        """
        if self.diameter_squared == 0:
            return 0.0
        width_squared = 4 * self.diameter_squared if width_squared is None else width_squared
        start = math.sqrt(self.diameter_squared)
        return (width_squared / (2 * start) + start) * math.sqrt(gradient_squared * horizon)


@dataclass(frozen=True, slots=True)
class ScaleFree:
    """η_t = r/(G_t √t), G_t the largest norm so far: steps no longer than r/√t in any unit of the gradient.

    With decay, regret <= (W²/(2r) + r) G √T, best at r = W/√2. Without (η_t = r/G_t, which follows change) it is
    W² G/(2r) + r G T/2, linear in T as for any constant step.

    Args:
        scale: r > 0, a length: how far the first step may go.
        decay: whether to divide by √t.
        warmup: rounds after which G_t stays as it is; None means never. With it there is no bound: a later gradient may
            be any multiple of those first seen.
    """

    scale: float
    decay: bool = True
    warmup: int | None = None

    def __post_init__(self) -> None:
        require(self.scale, "scale", above=0.0)
        require(1 if self.warmup is None else self.warmup, "warmup", least=1)

    def start(self) -> Progress:
        """Before the first round."""
        return Progress()

    def next(self, progress: Progress, gradient_norm_squared: float) -> tuple[float, Progress]:
        """η_t."""
        seen = progress.seen(gradient_norm_squared)
        if self.warmup is not None and seen.rounds > self.warmup and progress.largest > 0:
            seen = Progress(seen.rounds, seen.squares, progress.largest)
        if seen.largest == 0:
            return 0.0, seen
        return self.scale / math.sqrt(seen.largest * (seen.rounds if self.decay else 1)), seen

    def bound(self, horizon: int, *, gradient_squared: float, width_squared: float) -> float:
        """See above; infinite with a warm-up.

        Args:
            horizon: T.
            gradient_squared: G², no smaller than any ‖g_t‖².
            width_squared: W².
        """
        if self.warmup is not None:
            return math.inf
        gradient = math.sqrt(gradient_squared)
        if self.decay:
            return (width_squared / (2 * self.scale) + self.scale) * gradient * math.sqrt(horizon)
        return width_squared * gradient / (2 * self.scale) + self.scale * gradient * horizon / 2

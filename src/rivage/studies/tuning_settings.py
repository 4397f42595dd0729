"""The ``[tuning]`` table of a study: what ``--tune`` tries, the same for every method."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rivage.core.errors import ConfigError, require

__all__ = ["Tuning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How methods are tuned by ``--tune``; without that option the table changes nothing.

    Args:
        budget: settings tried for each method, the same number for all, at least as many as there are learning rates.
        learning_rates: tried for every method, different, each > 0; a method with fewer settings than the budget gets
            rates between these as well.
        rounds: of a trial, >= 1; ``"run"`` takes those of the run.
        seed: of clients, splits and models while tuning; ``"first"`` takes the first of the run, so that none of the
            test records of that seed has had a say.
        metric: what is compared on validation records: the ``metric`` of the task, equal ones by loss, or the ``loss``.
    """

    budget: int = 8
    learning_rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3)
    rounds: int | None = field(default=None, metadata={"none": "run"})
    seed: int | None = field(default=None, metadata={"none": "first"})
    metric: Literal["metric", "loss"] = "metric"

    def __post_init__(self) -> None:
        rates = self.learning_rates
        if not rates or len(set(rates)) < len(rates):
            raise ConfigError(f"learning_rates is {list(rates)}", mend="Give one or several different numbers.")
        for rate in rates:
            require(rate, "learning_rates", above=0)
        require(self.budget, "budget", least=1)
        if self.budget < len(rates):
            raise ConfigError(
                f"budget is {self.budget}, but there are {len(rates)} learning rates",
                mend=f"Give a budget of at least {len(rates)}, or fewer learning_rates.",
            )
        if self.rounds is not None:
            require(self.rounds, "rounds", least=1)
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise ConfigError(f"seed is {self.seed}", mend="Give a whole number from 0 to 2**64 - 1.")

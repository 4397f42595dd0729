"""Which settings of a method are tried: as many as for every other method, among the same learning rates.

A method's settings are the product of the common learning rates with the values it declares itself,

    tuned: ClassVar[Mapping[str, tuple[Any, ...]]]        setting -> values,

without those that its constructor refuses. Of a product that exceeds the budget a seeded part is taken which covers
every learning rate before any of them comes twice, and uses the declared values about equally often. A product that is
smaller than the budget gets finer learning rates: geometric means of neighbours, then of those, until it is not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice, pairwise, product
from typing import Any

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.studies.study_tables import Method
from rivage.studies.tuning_settings import Tuning

__all__ = ["at_edge", "candidates", "declared", "finer", "grid", "label"]

Values = Mapping[str, Any]
"""Setting -> value; ``learning_rate`` comes first."""


def declared(method: Method) -> Mapping[str, tuple[Any, ...]]:
    """The values that the method's class declares beside the learning rate."""
    found: Mapping[str, tuple[Any, ...]] = getattr(type(method.algorithm), "tuned", {})
    assert all(hasattr(method.algorithm, name) for name in found), f"{method.kind}: tuned names no setting"
    return found


def finer(rates: Sequence[float], size: int) -> tuple[float, ...]:
    """At least so many rates: the given ones, then the geometric means of neighbours, level by level, largest first.

    A single rate is surrounded by factors of √10, for it has no neighbours.
    """
    found = list(rates)
    if len(found) == 1:
        found += [rates[0] * 10 ** (step / 2 * sign) for step in range(1, size) for sign in (1, -1)]
        return tuple(_round(rate) for rate in found[:size])
    while len(found) < size:
        between = [_round(math.sqrt(low * high)) for low, high in pairwise(sorted(found))]
        found += sorted(between, reverse=True)
    return tuple(found[: max(size, len(rates))])


def _round(rate: float) -> float:
    """To three digits: nobody writes more into a study."""
    return float(f"{rate:.3g}")


def candidates(method: Method, tuning: Tuning, seed: int) -> tuple[Values, ...]:
    """The ``tuning.budget`` settings that are tried for a method, in order.

    Args:
        method: of a study; its own learning rate and its own values of what it declares are not used.
        tuning: budget and learning rates.
        seed: draws the part of a product that exceeds the budget.

    Raises:
        ConfigError: when the method accepts none of them.
    """
    own = declared(method)
    combinations = [dict(zip(own, values, strict=True)) for values in product(*own.values())]
    for size in count(len(tuning.learning_rates)):
        rates = finer(tuning.learning_rates, size)
        allowed = {rate: [c for c in combinations if _accepts(method, rate, c)] for rate in rates}
        if sum(map(len, allowed.values())) >= tuning.budget:
            return tuple(islice(_spread(allowed, method.name, seed), tuning.budget))
        if not any(allowed.values()) or size > 8 * tuning.budget:
            raise ConfigError(
                f'"{method.name}" accepts none of the settings that were to be tried, or too few',
                where="[tuning]",
                mend="Give other learning_rates, or a smaller budget.",
            )
    raise AssertionError("the sizes do not end")


def _accepts(method: Method, rate: float, values: Values) -> bool:
    """Whether the constructor takes these settings together."""
    try:
        replace(method.algorithm, learning_rate=rate, **values)  # type: ignore[type-var]
    except ConfigError:
        return False
    return True


def _spread(allowed: Mapping[float, Sequence[Values]], name: str, seed: int) -> Iterator[Values]:
    """All allowed settings: one of each rate, then a second of each in a drawn order; the values least used first."""
    rng = Streams(seed).numpy("tuning", name)
    left = {rate: [values[i] for i in rng.permutation(len(values))] for rate, values in allowed.items()}
    uses: Counter[tuple[str, Any]] = Counter()
    order = list(left)
    while any(left.values()):
        for rate in order:
            if values := left[rate]:
                least = min(values, key=lambda chosen: sum(uses[item] for item in chosen.items()))
                values.remove(least)
                uses.update(least.items())
                yield {"learning_rate": rate, **least}
        order = [list(left)[place] for place in rng.permutation(len(left))]


def grid(tried: Sequence[Values]) -> dict[str, list[Any]]:
    """Setting -> its values among those tried, each once, numbers in order."""
    found = {name: list(dict.fromkeys(values[name] for values in tried)) for name in tried[0]}
    return {name: sorted(values) if _numbers(values) else values for name, values in found.items()}


def _numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def at_edge(grid: Mapping[str, Sequence[Any]], chosen: Values) -> tuple[str, ...]:
    """Settings of which the smallest or largest of at least three numbers was chosen: the best may lie beyond."""
    return tuple(
        name
        for name, values in grid.items()
        if len(values) > 2 and _numbers(values) and chosen[name] in (min(values), max(values))
    )


def label(values: Values) -> str:
    """``learning_rate=0.1, mu=1``, for tables and names: the same whatever the order."""
    ordered = sorted(values.items(), key=lambda item: (item[0] != "learning_rate", item[0]))
    return ", ".join(f"{name}={_word(value)}" for name, value in ordered)


def _word(value: Any) -> str:
    if _numbers([value]):
        return f"{value:g}"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

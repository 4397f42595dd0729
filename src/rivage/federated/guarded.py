"""The guarded personal model: collaborate where it helps, never blindly.

For every client, choose among the personal models that other methods made for it (Local, global, fine-tuned …) on the
client's own validation records, with the one-standard-error rule: of the candidates in order of preference, take the
first whose mean validation loss is within one standard error of the smallest,

    choose  min { j : L_j <= L_b + SE_b },   b = argmin_j L_j,   SE_b = standard error of L_b over validation records.

By default the preference is the population's: candidates are ordered by their mean validation loss over all clients, so
that a client leaves what serves its peers best only when its own records speak for another model by more than one
standard error. A handful of validation records says little about one client; what all clients say together is the
better prior. An order of one's own (``among``), Local first, makes every client keep its own model unless another one
is clearly better.

Clients whose validation records cannot tell (fewer than two) follow the population: the same rule on the clients'
mean losses. Nothing is trained and nothing is sent beyond what the candidates cost.

References:
    Breiman, Friedman, Olshen, Stone. Classification and regression trees. 1984, section 3.4.3 (one-standard-error
    rule).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import ConfigError
from rivage.federated.algorithm import Reference
from rivage.federated.selection import choose, rank

__all__ = ["Guarded", "compose", "preference"]


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """Chooses one personal model per client among those of other methods of the study.

    Args:
        among: names of methods in order of preference; the first is what a client gets unless another is better for
            it by more than one standard error. Empty means all methods, in the population's order.
    """

    reference: ClassVar[Reference] = Reference(
        key="breiman84",
        authors="Leo Breiman and Jerome Friedman and Richard Olshen and Charles Stone",
        title="Classification and Regression Trees",
        venue="Wadsworth",
        year=1984,
        part="Section 3.4.3, one-standard-error rule",
        entry="book",
    )

    among: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.among)) != len(self.among):
            raise ConfigError("among names a method twice", mend="Name each method once.")


def preference(evaluations: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The population's order of the candidates, from their last evaluation events."""
    names = tuple(evaluations)
    return tuple(names[column] for column in rank(_columns(evaluations, names, "validation_loss")))


def compose(
    evaluations: Mapping[str, Mapping[str, Any]], among: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Evaluation and choice events of the guarded models, out of the candidates' evaluation events.

    Args:
        evaluations: the last evaluation event of each method, one group, the same clients in the same order.
        among: candidates in order of preference.

    Returns:
        The ``evaluation`` event (each client's columns copied from its chosen candidate) and the ``choice`` event.
    """
    losses, errors = (_columns(evaluations, among, key) for key in ("validation_loss", "validation_se"))
    chosen = [among[index] for index in choose(losses, errors)]
    template = evaluations[among[0]]
    head = {key: template[key] for key in ("event", "group", "clients", "skipped")}
    head["round"] = max(evaluations[name]["round"] for name in among)
    columns = {
        key: [evaluations[name][key][row] for row, name in enumerate(chosen)]
        for key, value in template.items()
        if isinstance(value, list) and key != "clients" and all(key in evaluations[name] for name in among)
    }
    choice = {"event": "choice", "chosen": chosen, "among": list(among)}
    return {**head, **columns, "pooled": None}, {
        **choice,
        **{key: head[key] for key in ("round", "group", "clients")},
    }


def _columns(
    evaluations: Mapping[str, Mapping[str, Any]], names: Sequence[str], key: str
) -> Float64[ndarray, "clients candidates"]:
    return np.array([evaluations[name][key] for name in names], np.float64).T

"""What is asked of an attack, and how it answers: all that passes between the evaluator and an attack.

The evaluator knows the truth; an attack gets a question, which holds what the threat model grants and nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxtyping import Bool, Float, Float64, Shaped
from numpy import ndarray

from rivage.data.population import Samples

__all__ = [
    "Attribute",
    "AttributeAnswer",
    "AttributeQuestion",
    "MembershipAnswer",
    "MembershipQuestion",
    "ModelAnswer",
    "PropertyAnswer",
    "PropertyQuestion",
    "RecordAnswer",
    "RecordQuestion",
]


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a record, and how the model's input codes it.

    Args:
        name: what people call it.
        columns: of the input that code it.
        codes: one row per value, ascending; for a numerical attribute its range, ``[[least], [largest]]``.
        values: name of each value; empty for a numerical attribute.
    """

    name: str
    columns: tuple[int, ...]
    codes: Float64[ndarray, "values columns"]
    values: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["binary", "categorical", "numerical"]:
        """How many values there are."""
        if not self.values:
            return "numerical"
        return "binary" if len(self.values) == 2 else "categorical"

    def plug(self, x: Float[ndarray, "n d"], value: Shaped[ndarray, "n"]) -> Float[ndarray, "n d"]:
        """The records with these values: indices into ``codes``, or numbers for a numerical attribute."""
        result = x.copy()
        result[:, list(self.columns)] = value[:, None] if self.kind == "numerical" else self.codes[value]
        return result


@dataclass(frozen=True, slots=True, eq=False)
class AttributeQuestion:
    """Which value has the attribute in each of these records of the target?

    Args:
        attribute: that is asked for.
        x: inputs with the columns of the attribute set to 0.
        y: targets.
        target: number of the client whose records they are, for attacks that see several clients.
    """

    attribute: Attribute
    x: Float[ndarray, "n d"]
    y: Shaped[ndarray, "n *target"]
    target: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class AttributeAnswer:
    """The values.

    Args:
        values: index into ``codes`` per record, or a number per record for a numerical attribute.
        facts: what else the report should show.
        rule: what gave them, where it answers for any records and not for these alone. The evaluator asks it about
            records that nobody trained on.
    """

    values: Shaped[ndarray, "n"]
    facts: Mapping[str, Any] = field(default_factory=dict)
    rule: Callable[[AttributeQuestion], Shaped[ndarray, "n"]] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class MembershipQuestion:
    """Which of these records did the target train on?

    Args:
        records: members and others from the same distribution.
        known: where the attacker knows the answer, for attacks that learn from examples.
        member: the answer, where it is known; False elsewhere.
        others: further records of the distribution that the target did not train on, for shadow and reference models.
        target: number of the client that is asked about, for attacks that see several; None for the whole federation.
    """

    records: Samples
    known: Bool[ndarray, "n"]
    member: Bool[ndarray, "n"]
    others: Samples
    target: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class MembershipAnswer:
    """How likely each record is a member.

    Args:
        scores: higher is likelier; NaN where no score was asked for (records that are known).
        facts: what else the report should show.
    """

    scores: Float64[ndarray, "n"]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class ModelAnswer:
    """An estimate of the model that the target's data alone would give.

    Args:
        params: the estimate; None when the status says why there is none.
        status: ``recovered``, ``ill-conditioned``, ``rank-deficient`` or ``estimated`` (a heuristic without guarantee).
        facts: condition number, estimate of the error, solver, messages used.
    """

    params: Float[ndarray, "dim"] | None
    status: Literal["recovered", "ill-conditioned", "rank-deficient", "estimated"]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class RecordQuestion:
    """What are the records that the target trained on in a round?

    Args:
        records: how many it holds; a server is told, as it weighs by them.
        round: of the exchange to attack; None for the target's first one, where the loss is steepest.
    """

    records: int
    round: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RecordAnswer:
    """Guessed records, in no order.

    Args:
        x: inputs, at most as many as there are records; None from an attack on labels only.
        y: targets, one per record; None from an attack on inputs only. They belong to ``x`` row by row if both are
            given.
        status: ``recovered`` (exact, up to rounding), ``mixed`` (several records may stand behind a guess), or
            ``estimated`` (a heuristic without guarantee).
        facts: what else the report should show.
    """

    x: Float[ndarray, "found *input"] | None
    y: Shaped[ndarray, "records *target"] | None
    status: Literal["recovered", "mixed", "estimated"]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class PropertyQuestion:
    """Which of these clients hold records of which more than half have the property?

    Args:
        clients: that are asked about.
        records: the attacker's own.
        has: which of these have the property.
    """

    clients: tuple[int, ...]
    records: Samples
    has: Bool[ndarray, "n"]


@dataclass(frozen=True, slots=True, eq=False)
class PropertyAnswer:
    """How likely each client is one of them.

    Args:
        scores: higher is likelier; NaN for a client without a message.
        facts: what else the report should show.
    """

    scores: Float64[ndarray, "clients"]
    facts: Mapping[str, Any] = field(default_factory=dict)

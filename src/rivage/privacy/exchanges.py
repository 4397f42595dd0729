"""What a message log tells: its header, the exchanges in it, and what could not be used.

An *exchange* is one client in one round. With w_t what the client received and w_t' what it returned,

    g_t = w_t − w_t'

is its pseudo-gradient. Logs of other systems may hold g_t in another form, which their header says in ``kind``:

============  =====================================  ==============  ================================
kind          an update holds                        g_t             w_t'
============  =====================================  ==============  ================================
``model``     w_t', or what the stages made of it    w_t − w_t'      as the server reads it
``delta``     w_t' − w_t                             −delta          w_t + delta
``gradient``  one gradient at w_t, no local steps    the gradient    none: asking for it is refused
============  =====================================  ==============  ================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from rivage.core.errors import DataError, ProtocolError
from rivage.learning.params import Entry, ParameterMap

__all__ = ["Exchange", "Fault", "Header", "Kind", "Refused"]

Kind = Literal["model", "delta", "gradient"]


class Refused(ProtocolError):
    """An attack that cannot be run on what its view shows; the reason is part of the report."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A message that could not be used; all the others were.

    Args:
        round: of the message; −1 where it is not known.
        client: whose message; −1 for a sum over the clients of a round, or where it is not known.
        what: is wrong with it.
    """

    round: int
    client: int
    what: str

    @property
    def error(self) -> DataError:
        """The same as an error, for callers that want all or nothing."""
        mend = "Repair the message or leave it out; the rest of the log can be used."
        return DataError(self.what, where=self.where, mend=mend)

    @property
    def where(self) -> str:
        """Client and round."""
        who = "sum over clients" if self.client < 0 else f"client {self.client}"
        return "message log" if self.round < 0 else f"{who}, round {self.round}"

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Exchange:
    """What one client was sent in a round, and what it returned.

    Args:
        round: from 0.
        client: whose; −1 for a sum over the clients of a round.
        sent: the parameters as the client received them, one row per model where a method sends several; clients that
            share a broadcast share the array, which is read-only.
        returned: the parameters as the server reads them off the update; None of a gradient.
        weight: that the client gave its update; None where it is not told.
        kind: what the update holds.
        change: the difference returned − sent where the update holds it, which is more exact than the difference of
            the two; minus the gradient of a gradient.
    """

    round: int
    client: int
    sent: Float[ndarray, "*groups dim"]
    weight: float | None
    kind: Kind
    _returned: Float[ndarray, "*groups dim"] | None
    _change: Float[ndarray, "*groups dim"] | None

    def __init__(
        self,
        round: int,
        client: int,
        sent: Float[ndarray, "*groups dim"],
        returned: Float[ndarray, "*groups dim"] | None,
        weight: float | None = None,
        kind: Kind = "model",
        change: Float[ndarray, "*groups dim"] | None = None,
    ) -> None:
        values = {"round": round, "client": client, "sent": sent, "weight": weight, "kind": kind}
        for name, value in (values | {"_returned": returned, "_change": change}).items():
            object.__setattr__(self, name, value)

    @property
    def returned(self) -> Float[ndarray, "*groups dim"]:
        """The parameters that the client returned.

        Raises:
            Refused: for a gradient, which is no model.
        """
        if self._returned is None:
            raise Refused(
                "the log holds gradients, and the client returned no model",
                where=f"client {self.client}, round {self.round}",
                mend="Use an attack that reads gradients only.",
            )
        return self._returned

    @property
    def pseudo_gradient(self) -> Float64[ndarray, "*groups dim"]:
        """The difference w − w', in float64."""
        if self._change is not None:
            negative: ndarray = -self._change.astype(np.float64)
            return negative
        difference: ndarray = self.sent.astype(np.float64) - self.returned.astype(np.float64)
        return difference


@dataclass(frozen=True)
class Header:
    """What a log says of the training.

    Args:
        fields: as they stand in the log.
        precision: rounding unit of the numbers in the log, half the distance from 1 to the next larger number of the
            coarsest type in the first exchange (6·10⁻⁸ for float32); None where it is not known.
    """

    fields: Mapping[str, Any]
    precision: float | None = None

    @cached_property
    def layout(self) -> ParameterMap:
        """Where each parameter lies in the vectors.

        Raises:
            DataError: for a header without a sound map.
        """
        try:
            layout = ParameterMap.from_json(self.fields)
            _require_tiles(layout)
        except (KeyError, TypeError, ValueError) as error:
            raise _unsaid(f"no sound parameter map ({error!r:.200})") from error
        return layout

    @property
    def loss(self) -> str:
        """Registered name of the loss."""
        if not isinstance(self.fields.get("loss"), str):
            raise _unsaid("no loss")
        return str(self.fields["loss"])

    @property
    def hyper_parameters(self) -> Mapping[str, Any]:
        """Of the method: learning rate, epochs, batch size."""
        found = self.fields.get("hyper_parameters")
        if not isinstance(found, Mapping):
            raise _unsaid("no hyper_parameters")
        return found

    @property
    def kind(self) -> Kind:
        """What an update holds."""
        kind = self.fields.get("kind", "model")
        if kind not in get_args(Kind):
            raise _unsaid(f'the kind "{kind}", not one of {", ".join(get_args(Kind))}')
        return kind  # type: ignore[no-any-return]

    @property
    def steps(self) -> int | None:
        """1 where an exchange is a single gradient; None where it may be the result of several local steps."""
        return 1 if self.kind == "gradient" else None

    @property
    def secure_aggregation(self) -> bool:
        """Whether the server saw sums only."""
        return bool(self.fields.get("secure_aggregation"))

    @property
    def differential_privacy(self) -> Mapping[str, Any] | None:
        """What is claimed: unit, epsilon, delta, mechanism; None without a claim."""
        return self.fields.get("differential_privacy")

    def trainable(self, vectors: Float[ndarray, "*groups dim"]) -> Float[ndarray, "*groups trained"]:
        """The part that is trained; a view.

        Frozen parameters and running means and variances stay out: their difference is no gradient.
        """
        return vectors[..., : self.layout.trainable]

    def check(self, layout: ParameterMap) -> None:
        """That a model is the one of the log.

        Args:
            layout: of the model, `rivage.learning.Task.layout`.

        Raises:
            DataError: naming the first difference.
        """
        if difference := _difference(self.layout, layout):
            raise DataError(
                f"the model is not the one of the log: {difference}",
                where="parameter map",
                mend="Describe the model that was trained, with its sizes.",
            )


def _unsaid(what: str) -> DataError:
    return DataError(
        f"the header says {what}", where="message log", mend="Write the log anew; its format is documented."
    )


def _require_tiles(layout: ParameterMap) -> None:
    end = 0
    for entry in layout.entries:
        numbers = (entry.offset, *entry.shape)
        if not isinstance(entry.name, str) or not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError(f'"{entry.name}" has a malformed name, offset or shape')
        if entry.offset != end:
            raise ValueError(f'"{entry.name}" starts at {entry.offset}, not at {end}')
        end = entry.span.stop
    if type(layout.trainable) is not int or not 0 < layout.trainable <= end:
        raise ValueError(f"{layout.trainable} of {end} numbers are trainable")
    if len({entry.name for entry in layout.entries}) < len(layout.entries):
        raise ValueError("two parameters have one name")


def _difference(told: ParameterMap, model: ParameterMap) -> str | None:
    for one, other in zip(told.entries, model.entries, strict=False):
        if one != other:
            return f"it has {_entry(other)} where the log has {_entry(one)}"
    if told.dimension != model.dimension:
        return f"it has {model.dimension} numbers, the log {told.dimension}"
    if told.trainable != model.trainable:
        return f"{model.trainable} of its numbers are trained, {told.trainable} in the log"
    return None


def _entry(entry: Entry) -> str:
    return f'"{entry.name}" of shape {entry.shape}'

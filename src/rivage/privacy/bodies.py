"""Decodes the payloads of a message log: the model that was sent, and what came back as the server reads it.

Where updates went through stages, the log holds what was on the wire: the coded difference to the broadcast. It is
decoded by the stages that the header names, and added to the broadcast in the type of the run, as the server does. The
exact difference is kept beside the sum. Methods that return a change instead of a model (``change``, with ``cluster``
for which of several models) are read likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from rivage.core.errors import ConfigError, DataError, StoreError
from rivage.core.log_reader import Head, LogReader, Torn
from rivage.core.settings import OneOf, read
from rivage.federated.kinds import STAGES
from rivage.federated.stages import Pipeline
from rivage.privacy.exchanges import Exchange, Header, Refused

__all__ = ["Bodies", "Unusable", "precision"]


class Unusable(Exception):
    """Why a message cannot be used."""


class Bodies:
    """Decodes the payloads of an open log; the last broadcast stays decoded.

    Attributes:
        foreign: names of the entries where a whole model was expected, as they were met first.
    """

    def __init__(self, reader: LogReader, header: Header) -> None:
        self.reader, self.header, self.dimension = reader, header, header.layout.dimension
        self.pipeline = Pipeline(_stages(header))
        self.foreign: tuple[str, ...] = ()
        self._place, self._why = -1, ""
        self._sent: ndarray | None = None

    @property
    def refusal(self) -> Refused:
        """Of a log in which no message holds a whole model."""
        return Refused(
            f"messages hold {', '.join(self.foreign)}, and no whole model goes both ways",
            where="message log",
            mend="Audit a method that sends whole models, such as fedavg.",
        )

    def sent(self, head: Head) -> Float[ndarray, "*groups dim"] | None:
        """The model of a broadcast; None where it holds no whole one.

        Raises:
            Unusable: for a faulty one.
        """
        if head.place != self._place:
            self._sent, self._why = None, ""  # the old one goes before the new one comes
            try:
                self._sent = self._model(head)
            except Unusable as fault:
                self._why = f"{fault} (what was sent)"
            self._place = -1 if head.place is None else head.place
        if self._why:
            raise Unusable(self._why)
        return self._sent

    def exchange(self, client: int, down: Head | None, up: Head) -> Exchange | None:
        """An update and the broadcast it answers; None where no whole model goes both ways.

        Raises:
            Unusable: for a faulty one.
        """
        if down is None or down.place is None:
            raise Unusable("no model was sent before this update in its round")
        sent, payload = self.sent(down), self._payload(up)
        entry = next((name for name in ("params", "change") if name in payload), None)
        if sent is None or entry is None:
            self.foreign = self.foreign or tuple(payload)
            return None
        if entry == "change" and sent.ndim == 2:
            sent = sent[_row(payload, len(sent))]
        weight = _weight(payload.get(f"{entry}.weight"))
        if up.kind == "sum":  # as the server read it; masks and stages are off
            _require_sound(payload[entry], sent.shape)
            return Exchange(up.round, client, sent, payload[entry], weight)
        returned, change = self._returned(entry, payload, sent)
        return Exchange(up.round, client, sent, returned, weight, self.header.kind, change)

    def _returned(
        self, entry: str, payload: Mapping[str, ndarray], sent: ndarray
    ) -> tuple[ndarray | None, ndarray | None]:
        """As the server reads it, and the difference to what was sent where that is what travelled."""
        kind, staged = self.header.kind, bool(self.pipeline.stages)
        found = self._decoded(entry, payload, sent) if staged else payload[entry]
        _require_sound(found, sent.shape)
        if kind == "gradient":
            return None, -found
        if kind == "model" and entry == "params" and not staged:
            return found, None
        dtype = sent.dtype if kind == "model" else np.result_type(sent, found)
        with np.errstate(over="ignore"):
            returned: ndarray = sent + found.astype(dtype)
        _require_sound(returned, sent.shape)
        return returned, found

    def _decoded(self, entry: str, payload: Mapping[str, ndarray], sent: ndarray) -> ndarray:
        try:
            return self.pipeline.decode(entry, payload, sent.size).reshape(sent.shape)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise Unusable(f"the stages of the log cannot decode it ({error})") from error

    def _model(self, head: Head) -> ndarray | None:
        payload = self._payload(head)
        if "params" not in payload:
            self.foreign = self.foreign or tuple(payload)
            return None
        model = payload["params"]
        if model.ndim not in (1, 2) or model.shape[-1:] != (self.dimension,):
            raise Unusable(f"params of shape {model.shape} where the header describes {self.dimension} numbers")
        _require_sound(model, model.shape)
        model.flags.writeable = False  # many exchanges share it
        return model

    def _payload(self, head: Head) -> dict[str, ndarray]:
        try:
            return self.reader.payload(head)
        except Torn:
            raise Unusable("the log ends within this message: its writer was killed, or is still at work") from None
        except StoreError as error:
            raise Unusable(f"the payload cannot be read ({error.what})") from error


def _row(payload: Mapping[str, ndarray], rows: int) -> int:
    """Which of several models the client took."""
    told = payload.get("cluster")
    row = int(told.reshape(-1)[0]) if told is not None and told.size == 1 else -1
    if not 0 <= row < rows:
        raise Unusable(f"it does not say which of the {rows} models it changes")
    return row


def _weight(told: ndarray | None) -> float | None:
    if told is None or told.size != 1:
        return None
    weight = float(told.reshape(-1)[0])
    if not isfinite(weight):
        raise Unusable(f"its weight is {weight}")
    return weight


def _require_sound(array: ndarray, shape: tuple[int, ...]) -> None:
    if array.dtype.kind != "f":
        raise Unusable(f"numbers of type {array.dtype}")
    if array.shape != shape:
        raise Unusable(f"parameters of shape {array.shape} where {shape} were sent")
    with np.errstate(invalid="ignore", over="ignore"):
        total = float(array.sum(dtype=np.float64))
    # A sum is one fast pass, and finite only if all is, except for huge numbers: those are looked at closely.
    if not isfinite(total) and not bool(np.isfinite(array).all()):
        raise Unusable(f"{int((~np.isfinite(array)).sum())} of {array.size} numbers are not finite")


@dataclass(frozen=True)
class _Way:
    """The part of a header that says what happens to updates on their way."""

    stages: tuple[Annotated[Any, OneOf(STAGES)], ...] = ()


def _stages(header: Header) -> tuple[Any, ...]:
    told = header.fields.get("stages") or ()
    try:
        return read(_Way, {"stages": list(told)}, "message log").stages
    except (ConfigError, TypeError) as error:
        raise DataError(f"the header names stages that cannot be read ({error})", where="message log") from error


def precision(reader: LogReader) -> float | None:
    """Of the coarsest type that the first broadcast and the first update hold."""
    units = {}
    coarse = "bfloat16" in str(reader.header.get("stages"))
    for head in reader.heads([]):
        if head.kind not in ("broadcast", "update", "sum") or head.place is None or head.kind in units:
            continue
        try:
            payload = reader.payload(head)
        except (StoreError, Torn):
            continue
        found = [array.dtype for name, array in payload.items() if name in ("params", "change")]
        units[head.kind] = max((_unit(dtype, coarse) for dtype in found), default=0.0)
        if len(units) == 2:
            break
    return max(units.values(), default=0.0) or None


def _unit(dtype: np.dtype[Any], coarse: bool) -> float:
    if dtype.kind != "f":
        return 2.0**-8 if coarse else 0.0  # bfloat16 travels as whole numbers
    return float(np.finfo(dtype).eps) / 2

"""The header of a folder of updates from another system: what is known of the training, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

from rivage.core.encoding import parse_json
from rivage.core.errors import DataError
from rivage.core.settings import read
from rivage.core.toml import load_toml
from rivage.learning.params import Entry, ParameterMap

__all__ = ["HEADERS", "WEIGHT", "ImportHeader", "TensorShape", "read_header"]

HEADERS = ("header.toml", "header.json")
"""What the file may be called; there is one of them."""
WEIGHT = "__weight__"
"""The array of a file that holds the weight of an update, and so no name of a tensor."""
_MAX_NUMBERS = 2**27  # of one model: 1 GiB in float64
_MAX_HEADER = 16 << 20


@dataclass(frozen=True, kw_only=True)
class TensorShape:
    """One tensor of the model.

    Args:
        name: as in ``state_dict()``.
        shape: of it.
        frozen: a parameter that is not trained.
    """

    name: str
    shape: tuple[int, ...]
    frozen: bool = False


@dataclass(frozen=True, kw_only=True)
class ImportHeader:
    """What ``header.toml`` says.

    Args:
        loss: registered name of the loss, such as ``cross_entropy``.
        parameters: in the order of ``module.named_parameters()``.
        buffers: floating-point ones that travel, such as running means, in the order of ``module.named_buffers()``.
        ignored: names in the files that do not belong to the vector, such as ``num_batches_tracked``.
        kind: what an update holds: the returned model, its difference to the one that was sent, or one gradient at it.
        method: what trained.
        hyper_parameters: learning rate, epochs, batch size and what else is known.
        differential_privacy: what is claimed.
    """

    loss: str
    parameters: tuple[TensorShape, ...]
    buffers: tuple[TensorShape, ...] = ()
    ignored: tuple[str, ...] = ()
    kind: Literal["model", "delta", "gradient"] = "model"
    method: str = "imported"
    hyper_parameters: Mapping[str, Any] = field(default_factory=dict)
    differential_privacy: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        tensors = (*self.parameters, *self.buffers)
        names = [tensor.name for tensor in tensors]
        for name in sorted({name for name in names if names.count(name) > 1 or name in ("", WEIGHT)}):
            raise DataError(f'"{name}" cannot be the name of a tensor, or is that of two', mend="Give each its own.")
        if not any(prod(tensor.shape) for tensor in self.parameters if not tensor.frozen):
            raise DataError("no parameter is trained", mend="List the parameters of the module.")
        if any(size < 0 for tensor in tensors for size in tensor.shape):
            raise DataError("a shape has a negative number", mend="Give the shapes of the tensors.")
        if (total := sum(prod(tensor.shape) for tensor in tensors)) > _MAX_NUMBERS:
            raise DataError(f"the model has {total} numbers, more than {_MAX_NUMBERS}", mend="Import a smaller part.")
        if secret := {"seed", "seeds", "path", "data"} & self.hyper_parameters.keys():
            raise DataError(f'hyper_parameters hold "{min(secret)}"', mend="Leave it out: an observer knows none.")

    @property
    def layout(self) -> ParameterMap:
        """Trained parameters first, then frozen ones, then buffers."""
        trained = [tensor for tensor in self.parameters if not tensor.frozen]
        frozen = [tensor for tensor in self.parameters if tensor.frozen]
        entries, end = [], 0
        for tensor in (*trained, *frozen, *self.buffers):
            entries.append(Entry(tensor.name, end, tensor.shape))
            end = entries[-1].span.stop
        buffers = tuple(tensor.name for tensor in self.buffers)
        return ParameterMap(tuple(entries), sum(prod(tensor.shape) for tensor in trained), buffers, self.ignored)

    def as_log(self) -> dict[str, Any]:
        """The header of the message log."""
        return {
            **self.layout.as_json(),
            "loss": self.loss,
            "method": self.method,
            "hyper_parameters": dict(self.hyper_parameters),
            "kind": self.kind,
            "secure_aggregation": False,
            "differential_privacy": self.differential_privacy,
        }


def read_header(folder: Path) -> ImportHeader:
    """The header of a folder.

    Raises:
        DataError: if it is not there once, or describes no training.
        ConfigError: for unknown or missing keys.
    """
    found = [folder / name for name in HEADERS if (folder / name).is_file()]
    if len(found) != 1:
        what = "has both header.toml and header.json" if found else "has no header.toml"
        raise DataError(what, where=str(folder), mend="Describe the training in one of them.")
    (path,) = found
    if path.stat().st_size > _MAX_HEADER:
        raise DataError(f"has more than {_MAX_HEADER} bytes", where=str(path), mend="Check that it is the right file.")
    table = load_toml(path) if path.suffix == ".toml" else parse_json(path.read_bytes(), str(path))
    if not isinstance(table, dict):
        raise DataError("is no table", where=str(path), mend="Write an object with the keys of the header.")
    try:
        return read(ImportHeader, table, str(path))
    except DataError as error:
        raise error.at(str(path)) from None

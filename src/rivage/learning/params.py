"""Parameters as values: one flat vector per model, and the map that says what lies where.

The vector of a model holds its trainable parameters first (the first P numbers, in the module's order), then
its frozen parameters and the floating-point buffers it saves (running means and variances). Buffers of other
types, such as BatchNorm's ``num_batches_tracked``, and buffers a module does not save are no numbers to
average: they stay out of the vector, keep the value a fresh module has, and are listed by name.

This is also the only place where torch tensors become NumPy arrays and back; on the CPU the two share their
memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray
from torch import Tensor, nn

from rivage.core.errors import ConfigError

__all__ = ["Entry", "ParameterMap", "bind", "from_numpy", "norm", "to_numpy"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a module and its place in the vector.

    Args:
        name: as in the module's ``state_dict``; a tensor tied to several names has the first.
        offset: position of its first number.
        shape: of the tensor; its numbers lie in row-major order.
    """

    name: str
    offset: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def span(self) -> slice:
        """Its stretch of the vector."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True, slots=True)
class ParameterMap:
    """What lies where in the flat vector of a model.

    Args:
        entries: trainable parameters, then frozen parameters, then buffers; together they tile the vector.
        trainable: P, how many numbers (from the front) are trained.
        buffers: names of the entries that are buffers.
        kept: names of the buffers outside the vector.
    """

    entries: tuple[Entry, ...]
    trainable: int
    buffers: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def dimension(self) -> int:
        """D, the length of the vector."""
        return self.entries[-1].span.stop if self.entries else 0

    @classmethod
    def of(cls, module: nn.Module) -> ParameterMap:
        """The map of a module; tied parameters have one entry.

        Raises:
            ConfigError: if nothing is trainable, a layer has no shape yet, a parameter is not a real
                floating-point number, or two parameters overlap in memory without being the same tensor.
        """
        parameters = dict(module.named_parameters())
        _check(parameters)
        saved = module.state_dict()
        buffers = dict(module.named_buffers())
        carried = {name: b for name, b in buffers.items() if b.is_floating_point() and name in saved}
        trainable = {name: p for name, p in parameters.items() if p.requires_grad}
        frozen = {name: p for name, p in parameters.items() if not p.requires_grad}
        _refuse_overlap({**parameters, **carried})
        return cls(
            _place({**trainable, **frozen, **carried}),
            sum(p.numel() for p in trainable.values()),
            tuple(carried),
            tuple(name for name in buffers if name not in carried),
        )

    def gather(self, module: nn.Module) -> Float[Tensor, "dim"]:
        """The vector of a module, copied."""
        tensors = _tensors(module)
        return self.flatten({entry.name: tensors[entry.name] for entry in self.entries})

    def flatten(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "*lead dim"]:
        """One vector from the tensors of all entries; leading axes (groups, clients) are kept. O(D)."""
        lead = [tensors[entry.name].detach() for entry in self.entries]
        flat = [
            tensor.reshape((*tensor.shape[: tensor.dim() - len(entry.shape)], entry.size))
            for entry, tensor in zip(self.entries, lead, strict=True)
        ]
        return torch.cat(flat, dim=-1)

    def unflatten(self, vector: Float[Tensor, "*lead dim"]) -> dict[str, Tensor]:
        """The inverse of `flatten`: views by name, each of shape ``[*lead, *entry.shape]``; no copy."""
        lead = vector.shape[:-1]
        return {entry.name: vector[..., entry.span].view((*lead, *entry.shape)) for entry in self.entries}

    def mask(self, names: Sequence[str]) -> Bool[Tensor, "dim"]:
        """True where an entry of one of these names lies, or one below it: ``"body"`` stands for ``"body.0.weight"``.

        Raises:
            ConfigError: for a name that stands for nothing.
        """
        result = torch.zeros(self.dimension, dtype=torch.bool)
        for name in names:
            found = [entry for entry in self.entries if f"{entry.name}.".startswith(f"{name.removesuffix('.')}.")]
            if not found:
                known = ", ".join(entry.name for entry in self.entries)
                raise ConfigError(f'no parameter is called "{name}"', mend=f"The model has {known}.")
            for entry in found:
                result[entry.span] = True
        return result

    def as_json(self) -> dict[str, Any]:
        """For headers of logs and files: ``parameters`` and ``buffers`` as lists of {name, offset, shape}.

        ``trainable`` is P, and ``kept`` lists the buffers that do not travel.
        """
        buffers = set(self.buffers)
        form = [{"name": e.name, "offset": e.offset, "shape": list(e.shape)} for e in self.entries]
        return {
            "parameters": [entry for entry in form if entry["name"] not in buffers],
            "buffers": [entry for entry in form if entry["name"] in buffers],
            "trainable": self.trainable,
            "kept": list(self.kept),
        }

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> ParameterMap:
        """The inverse of `as_json`."""
        entries = tuple(
            Entry(entry["name"], entry["offset"], tuple(entry["shape"]))
            for entry in (*form["parameters"], *form["buffers"])
        )
        buffers = tuple(entry["name"] for entry in form["buffers"])
        return cls(entries, form["trainable"], buffers, tuple(form["kept"]))


def _place(tensors: Mapping[str, Tensor]) -> tuple[Entry, ...]:
    ends = np.cumsum([0, *(tensor.numel() for tensor in tensors.values())]).tolist()
    return tuple(
        Entry(name, offset, tuple(tensor.shape))
        for (name, tensor), offset in zip(tensors.items(), ends[:-1], strict=True)
    )


def _check(parameters: Mapping[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        if nn.parameter.is_lazy(parameter):
            raise ConfigError(
                f'parameter "{name}" has no shape before the first batch',
                mend="Give lazy layers their sizes: the model may take the schema as its argument.",
            )
        if not parameter.is_floating_point():
            raise ConfigError(
                f'parameter "{name}" has dtype {parameter.dtype}, which cannot be averaged',
                mend="Use floating-point parameters, or make it a buffer.",
            )
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise ConfigError("the model has no trainable parameter", mend="Leave requires_grad=True on some of them.")


def _refuse_overlap(tensors: Mapping[str, Tensor]) -> None:
    """Binding would tear tensors apart that share memory, and then they would train as two."""
    stretches = sorted(_stretches(tensors))
    for (storage, _, end, first), (other, start, _, second) in pairwise(stretches):
        if storage == other and start < end:
            raise ConfigError(
                f'"{first}" and "{second}" are different views of the same memory',
                mend="Tie weights by assigning the same Parameter object to both layers.",
            )


def _stretches(tensors: Mapping[str, Tensor]) -> Iterator[tuple[int, int, int, str]]:
    for name, tensor in tensors.items():
        if tensor.numel():
            reach = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
            start = int(tensor.storage_offset())
            yield tensor.untyped_storage().data_ptr(), start, start + int(reach) + 1, name


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def bind(module: nn.Module, layout: ParameterMap) -> Float[Tensor, "dim"]:
    """Make the parameters and buffers of a module views of one flat vector.

    Writing to the vector changes the module, and training the module (in place, as optimisers and BatchNorm
    do) changes the vector. Tied parameters stay tied. Values, dtype and device are those of the module
    before.

    Args:
        module: changed in place; all entries have one dtype and device.
        layout: its map.

    Returns:
        The vector.
    """
    vector = layout.gather(module)
    tensors = _tensors(module)
    for name, view in layout.unflatten(vector).items():
        # Assigning data keeps the Parameter object, and with it ties, hooks and an LSTM's list of weights.
        tensors[name].data = view
    return vector


def norm(vectors: Float[Tensor, "*lead dim"]) -> Float[Tensor, "*lead one"]:
    """Euclidean norm along the last axis, which is kept with length 1 so that it broadcasts."""
    result: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return result


def to_numpy(tensor: Shaped[Tensor, "*shape"]) -> Shaped[ndarray, "*shape"]:
    """A tensor as an array; on the CPU both share their memory."""
    array: ndarray = tensor.detach().cpu().numpy()
    return array


def from_numpy(
    array: Shaped[ndarray, "*shape"],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Shaped[Tensor, "*shape"]:
    """An array as a tensor; on the CPU both share their memory.

    It is copied where that cannot be: another dtype or device, a read-only array (torch tensors are always
    writable), or memory that is not contiguous.
    """
    if not (array.flags.carray and array.flags.writeable):
        array = np.require(array, requirements=("C", "A", "W"))
    tensor: Tensor = torch.from_numpy(array)
    return tensor.to(device=device, dtype=dtype)

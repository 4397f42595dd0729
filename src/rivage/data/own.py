"""A user's own arrays: an ``.npz`` file, or whatever a Python function returns."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from rivage.core.errors import DataError, RivageError, nearest
from rivage.core.registry import locate
from rivage.data.dataset import Dataset, TargetType, dataset_of
from rivage.data.population import Population

__all__ = ["NpzFile", "PythonFunction"]

_OPTIONAL = ("client", "test", "coarse")


@dataclass(frozen=True, slots=True)
class NpzFile:
    """Arrays ``x`` and ``y`` of one file, as `numpy.savez` writes them.

    Optional arrays of one value per record: ``client`` (its name or number: the data are split already),
    ``test`` (true for records reserved for test), ``coarse`` (super-class, for the Pachinko partition).

    Args:
        path: the ``.npz`` file.
        target_type: what y is; left out, reals are numbers with a fraction, and everything else is classes.
    """

    path: Path
    target_type: TargetType | None = None

    def load(self, seed: int) -> Dataset:
        """Read the file.

        Raises:
            DataError: if it is missing, no ``.npz`` file, holds Python objects, or lacks x or y.
        """
        source = f'arrays "{self.path}"'
        arrays = _read_npz(self.path, source)
        for name in ("x", "y"):
            if name not in arrays:
                raise DataError(
                    f'there is no array "{name}"',
                    where=source,
                    mend=f"{nearest(name, arrays)} It holds: {', '.join(arrays) or 'nothing'}.".strip(),
                )
        x, y = arrays["x"], arrays["y"]
        return dataset_of(x, y, source=source, target_type=self.target_type, **_placed(arrays, len(y), source))


@dataclass(frozen=True, slots=True)
class PythonFunction:
    """What a function of yours returns: it is called as ``function(seed=seed, **options)``.

    It may return a pair ``(x, y)`` of arrays (to be split by a partition), a mapping from client name to
    such a pair, a `Dataset`, or a whole `Population`.

    Args:
        function: import path, ``"my_pkg.data:make"``.
        options: further keyword arguments.
    """

    function: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self, seed: int) -> Dataset | Population:
        """Call the function.

        Raises:
            ConfigError: if it cannot be imported.
            DataError: if it returns something else.
        """
        source = f'python "{self.function}"'
        function = locate(self.function, where="[data] function")
        try:
            made = function(seed=seed, **self.options)
        except RivageError:
            raise
        except Exception as error:  # whatever a user's code raises is about that code
            raise DataError(
                f"the function failed ({type(error).__name__}: {error})",
                where=source,
                mend="It is called with seed and [data.options]; --verbose shows where it failed.",
            ) from error
        if isinstance(made, Dataset):
            return made
        if hasattr(type(made), "client"):
            return cast(Population, made)
        if isinstance(made, Mapping) and made:
            return _of_clients(made, source)
        if isinstance(made, tuple) and len(made) == 2:
            return dataset_of(*made, source=source)
        raise DataError(
            f"the function returned {type(made).__name__}",
            where=source,
            mend="Return (x, y), a mapping from client name to (x, y), a Dataset or a Population.",
        )


def _read_npz(path: Path, source: str) -> dict[str, Shaped[ndarray, "..."]]:
    if not path.is_file():
        raise DataError(f'there is no file "{path}"', where="[data] path", mend="Give the path of an .npz file.")
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, ndarray):
                raise ValueError("it is a single array without a name")
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        # NumPy takes what it does not know for a pickle, and advises to load it unsafely.
        reason = "it is no .npz file" if "pickled" in str(error) else error
        raise DataError(
            f"the file cannot be read ({reason})",
            where=source,
            mend="Write it with numpy.savez from arrays of numbers or text, not of Python objects.",
        ) from error


def _placed(arrays: Mapping[str, Shaped[ndarray, "..."]], size: int, source: str) -> dict[str, Any]:
    """The optional arrays as fields of a `Dataset`."""
    for name in _OPTIONAL:
        if name in arrays and arrays[name].shape != (size,):
            raise DataError(
                f'array "{name}" has shape {arrays[name].shape}',
                where=source,
                mend=f"Give one value for each of the {size} records.",
            )
    placed: dict[str, Any] = {}
    if "client" in arrays:
        names, placed["clients"] = np.unique(arrays["client"], return_inverse=True)
        placed["names"] = tuple(str(name) for name in names.tolist())
    if "test" in arrays:
        placed["test"] = arrays["test"].astype(bool)
    if "coarse" in arrays:
        placed["coarse"] = np.unique(arrays["coarse"], return_inverse=True)[1]
    return placed


def _of_clients(made: Mapping[Any, Any], source: str) -> Dataset:
    """Pairs of arrays, one per client, end to end."""
    inputs, targets = [], []
    for name, pair in made.items():
        place = f'{source}, client "{name}"'
        if not isinstance(pair, tuple) or len(pair) != 2 or len(pair[0]) != len(pair[1]) or not len(pair[0]):
            raise DataError("no pair (x, y) of equal length", where=place, mend="Give arrays with records.")
        inputs.append(np.asarray(pair[0]))
        targets.append(np.asarray(pair[1]))
        if (inputs[-1].shape[1:], targets[-1].shape[1:]) != (inputs[0].shape[1:], targets[0].shape[1:]):
            raise DataError(
                f"records have shapes {inputs[-1].shape[1:]} and {targets[-1].shape[1:]}, those of the first "
                f"client {inputs[0].shape[1:]} and {targets[0].shape[1:]}",
                where=place,
                mend="Give the same inputs and targets everywhere.",
            )
    return dataset_of(
        np.concatenate(inputs),
        np.concatenate(targets),
        source=source,
        clients=np.repeat(np.arange(len(inputs)), [len(x) for x in inputs]),
        names=tuple(str(name) for name in made),
    )

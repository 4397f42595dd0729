"""What readers of traces have in common: a block as it stands in the file, and the words for a fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Shaped
from numpy import ndarray

from rivage.core.errors import DataError
from rivage.data.keys import Keys

__all__ = ["Batch", "fault"]


@dataclass(frozen=True, slots=True)
class Batch:
    """One block as it stands in the file.

    Args:
        keys: one per request.
        place: tells where a value stands, from its position here and the name of its column.
        columns: what else there is; values in order, of the types of `RequestTrace`.
        hint: what else to do about values that cannot be, after " ".
    """

    keys: Keys
    place: Callable[[int, str], str]
    columns: Mapping[str, Shaped[ndarray, "n"]] = field(default_factory=dict)
    hint: str = ""


def fault(path: Path, place: str, what: str, mend: str) -> DataError:
    """An error at a place of a file; none is the file itself."""
    return DataError(what, where=f"{path}, {place}" if place else str(path), mend=mend)

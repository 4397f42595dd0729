"""Names beside points of a drawing, where they hide little."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

__all__ = ["Label", "outside", "place_labels"]

_SIDES = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
_WIDE, _HIGH = 0.64, 1.15  # of a letter, in sizes of the font

Box = Float64[ndarray, "4"]


@dataclass(frozen=True, slots=True)
class Label:
    """A name and where it goes.

    Args:
        text: the name.
        point: position among the points.
        away: from the point, across and up, in points of 1/72 inch.
        sides: Matplotlib's ``ha`` and ``va``.
    """

    text: str
    point: int
    away: tuple[float, float]
    sides: dict[str, Any]


def place_labels(
    texts: Sequence[str],
    which: Sequence[int],
    points: Float64[ndarray, "points 2"],
    *,
    size: float,
    taken: Iterable[Box] = (),
    radius: float = 3.0,
    most: float = np.inf,
) -> list[Label]:
    """A side for each name, one after another, where it covers least of points, names and what else is taken.

    Args:
        texts: the names.
        which: position of each among the points.
        points: across and up, in points of 1/72 inch.
        size: of the font, in points.
        taken: left, bottom, right, top of boxes that are better left free.
        radius: of the points.
        most: share of its area that a name may cover of all these; others are left out.
    """
    boxes = [*taken, *(np.concatenate([point - radius, point + radius]) for point in points)]
    labels = list[Label]()
    for text, point in zip(texts, which, strict=True):
        width, height = _WIDE * size * len(text), _HIGH * size
        found = [_box(points[point], side, radius + 3, width, height) for side in _SIDES]
        covered = [_covered(box, boxes) for box in found]
        best = min(range(len(_SIDES)), key=lambda k: (covered[k], k))
        if covered[best] <= most * width * height:
            boxes.append(found[best])
            labels.append(_label(text, point, _SIDES[best], radius + 3))
    return labels


def outside(width: float, height: float) -> Iterator[Box]:
    """Boxes around a drawing, for `place_labels`: what is there is cut off."""
    far = 1e4
    for left, right in ((-far, 0.0), (width, far)):
        yield np.array([left, -far, right, far])
    for bottom, top in ((-far, 0.0), (height, far)):
        yield np.array([-far, bottom, far, top])


def _label(text: str, point: int, side: tuple[int, int], away: float) -> Label:
    across, up = side
    sides = {"ha": ("center", "left", "right")[across], "va": ("center", "bottom", "top")[up]}
    return Label(text, point, _step(side, away), sides)


def _step(side: tuple[int, int], away: float) -> tuple[float, float]:
    """Diagonal sides are as far from the point as the others."""
    length = away / float(np.hypot(*side))
    return side[0] * length, side[1] * length


def _box(point: Any, side: tuple[int, int], away: float, width: float, height: float) -> Box:
    across, up = _step(side, away)
    left = point[0] + across - width * (1 - side[0]) / 2
    bottom = point[1] + up - height * (1 - side[1]) / 2
    return np.array([left, bottom, left + width, bottom + height])


def _covered(box: Box, others: Sequence[Box]) -> float:
    """Area that a box shares with others."""
    every = np.array(others)
    sides = np.minimum(box[2:], every[:, 2:]) - np.maximum(box[:2], every[:, :2])
    return float(np.prod(np.maximum(sides, 0.0), axis=1).sum())

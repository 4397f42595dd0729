"""Requests that several tests of this folder ask for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture
def requests_of() -> Callable[..., np.ndarray]:
    """Popular items, then all in turn, again and again: many fall to 0 and come back."""

    def made(items: int, count: int, seed: int = 0) -> np.ndarray:
        random = np.random.default_rng(seed)
        popularity = 1 / np.arange(1, items + 1) ** 0.8
        parts = []
        for number in range(10):
            if number % 2:
                parts.append(np.arange(count // 10) % items)
            else:
                parts.append(random.choice(items, count // 10, p=popularity / popularity.sum()))
        return np.concatenate(parts)

    return made

"""What is known of all silos together: the average model and how far the silos are from it.

Nothing of this is part of the method, which knows neighbours only. At evaluations, and not in between, the trained
models go to silo 0, which returns their average: this traffic does not follow the overlay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from rivage.decentralized.torchdist.company import Company
from rivage.decentralized.torchdist.transport import Transport

__all__ = ["Census"]

_TAG = 1 << 30  # after all rounds


class Census:
    """Collects models at silo 0. A context, as its transport is.

    Args:
        company: all silos.
        like: a model, or the models of a silo.
        times: how often averages may be asked for.
    """

    def __init__(self, company: Company, like: Float[Tensor, "*groups dim"], times: int) -> None:
        self._company, self._leg = company, 0
        self._transport = Transport(
            company.group,
            company.rank,
            self._legs,
            first=0,
            end=2 * times + 1,
            like=like,
            watch=company.watch,
            ahead=0,
            tag=_TAG,
        )

    def __enter__(self) -> Self:
        self._transport.__enter__()
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self._transport.__exit__(kind, *error)

    def average(self, model: Float[Tensor, "*groups dim"]) -> tuple[Float[Tensor, "*groups dim"], float | None]:
        """The mean of all silos' models w_i; at silo 0 also the mean over silos and entries of (w_i − w̄)²."""
        models = self.gather(model)
        mean, spread = model, None
        if models is not None:
            mean = models.mean(dim=0)
            spread = float((models - mean).square().mean())
        came = self._exchange(mean)
        return (mean, spread) if models is not None else (came[0], None)

    def gather(self, model: Float[Tensor, "*groups dim"]) -> Float[Tensor, "silos *groups dim"] | None:
        """The models of all silos, at silo 0, in their order; None elsewhere. After all averages, once."""
        came = self._exchange(model)
        if self._company.rank:
            return None
        return torch.stack([model, *(came[silo] for silo in range(1, self._company.size))])

    def _exchange(self, vector: Float[Tensor, "*groups dim"]) -> dict[int, Float[Tensor, "*groups dim"]]:
        self._leg += 1
        return self._transport.exchange(self._leg - 1, vector)

    def _legs(self, leg: int) -> Sequence[tuple[int, int]]:
        """To silo 0 and back, in turn."""
        others = range(1, self._company.size)
        return [(0, silo) if leg % 2 else (silo, 0) for silo in others]

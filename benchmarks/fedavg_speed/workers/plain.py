"""The loop that everyone writes first: deepcopy, `torch.optim.SGD`, one client after the other, one thread."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models import build, flat, loss_of
from ..protocol import serve
from ..replay import Replay

__all__ = ["Plain", "trained"]


class Plain:
    """Federated averaging without a framework."""

    def setup(self, replay: Replay, variant: Mapping[str, Any]) -> dict[str, str]:
        """Build the model."""
        torch.set_num_threads(int(variant.get("threads", 1)))
        self.replay = replay
        self.model = build(replay.settings, torch.from_numpy(replay.initial))
        return {"torch": torch.__version__}

    def round(self, number: int) -> None:
        """Train every client, then average by numbers of records."""
        states: list[Mapping[str, Tensor]] = []
        sizes: list[int] = []
        for client, batches in self.replay.turns(number):
            x, y = self.replay.records(client)
            states.append(trained(self.model, (x, y), batches, self.replay.settings.learning_rate).state_dict())
            sizes.append(len(y))
        shares = [size / sum(sizes) for size in sizes]
        self.model.load_state_dict(
            {name: sum(share * state[name] for share, state in zip(shares, states, strict=True)) for name in states[0]}
        )

    def finish(self) -> np.ndarray:
        """The shared model."""
        result: np.ndarray = flat(self.model).numpy()
        return result


def trained(
    model: nn.Module, records: tuple[np.ndarray, np.ndarray], batches: Sequence[np.ndarray], rate: float
) -> nn.Module:
    """A copy of the model after one step of SGD per mini-batch."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    x, y = map(torch.from_numpy, records)
    for rows in map(torch.from_numpy, batches):
        optimizer.zero_grad()
        loss_of(model, x[rows], y[rows]).backward()
        optimizer.step()
    return model


if __name__ == "__main__":
    serve(Plain())

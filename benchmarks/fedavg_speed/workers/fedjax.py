"""FedJAX (`fedjax`): `for_each_client` with one compiled step, `ClientDataset` with padded batches, tree means.

Not `fedjax.algorithms.fed_avg`: its batches are filled up with further records, which is other work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

import fedjax
import jax
import jax.numpy as jnp
import numpy as np

from ..protocol import serve
from ..replay import Replay
from .jax_models import cut, joined, loss_of

__all__ = ["FedJax"]

jax.tree_map = jax.tree_util.tree_map  # FedJAX 0.0.17 calls it by a name that JAX has dropped since


class FedJax:
    """Federated averaging with FedJAX's parts."""

    def setup(self, replay: Replay, variant: Mapping[str, Any]) -> dict[str, str]:
        """Define what a client does."""
        self.replay, rate = replay, replay.settings.learning_rate
        gradient = jax.grad(loss_of(replay.settings))

        def step(params: Any, batch: Any) -> Any:
            found = gradient(params, batch["x"], batch["y"], batch[fedjax.EXAMPLE_MASK_KEY])
            return jax.tree_util.tree_map(lambda value, slope: value - rate * slope, params, found)

        self.train = fedjax.for_each_client(lambda shared, _: shared, step, lambda _, params: params)
        self.params = [jnp.asarray(part) for part in cut(replay.settings, replay.initial)]
        return {name: version(name) for name in ("fedjax", "jax", "jaxlib")}

    def round(self, number: int) -> None:
        """Train every client, then average by numbers of records."""
        sizes = {client: len(self.replay.records(client)[1]) for client in self.replay.cohorts[number].tolist()}
        trained = self.train(self.params, self._clients(number))
        self.params = fedjax.tree_util.tree_mean((params, sizes[client]) for client, params in trained)
        jax.block_until_ready(self.params)

    def _clients(self, number: int) -> Iterator[tuple[int, Any, None]]:
        for client, rows in self.replay.order(number).items():
            x, y = self.replay.records(client)
            data = fedjax.ClientDataset({"x": x[rows], "y": y[rows]})
            yield client, data.padded_batch(batch_size=self.replay.settings.batch_size), None

    def finish(self) -> np.ndarray:
        """The shared model."""
        return joined(self.replay.settings, self.params)


if __name__ == "__main__":
    serve(FedJax())

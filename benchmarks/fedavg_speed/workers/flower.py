"""Flower's simulation (`flwr[simulation]`): its grid, its messages, its FedAvg strategy, one Ray actor per core.

The cohort comes from the schedule, so the strategy's own sampling is not used.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1", RAY_USAGE_STATS_ENABLED="0")

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from ..protocol import Gate, serve
from ..replay import Replay
from .flower_client import app, split

__all__ = ["Flower"]


class Flower:
    """A server that sends out messages and averages the replies, round by round."""

    def setup(self, replay: Replay, variant: Mapping[str, Any]) -> dict[str, str]:
        """Start Ray, the actors and the server's loop."""
        self.replay, self.number, self.gate = replay, -1, Gate()
        self.arrays = ArrayRecord(numpy_ndarrays=split(replay))
        server = ServerApp()
        server.main()(self._loop)
        workers = int(variant.get("workers") or os.cpu_count() or 1)
        settings = {"client_resources": {"num_cpus": 1}, "init_args": {"num_cpus": workers, "log_to_driver": False}}
        self.gate.run(
            lambda: run_simulation(
                server, app, num_supernodes=replay.clients, backend_name="ray", backend_config=settings
            )
        )
        return {name: version(name) for name in ("flwr", "ray", "torch")}

    def _loop(self, grid: Grid, context: Context) -> None:
        strategy = FedAvg()
        while len(nodes := sorted(grid.get_node_ids())) < self.replay.clients:  # they register one after the other
            time.sleep(0.1)
        while True:
            self.gate.wait()
            messages = [self._message(client, nodes[client]) for client in self.replay.cohorts[self.number].tolist()]
            replies = list(grid.send_and_receive(messages))
            assert not any(reply.has_error() for reply in replies), [reply.error for reply in replies]
            assert len(replies) == len(messages), "a reply for every message"
            self.arrays, _ = strategy.aggregate_train(self.number, replies)

    def _message(self, client: int, node: int) -> Message:
        where = {"folder": str(self.replay.folder), "round": self.number, "client": client}
        content = RecordDict({"arrays": self.arrays, "config": ConfigRecord(where)})
        return Message(content=content, message_type=MessageType.TRAIN, dst_node_id=node)

    def round(self, number: int) -> None:
        """Let the loop go round once."""
        self.number = number
        self.gate.step()

    def finish(self) -> np.ndarray:
        """The shared model."""
        return np.concatenate([array.ravel() for array in self.arrays.to_numpy_ndarrays()])


if __name__ == "__main__":
    serve(Flower())

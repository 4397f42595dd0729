"""What there is to be seen of a recorded training, through the eyes of each attacker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxtyping import Float
from numpy import ndarray

from rivage.core.seeding import Streams
from rivage.federated.trial import Trial
from rivage.learning.bundle import ModelBundle
from rivage.privacy.views import (
    ActiveServer,
    CuriousClient,
    CuriousServer,
    Eavesdropper,
    Recorded,
    Refused,
    ReleasedModel,
    SecAggServer,
)
from rivage.studies.audit_clients import LiveClients
from rivage.studies.models import MODELS

__all__ = ["Views"]


@dataclass(frozen=True)
class Views:
    """Makes the views of one log.

    Args:
        trial: whose clients an active server can still ask.
        recorded: the log.
        models: file of the trained models; None without.
        exchanges: client -> rounds in which it answered.
        streams: for clients that go on training.
    """

    trial: Trial
    recorded: Recorded
    models: Path | None
    exchanges: Mapping[int, int]
    streams: Streams

    def of(self, view: type, client: int | None) -> Any:
        """A view, of one target or of all.

        Raises:
            Refused: where there is none.
        """
        if view is ReleasedModel:
            return ReleasedModel(self.recorded.header, self._final)
        if view is SecAggServer or view is CuriousServer:
            return view(self.recorded)
        if view is ActiveServer:
            return ActiveServer(self.recorded, self._live)
        if view is CuriousClient:
            return CuriousClient(self.recorded, self._curious(client))
        if view is Eavesdropper and client is not None:
            return Eavesdropper(self.recorded, client)
        raise Refused(f"there is no view {view.__name__} to be had of a log")

    @cached_property
    def _live(self) -> LiveClients:
        return LiveClients(self.trial, self.streams)

    @cached_property
    def _final(self) -> Float[ndarray, "*groups dim"]:
        """The model for clients that nobody knows yet."""
        if self.models is None or not self.models.exists():
            mend = f"Give a run folder whose trial has {MODELS}; a log by itself tells of no final model."
            raise Refused("no final model is at hand", mend=mend)
        bundle = ModelBundle.load(self.models)
        if bundle.newcomer is None:
            raise Refused("the method releases no model: every client has one of its own")
        params, _ = bundle.parts(None)
        return params[0] if len(params) == 1 else params

    def _curious(self, target: int | None) -> int:
        """Who is curious: the client that has been asked most often, beside the target."""
        others = {client: count for client, count in self.exchanges.items() if client != target}
        if not others:
            raise Refused("there is no other client that could be curious")
        return max(others, key=lambda client: (others[client], -client))

    def close(self) -> None:
        """Let the workers go."""
        if "_live" in self.__dict__:
            self._live.close()

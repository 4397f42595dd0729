"""Where and how local training runs: a setting, never a change of the result beyond rounding."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch

from rivage.core.errors import ConfigError, require

__all__ = ["Execution"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How the clients of a round are trained.

    Args:
        executor: ``tiled`` trains many clients of a dense chain in one batched product, ``functional`` any module one
            client at a time; ``auto`` takes tiles where the model is a chain.
        workers: how many train at the same time, >= 1; None is one per core. Results do not depend on it.
        pool: whether workers are ``threads`` or ``processes``; ``auto`` takes threads, and processes for long runs of
            models with dropout. Tiles always run in threads.
        device: ``cpu``, ``cuda:0``, or ``auto``: a GPU if torch sees one.
        tile_bytes: parameters of the clients in one tile, at most; None is measured once per machine.
    """

    executor: Literal["auto", "functional", "tiled"] = "auto"
    workers: int | None = None
    pool: Literal["auto", "threads", "processes"] = "auto"
    device: str = "auto"
    tile_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None:
            require(self.workers, "workers", least=1)
        if self.tile_bytes is not None:
            require(self.tile_bytes, "tile_bytes", least=1)

    @property
    def resolved_workers(self) -> int:
        """As asked for, or one for each core that this process may use."""
        if self.workers is not None:
            return self.workers
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    @property
    def resolved_device(self) -> torch.device:
        """Where to compute.

        Raises:
            ConfigError: for a device that is not there.
        """
        if self.device == "auto":
            return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise _no_device(f'"{self.device}" is no device') from error
        if device.type == "cuda" and not torch.cuda.is_available():
            raise _no_device(f'"{self.device}" was asked for, but torch sees no GPU')
        return device


def _no_device(what: str) -> ConfigError:
    return ConfigError(what, where="[run] device", mend='Use "auto", "cpu" or "cuda:0".')

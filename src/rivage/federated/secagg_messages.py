"""What clients and server say to one another in secure aggregation, and how it looks on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from rivage.core.messages import Payload
from rivage.federated.secagg_field import Residues
from rivage.federated.secagg_keys import KEY_BYTES
from rivage.federated.shamir import SHARE_BYTES

__all__ = ["Boxes", "Keys", "Masked", "Neighbours", "Shares", "Survivors"]


@dataclass(frozen=True, slots=True)
class Keys:
    """Stage 1, up: a client's public keys.

    Args:
        box: to seal shares for it.
        mask: to agree on masks with it.
    """

    box: bytes
    mask: bytes

    def payload(self) -> Payload:
        """2 x 32 bytes."""
        return {"keys": _rows([self.box, self.mask], KEY_BYTES)}

    @classmethod
    def of(cls, payload: Payload) -> Keys:
        """The inverse of `payload`."""
        box, mask = payload["keys"]
        return cls(box.tobytes(), mask.tobytes())


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Stage 1, down: whom a client exchanges masks with.

    Args:
        keys: of the neighbours that advertised any, ascending.
        threshold: t, shares that recover a secret.
    """

    keys: Mapping[int, Keys]
    threshold: int

    def payload(self) -> Payload:
        """72 bytes for each neighbour, and 8."""
        keys = [part for each in self.keys.values() for part in (each.box, each.mask)]
        return {
            "clients": _numbers(self.keys),
            "keys": _rows(keys, KEY_BYTES).reshape(-1, 2, KEY_BYTES),
            "threshold": np.array([self.threshold]),
        }

    @classmethod
    def of(cls, payload: Payload) -> Neighbours:
        """The inverse of `payload`."""
        keys = [Keys(box.tobytes(), mask.tobytes()) for box, mask in payload["keys"]]
        return cls(dict(zip(payload["clients"].tolist(), keys, strict=True)), int(payload["threshold"][0]))


@dataclass(frozen=True, slots=True)
class Boxes:
    """Stage 2, in both directions: sealed shares.

    Args:
        boxes: by receiver on the way up, by sender on the way down; all of one length.
    """

    boxes: Mapping[int, bytes]

    def payload(self) -> Payload:
        """8 bytes and the box for each."""
        width = len(next(iter(self.boxes.values()), b""))
        return {"clients": _numbers(self.boxes), "boxes": _rows(list(self.boxes.values()), width)}

    @classmethod
    def of(cls, payload: Payload) -> Boxes:
        """The inverse of `payload`."""
        boxes = [box.tobytes() for box in payload["boxes"]]
        return cls(dict(zip(payload["clients"].tolist(), boxes, strict=True)))


@dataclass(frozen=True, slots=True)
class Masked:
    """Stage 3, up: numbers under their masks."""

    vector: Residues

    def payload(self) -> Payload:
        """b/8 bytes for each number."""
        return {"masked": self.vector}

    @classmethod
    def of(cls, payload: Payload) -> Masked:
        """The inverse of `payload`."""
        return cls(payload["masked"])


@dataclass(frozen=True, slots=True)
class Survivors:
    """Stage 4, down: whose shares the server asks a client for; no client stands in both lists.

    Args:
        arrived: whose masked numbers arrived, the client among them: it asks for their own masks.
        lost: who shared secrets and sent no numbers: it asks for their keys.
    """

    arrived: Sequence[int]
    lost: Sequence[int]

    def payload(self) -> Payload:
        """8 bytes for each client."""
        return {"arrived": _numbers(self.arrived), "lost": _numbers(self.lost)}

    @classmethod
    def of(cls, payload: Payload) -> Survivors:
        """The inverse of `payload`."""
        return cls(payload["arrived"].tolist(), payload["lost"].tolist())


@dataclass(frozen=True, slots=True)
class Shares:
    """Stage 4, up: the shares asked for, in the order of the question."""

    own_masks: Sequence[bytes]
    keys: Sequence[bytes]

    def payload(self) -> Payload:
        """33 bytes for each."""
        return {"own_masks": _rows(self.own_masks, SHARE_BYTES), "keys": _rows(self.keys, SHARE_BYTES)}

    @classmethod
    def of(cls, payload: Payload) -> Shares:
        """The inverse of `payload`."""
        return cls([share.tobytes() for share in payload["own_masks"]], [share.tobytes() for share in payload["keys"]])


def _rows(parts: Sequence[bytes], width: int) -> UInt8[ndarray, "n width"]:
    return np.frombuffer(b"".join(parts), np.uint8).reshape(len(parts), width)


def _numbers(clients: Mapping[int, object] | Sequence[int]) -> Int64[ndarray, "n"]:
    return np.fromiter(clients, np.int64, len(clients))

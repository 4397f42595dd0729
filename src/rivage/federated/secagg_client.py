"""A client of secure aggregation: it hands out nothing that shows its numbers while the protocol is followed.

Client u draws two keys of X25519 and a seed b_u, and shares b_u and the secret of its second key among its neighbours
and itself. Its numbers x leave it as

    y_u = x_u + G(b_u) + Σ_{v ∈ N(u), v > u} G(s_uv) − Σ_{v ∈ N(u), v < u} G(s_uv)  mod R,

with G a stream of numbers made from 32 bytes and s_uv what u and v agree on. It counts only neighbours that shared
their secrets as well: no other mask could be taken off. In the last stage it gives, for every other client, its share
of b *or* its share of the key, never both: with both, the server could uncover numbers that arrived late.

References:
    Bonawitz, Ivanov, Kreuter, Marcedone, McMahan, Patel, Ramage, Segal, Seth. Practical secure aggregation for
    privacy-preserving machine learning. CCS 2017, doi 10.1145/3133956.3133982.
    Bell, Bonawitz, Gascón, Lepoint, Raykova. Secure single-server aggregation with (poly)logarithmic overhead. CCS
    2020 (the protocol for parties that are honest but curious).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rivage.core.errors import ProtocolError
from rivage.federated.secagg_field import Residues, Ring
from rivage.federated.secagg_keys import KEY_BYTES, KeyPair, agree, key_pair, opened, sealed
from rivage.federated.secagg_messages import Boxes, Keys, Masked, Neighbours, Shares, Survivors
from rivage.federated.shamir import SHARE_BYTES, split

__all__ = ["Client", "add_masks"]


class Client:
    """One client in one round.

    Args:
        number: of the client.
        round: which the keys are bound to.
        ring: where numbers are added up.
        draw: so many random bytes; keys are drawn first, then the coefficients of the shares.
    """

    def __init__(self, number: int, round: int, ring: Ring, draw: Callable[[int], bytes]) -> None:
        self.number, self._round, self._ring, self._draw = number, round, ring, draw
        self._box, self._mask = key_pair(draw(KEY_BYTES)), key_pair(draw(KEY_BYTES))
        self._seed = draw(KEY_BYTES)
        self._threshold = 0
        self._neighbours: Mapping[int, Keys] = {}
        self._boxes: Mapping[int, bytes] = {}
        self._own: tuple[bytes, bytes] = (b"", b"")
        self._box_keys: dict[int, bytes] = {}

    def keys(self) -> Keys:
        """Stage 1: the public keys."""
        return Keys(self._box.public, self._mask.public)

    def share(self, neighbours: Neighbours) -> Boxes | None:
        """Stage 2: shares of seed and key, sealed for each neighbour; None when there are too few to share with."""
        self._neighbours, self._threshold = neighbours.keys, neighbours.threshold
        if len(neighbours.keys) + 1 < neighbours.threshold:
            return None
        holders = [number + 1 for number in (self.number, *neighbours.keys)]
        seeds, keys = (split(part, holders, self._threshold, self._draw) for part in (self._seed, self._mask.secret))
        self._own = seeds[0], keys[0]
        return Boxes(
            {
                other: sealed(self._box_key(other), self.number, seed + key)
                for other, seed, key in zip(neighbours.keys, seeds[1:], keys[1:], strict=True)
            }
        )

    def receive(self, boxes: Boxes) -> bool:
        """End of stage 2: the shares of others; whether there are enough of them to go on."""
        self._boxes = {sender: box for sender, box in boxes.boxes.items() if sender in self._neighbours}
        return len(self._boxes) + 1 >= self._threshold

    def mask(self, numbers: Residues) -> Masked:
        """Stage 3: the numbers under all masks."""
        total = numbers.copy()
        self._ring.add(total, self._seed)
        others = {other: self._neighbours[other].mask for other in self._boxes}
        add_masks(total, self.number, self._mask, others, self._round, self._ring)
        return Masked(total)

    def unmask(self, asked: Survivors) -> Shares:
        """Stage 4: the shares that take the masks off.

        Raises:
            ProtocolError: for a question that would uncover single numbers.
        """
        both = set(asked.arrived) & set(asked.lost)
        known = {self.number, *self._boxes}
        if both or not known.issuperset(asked.arrived) or not known.issuperset(asked.lost) or self.number in asked.lost:
            raise ProtocolError(
                f"client {self.number} is asked for both kinds of shares, or for shares it does not have",
                mend="Check the server: it does not follow the protocol.",
            )
        if len(asked.arrived) < self._threshold:
            raise ProtocolError(
                f"client {self.number} is asked to unmask {len(asked.arrived)} where {self._threshold} are needed",
                mend="Check the server: it does not follow the protocol.",
            )
        return Shares([self._held(other)[0] for other in asked.arrived], [self._held(other)[1] for other in asked.lost])

    def _held(self, other: int) -> tuple[bytes, bytes]:
        """Shares of another client's seed and key."""
        if other == self.number:
            return self._own
        plain = opened(self._box_key(other), other, self._boxes[other])
        return plain[:SHARE_BYTES], plain[SHARE_BYTES:]

    def _box_key(self, other: int) -> bytes:
        if other not in self._box_keys:
            purpose = _purpose(b"box", self._round, self.number, other)
            self._box_keys[other] = agree(self._box, self._neighbours[other].box, purpose)
        return self._box_keys[other]


def add_masks(
    total: Residues, number: int, pair: KeyPair, others: Mapping[int, bytes], round: int, ring: Ring, sign: int = 1
) -> None:
    """Add what one client and each of the others agree on, with the client's signs; changes ``total``.

    Args:
        total: where to add.
        number: of the client.
        pair: its key for masks.
        others: public keys for masks.
        round: which the keys are bound to.
        ring: of the numbers.
        sign: −1 takes the masks off.
    """
    for other, public in others.items():
        seed = agree(pair, public, _purpose(b"mask", round, number, other))
        ring.add(total, seed, sign if other > number else -sign)


def _purpose(what: bytes, round: int, one: int, other: int) -> bytes:
    """The same for both clients."""
    return b"rivage secagg " + what + b"".join(part.to_bytes(8) for part in (round, min(one, other), max(one, other)))

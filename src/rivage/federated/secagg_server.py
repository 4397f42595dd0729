"""The server of secure aggregation: it relays sealed shares, adds up masked numbers, and takes off what remains.

With A2 the clients that shared their secrets and A3 ⊆ A2 those whose masked numbers arrived, the masks between two of
A3 cancel in Σ_{u ∈ A3} y_u. What remains are the own masks G(b_u) of A3 and the masks that A3 agreed on with those of
A2 that were lost: t shares recover b_u of the former and the key of the latter, and the server makes the masks anew.
Then the sum is that of the numbers, exactly. Where fewer than t shares of a needed secret are left nothing can be read,
and the round is given up.

The server learns who took part, and the sum. It holds one vector whatever the number of clients.

Time, with n clients, k neighbours, d numbers: O(n d) for own masks, O(k d) for each lost client; each client O(k d).

References:
    Bonawitz, Ivanov, Kreuter, Marcedone, McMahan, Patel, Ramage, Segal, Seth. Practical secure aggregation for
    privacy-preserving machine learning. CCS 2017, doi 10.1145/3133956.3133982.
    Bell, Bonawitz, Gascón, Lepoint, Raykova. Secure single-server aggregation with (poly)logarithmic overhead. CCS
    2020 (the protocol for parties that are honest but curious).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rivage.core.errors import ProtocolError
from rivage.federated.secagg_client import add_masks
from rivage.federated.secagg_field import Residues, Ring
from rivage.federated.secagg_keys import KeyPair, key_pair
from rivage.federated.secagg_messages import Boxes, Keys, Masked, Neighbours, Shares, Survivors
from rivage.federated.shamir import join

__all__ = ["Aborted", "Server"]


class Aborted(ProtocolError):
    """A sum that cannot be read, or must not be."""


class Server:
    """One round.

    Args:
        neighbours: of every client of the cohort.
        threshold: t, shares that recover a secret.
        least: clients whose sum may be read, >= 2.
        round: which the keys are bound to.
        ring: where numbers are added up.
    """

    def __init__(
        self, neighbours: Mapping[int, tuple[int, ...]], threshold: int, least: int, round: int, ring: Ring
    ) -> None:
        self._graph, self.threshold, self._least, self._round, self._ring = neighbours, threshold, least, round, ring
        self._keys: dict[int, Keys] = {}
        self._boxes: dict[int, Mapping[int, bytes]] = {}
        self._arrived: set[int] = set()
        self._sum: Residues | None = None
        self._shares: dict[int, tuple[Survivors, Shares]] = {}

    @property
    def sharing(self) -> list[int]:
        """Who shared its secrets, ascending."""
        return sorted(self._boxes)

    @property
    def arrivals(self) -> list[int]:
        """Whose numbers arrived, ascending."""
        return sorted(self._arrived)

    @property
    def counts(self) -> dict[str, int]:
        """Clients at the end of each stage."""
        return {
            "keys": len(self._keys),
            "shares": len(self._boxes),
            "masked": len(self._arrived),
            "unmask": len(self._shares),
        }

    def advertised(self, client: int, keys: Keys) -> None:
        """Stage 1: take in a client's keys."""
        self._keys[client] = keys

    def neighbours(self, client: int) -> Neighbours:
        """End of stage 1: the keys of its neighbours."""
        keys = {other: self._keys[other] for other in self._graph[client] if other in self._keys}
        return Neighbours(keys, self.threshold)

    def shared(self, client: int, boxes: Boxes) -> None:
        """Stage 2: take in a client's sealed shares."""
        self._boxes[client] = boxes.boxes

    def boxes(self, client: int) -> Boxes:
        """End of stage 2: what its neighbours sealed for it."""
        senders = [other for other in self._graph[client] if other in self._boxes]
        return Boxes({other: self._boxes[other][client] for other in senders})

    def arrived(self, client: int, masked: Masked) -> None:
        """Stage 3: add up a client's masked numbers."""
        self._arrived.add(client)
        if self._sum is None:
            self._sum = np.zeros_like(masked.vector)
        self._sum += masked.vector

    def survivors(self, client: int) -> Survivors:
        """End of stage 3: what the server asks a client whose numbers arrived."""
        circle = [other for other in sorted((client, *self._graph[client])) if other in self._boxes]
        return Survivors(
            [other for other in circle if other in self._arrived],
            [other for other in circle if other not in self._arrived],
        )

    def require_enough(self) -> None:
        """End of stage 3: see that a sum may be read, and can be.

        Raises:
            Aborted: when it may not, or if all remaining clients together hold too few shares of a secret.
        """
        if len(self._arrived) < self._least:
            raise Aborted(f"the numbers of {len(self._arrived)} clients arrived where the sum needs {self._least}")
        for client in self.sharing:
            self._require(client, len(self._arrived.intersection((client, *self._graph[client]))))

    def unmasked(self, client: int, shares: Shares) -> None:
        """Stage 4: take in the shares of a client."""
        self._shares[client] = self.survivors(client), shares

    def total(self) -> Residues:
        """The sum of the numbers that arrived, modulo R.

        Raises:
            Aborted: when too few shares came.
        """
        assert self._sum is not None, "require_enough comes first"
        seeds, keys = self._gathered()
        total = self._sum.copy()
        for client in self.arrivals:
            self._ring.add(total, join(self._enough(client, seeds), self.threshold), -1)
        for client in sorted(self._boxes.keys() - self._arrived):
            others = {other: self._keys[other].mask for other in self._graph[client] if other in self._arrived}
            if others:
                pair = self._key(client, keys)
                # The others' masks carry the opposite sign of the lost client's: adding its own takes them off.
                add_masks(total, client, pair, others, self._round, self._ring)
        return total

    def _key(self, client: int, gathered: Mapping[int, dict[int, bytes]]) -> KeyPair:
        """The key of a lost client, seen to be the one it advertised."""
        pair = key_pair(join(self._enough(client, gathered), self.threshold))
        if pair.public != self._keys[client].mask:
            raise Aborted(f"the shares of client {client}'s key are not those of its key")
        return pair

    def _gathered(self) -> tuple[dict[int, dict[int, bytes]], dict[int, dict[int, bytes]]]:
        """Shares of seeds and of keys: by owner, then by holder."""
        seeds: dict[int, dict[int, bytes]] = {}
        keys: dict[int, dict[int, bytes]] = {}
        for client, (asked, shares) in self._shares.items():
            for kind, owners, given in ((seeds, asked.arrived, shares.own_masks), (keys, asked.lost, shares.keys)):
                for owner, share in zip(owners, given, strict=True):
                    kind.setdefault(owner, {})[client + 1] = share
        return seeds, keys

    def _enough(self, client: int, gathered: Mapping[int, dict[int, bytes]]) -> dict[int, bytes]:
        shares = gathered.get(client, {})
        self._require(client, len(shares))
        return shares

    def _require(self, client: int, holders: int) -> None:
        needed = client in self._arrived or self._arrived.intersection(self._graph[client])
        if needed and holders < self.threshold:
            raise Aborted(f"{holders} shares of a secret remain where {self.threshold} recover it")

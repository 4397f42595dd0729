"""Messages between the parties of a training: one payload in one direction, as it is on the wire.

`encode` gives the safetensors bytes of a payload, and bytes are counted on that buffer. `LogPolicy` says what a
`rivage.core.message_log.MessageLog` keeps of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Shaped
from numpy import ndarray

from rivage.core.encoding import decode_tensors, encode_tensors, encoded_size
from rivage.core.errors import ConfigError

__all__ = ["LogPolicy", "Message", "Payload", "decode", "encode", "encoded_size"]

Payload = Mapping[str, Shaped[ndarray, "..."]]

_COHORT = "cohort"  # sender of a sum


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Message:
    """One payload, from one party to another.

    Args:
        round: index of the round, from 0; -1 for the setup before it.
        sender: ``server``, ``client:17``, or ``cohort`` of a sum that no single client has sent.
        receiver: the same.
        kind: ``broadcast``, ``update``, ``statistics``, ``vocabulary``, ...
        payload: named arrays, as on the wire; never changed once the message is made.
        time: simulated seconds since the start of the run, finite.
        omitted: bytes of a payload that a log did not keep; None when the payload is here.
    """

    round: int
    sender: str
    receiver: str
    kind: str
    payload: Payload
    time: float = 0.0
    omitted: int | None = None

    @property
    def nbytes(self) -> int:
        """Exact length of the serialised payload."""
        return encoded_size(self.payload) if self.omitted is None else self.omitted


def encode(payload: Payload) -> bytes:
    """The payload as on the wire: safetensors, the same bytes whatever the order of the names."""
    return encode_tensors(payload)


def decode(buffer: bytes | bytearray) -> dict[str, ndarray]:
    """The inverse of `encode`; the arrays are writable.

    Raises:
        StoreError: for a malformed buffer, whatever is wrong with it.
    """
    return decode_tensors(buffer)[0]


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """What a log keeps.

    Args:
        keeps: ``none`` (no message), ``meta`` (who, when, how many bytes), ``clients`` (payloads of some
            clients, the rest as in ``meta``) or ``all``.
        clients: whose payloads ``clients`` keeps, in both directions; also what the server reads off the messages of a
            whole cohort, which belongs to all of its clients.
    """

    keeps: Literal["none", "meta", "clients", "all"] = "all"
    clients: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: str) -> LogPolicy:
        """The policy written ``none``, ``meta``, ``clients:[0, 5]`` or ``all``.

        Raises:
            ConfigError: for any other text.
        """
        if text in ("none", "meta", "all"):
            return cls(text)  # type: ignore[arg-type]
        match = re.fullmatch(r"clients:\s*\[\s*(\d{1,18}(?:\s*,\s*\d{1,18})*)\s*,?\s*\]", text, re.ASCII)
        if match is None:
            raise ConfigError(f'log is "{text}"', mend='Write "none", "meta", "clients:[0, 5]" or "all".')
        return cls("clients", frozenset(map(int, match[1].split(","))))

    def __str__(self) -> str:
        return f"clients:{sorted(self.clients)}" if self.keeps == "clients" else self.keeps

    def keeps_payload(self, message: Message) -> bool:
        """Whether the log holds what was in this message, not only that it was sent."""
        if self.keeps == "clients":
            ours = any(_client(party) in self.clients for party in (message.sender, message.receiver))
            return ours or message.sender == _COHORT
        return self.keeps == "all"


def _client(party: str) -> int | None:
    role, _, number = party.partition(":")
    return int(number) if role == "client" and number.isdecimal() else None

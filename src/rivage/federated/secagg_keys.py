"""What secure aggregation asks of cryptography, in the terms of the protocol; every primitive is the library's.

=============  ======================================================================================================
agreement      X25519 (RFC 7748), then HKDF with SHA-256 (RFC 5869), bound to the purpose, the round and both clients
boxes          ChaCha20-Poly1305 (RFC 8439); a key serves one round and two clients, the nonce is the sender's number
masks          AES-256 in counter mode from 0 under a key that is used for one mask
=============  ======================================================================================================

Keys are made from bytes that the caller draws. In a simulation they come from the run's streams, so that a run can be
replayed; whoever knows the seed knows all keys. Neither that nor the timing of this code is fit for real adversaries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from rivage.core.errors import ProtocolError, require_extra

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

__all__ = [
    "KEY_BYTES",
    "TAG_BYTES",
    "KeyPair",
    "agree",
    "key_pair",
    "opened",
    "require_cryptography",
    "sealed",
    "stream",
]

KEY_BYTES = 32
TAG_BYTES = 16

_BLOCK_BYTES = 1 << 16
_ZEROS = memoryview(bytes(_BLOCK_BYTES))  # what a stream is encrypted from


@cache
def require_cryptography() -> None:
    """See that the library is there.

    Raises:
        MissingExtra: when it is not.
    """
    require_extra("cryptography", extra="privacy", purpose="Secure aggregation")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Of X25519.

    Args:
        secret: 32 bytes.
        public: 32 bytes.
        loaded: the secret as the library holds it, which takes as long to make as to use.
    """

    secret: bytes
    public: bytes
    loaded: X25519PrivateKey


def key_pair(secret: bytes) -> KeyPair:
    """The pair of a secret key; any 32 bytes are one."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    loaded = X25519PrivateKey.from_private_bytes(secret)
    return KeyPair(secret, loaded.public_key().public_bytes_raw(), loaded)


def agree(pair: KeyPair, public: bytes, purpose: bytes) -> bytes:
    """The 32 bytes that two clients share: the same from either side, others for another purpose.

    Raises:
        ProtocolError: for a public key of small order, with which the outcome would be known to all.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    try:
        shared = pair.loaded.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise ProtocolError("a public key is not usable", mend="Find the client that advertised it.") from error
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(shared)


def sealed(key: bytes, sender: int, plain: bytes) -> bytes:
    """Encrypted and authenticated; 16 bytes longer."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    return ChaCha20Poly1305(key).encrypt(_nonce(sender), plain, None)


def opened(key: bytes, sender: int, box: bytes) -> bytes:
    """The inverse of `sealed`.

    Raises:
        ProtocolError: when the box was changed, or sealed with another key or by somebody else.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    try:
        return ChaCha20Poly1305(key).decrypt(_nonce(sender), box, None)
    except InvalidTag as error:
        raise ProtocolError(
            f"shares of client {sender} were changed on the way", mend="Check who relays the messages."
        ) from error


def _nonce(sender: int) -> bytes:
    return sender.to_bytes(12)


def stream(seed: bytes, count: int) -> Iterator[memoryview]:
    """So many pseudo-random bytes, the same for the same 32 bytes of seed, in blocks of 64 KiB that fit a cache.

    A block is valid until the next one is asked for. About 0.3 ns for each byte.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    encryptor = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    block = memoryview(bytearray(_BLOCK_BYTES))
    for start in range(0, count, _BLOCK_BYTES):
        part = block[: min(_BLOCK_BYTES, count - start)]
        encryptor.update_into(_ZEROS[: len(part)], part)
        yield part

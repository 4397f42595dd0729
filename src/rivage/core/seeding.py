"""One root seed, many independent named streams.

A stream is addressed by a path of names, ``streams.child("round", 12).numpy("cohort")``: adding a consumer never
changes another's numbers, and any round or client can be replayed alone. Each name becomes four 32-bit words of a
NumPy ``SeedSequence`` spawn key (a keyed hash, so that ``("a", "bc")`` and ``("ab", "c")`` differ).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

__all__ = ["Name", "Streams"]

Name = str | int


def _words(name: Name) -> tuple[int, ...]:
    kind = b"i" if isinstance(name, int) else b"s"
    digest = hashlib.blake2b(kind + str(name).encode(), digest_size=16).digest()
    return tuple(np.frombuffer(digest, "<u4").tolist())


@dataclass(frozen=True, slots=True)
class Streams:
    """Independent random streams below one place of the tree.

    Args:
        root: the seed of the run, 0 <= root < 2**64.
        path: the names that lead here.

    Example:
        >>> streams = Streams(7)
        >>> streams.numpy("cohort").integers(100) == Streams(7).numpy("cohort").integers(100)
        np.True_
        >>> streams.seed("a") == streams.child("a").seed()
        True
    """

    root: int
    path: tuple[Name, ...] = ()

    def child(self, *names: Name) -> Streams:
        """The streams below ``names``."""
        return Streams(self.root, self.path + names)

    def sequence(self, *names: Name) -> np.random.SeedSequence:
        """The NumPy seed sequence at ``names``."""
        key = tuple(word for name in self.path + names for word in _words(name))
        return np.random.SeedSequence(self.root, spawn_key=key)

    def numpy(self, *names: Name) -> np.random.Generator:
        """A new generator at ``names``; the same path always gives the same numbers."""
        return np.random.Generator(np.random.PCG64(self.sequence(*names)))

    def seed(self, *names: Name) -> int:
        """A 64-bit integer at ``names``, for generators that are not NumPy's (torch, Philox keys)."""
        return int(self.sequence(*names).generate_state(1, np.uint64)[0])

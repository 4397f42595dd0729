"""What the first bytes of a trace tell about its format: enough to refuse a wrong one, which would play nonsense."""

from __future__ import annotations

import codecs

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

__all__ = ["HEAD", "ORACLE", "as_text", "is_oraclegeneral", "is_text"]

HEAD = 2**12
"""Bytes that are looked at."""

ORACLE = np.dtype([("time", "<u4"), ("key", "<u8"), ("size", "<u4"), ("next", "<i8")])
"""The record of libCacheSim."""

_ENOUGH = 16  # random bytes of which all are text: less than one in a million
_NEVER = (-1, 2**63 - 1)  # written as the next access where there is none


def as_text(head: bytes) -> str | None:
    """The beginning of a file as text, unless it is none."""
    if any(byte < 32 and byte not in b"\t\r\n" for byte in head):
        return None
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return None


def is_text(head: bytes) -> bool:
    """Whether it must be text: records that happen to be letters have no line ends, and are few."""
    return (len(head) >= _ENOUGH or b"\n" in head) and as_text(head) is not None


def is_oraclegeneral(head: bytes) -> bool:
    """Whether it must be records of libCacheSim.

    Times never fall there, no request is the next one for the key of two others, and no key has two last requests.
    """
    records = np.frombuffer(head, ORACLE, len(head) // ORACLE.itemsize)
    times, following = records["time"], records["next"]
    last = np.isin(following, _NEVER)
    possible = last | ((following > np.arange(len(records))) & (following < 2**48))
    sound = len(records) >= 4 and possible.all() and (times[1:] >= times[:-1]).all()
    return bool(sound and _all_differ(following[~last]) and _all_differ(records["key"][last]))


def _all_differ(values: Shaped[ndarray, "n"]) -> bool:
    return len(np.unique(values)) == len(values)

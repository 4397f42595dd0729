"""What the first bytes of a trace tell about its format: enough to refuse a wrong one, which would play nonsense."""

from __future__ import annotations

import codecs

import numpy as np

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
    """Whether it must be records of libCacheSim: times never fall, and nobody is the next access of two requests."""
    records = np.frombuffer(head, ORACLE, len(head) // ORACLE.itemsize)
    times, following = records["time"], records["next"]
    later = following[~np.isin(following, _NEVER)]
    if len(records) < 4 or (times[1:] < times[:-1]).any() or len(np.unique(later)) < len(later):
        return False
    possible = (following > np.arange(len(records))) & (following < 2**48)
    return bool((possible | np.isin(following, _NEVER)).all())

"""Compressed files as streams of bytes, in bounded memory: ``.gz``, ``.xz``, ``.zst``.

A file is taken for hostile: a decoder may use 128 MiB at most, and is given so little at a time that what it makes of
it stays small.
"""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rivage.core.errors import DataError, require_extra

__all__ = ["DECODERS", "opened"]

_WINDOW = 2**27  # bytes that a decompressor may use; `xz -9` needs 65 MiB
_PIECE = 2**10  # compressed bytes at a time, which are at most 32 MiB of content
_BEGINNINGS = {b"\x1f\x8b\x08": ".gz", b"\xfd7zXZ\0": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
_OTHERS = {(0, b"PK\3\4"): "zip", (4, b"1AY&SY"): "bzip2", (0, b"7z\xbc\xaf\x27\x1c"): "7-zip"}


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """The content, decompressed on the way.

    Raises:
        DataError: if it cannot be decompressed, in the body as well, or is compressed and its name does not tell so.
    """
    decoder = DECODERS.get(path.suffix.lower())
    with path.open("rb") as file:
        if decoder is None:
            _refuse_unnamed(path, file.peek(16))
            yield file
            return
        start, failure = decoder()
        try:
            yield io.BufferedReader(_Decompressed(file, start), 2**16)
        except (EOFError, failure) as error:
            raise DataError(
                f"it cannot be decompressed ({error})", where=str(path), mend="Get the file again."
            ) from error


def _refuse_unnamed(path: Path, head: bytes) -> None:
    """Refuse what is compressed in a way that the name does not tell: read as it is, it would be nonsense."""
    for beginning, suffix in _BEGINNINGS.items():
        if head.startswith(beginning):
            raise DataError(
                "it is compressed, which its name does not tell", where=str(path), mend=f"Let its name end in {suffix}."
            )
    for (place, mark), name in _OTHERS.items():
        if head.startswith(mark, place):
            raise DataError(f"it is packed with {name}", where=str(path), mend="Unpack it, or use .gz, .xz or .zst.")


class _Decompressed(io.RawIOBase):
    """The content of a compressed file, one stream in it after the other."""

    def __init__(self, file: io.BufferedReader, start: Callable[[], Any]) -> None:
        super().__init__()
        self._file, self._start, self._decoder = file, start, start()
        self._over = False  # whether the file may end here
        self._rest, self._ready, self._at = b"", b"", 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As much as is ready, at least one byte unless the file ends.

        Raises:
            EOFError: if the file ends within a stream.
        """
        while self._at == len(self._ready):
            data = self._rest or self._file.read(_PIECE)
            self._rest = b""
            if self._over:
                if not data:
                    return 0
                data = data.lstrip(b"\0")  # padding between streams
                if not data:
                    continue
                self._decoder = self._start()
            elif not data:
                raise EOFError("it is cut off")
            self._ready, self._at = self._decoder.decompress(data), 0
            self._over = self._decoder.eof
            self._rest = self._decoder.unused_data if self._over else b""
        size = min(len(buffer), len(self._ready) - self._at)
        buffer[:size] = self._ready[self._at : self._at + size]
        self._at += size
        return size


Decoder = tuple[Callable[[], Any], type[Exception]]


def _gz() -> Decoder:
    return lambda: zlib.decompressobj(wbits=16 + zlib.MAX_WBITS), zlib.error


def _xz() -> Decoder:
    return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_WINDOW), lzma.LZMAError


def _zst() -> Decoder:
    zstandard = require_extra("zstandard", extra="traces", purpose="reading a .zst file")
    return zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj, zstandard.ZstdError


DECODERS: dict[str, Callable[[], Decoder]] = {".gz": _gz, ".xz": _xz, ".zst": _zst}
"""Suffix -> what makes its decoder; a missing extra is told when it is asked for."""

"""The writer: bytes in order, whatever goes through the thread; errors reach the caller and nothing follows them."""

from __future__ import annotations

import io
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.writer import Writer

BIG = 100_000


class Kept(io.BytesIO):
    """A file whose bytes outlive it."""

    content = b""

    def close(self) -> None:
        self.content = self.getvalue()
        super().close()


class Full(io.BytesIO):
    """A disk with room for one write."""

    def writelines(self, parts) -> None:  # type: ignore[no-untyped-def, override]
        if self.tell():
            raise OSError(28, "No space left on device")
        super().writelines(parts)


def put(writer: Writer, opening: bytes, body: list[memoryview]) -> None:
    writer.append(opening, body)
    writer.flush()


def frame(opening: bytes, body: list[bytes]) -> bytes:
    joined = b"".join(body)
    return opening + joined + crc32(joined).to_bytes(4, "little")


@given(st.lists(st.tuples(st.binary(max_size=5), st.lists(st.integers(0, 2 * BIG), max_size=3)), max_size=8))
def test_frames_stand_in_the_order_in_which_they_came(frames: list[tuple[bytes, list[int]]]) -> None:
    file, random = Kept(), np.random.default_rng(0)
    writer, wanted = Writer(file), b""
    for opening, sizes in frames:
        body = [random.bytes(size) for size in sizes]
        writer.append(opening, [memoryview(part) for part in body])
        wanted += frame(opening, body)
    writer.close()
    assert file.content == wanted


def test_flush_waits_for_the_thread() -> None:
    file = Kept()
    writer, body = Writer(file), b"x" * BIG
    for _ in range(20):
        writer.append(b"o", [memoryview(body)])
    writer.flush()
    assert file.getvalue() == 20 * frame(b"o", [body])
    writer.close()


@pytest.mark.parametrize("size", [1, BIG])
def test_after_an_error_nothing_more_is_written(size: int) -> None:
    file, body = Full(), [memoryview(b"y" * size)]
    writer = Writer(file)
    put(writer, b"1", body)
    length = len(file.getvalue())
    with pytest.raises(OSError, match="No space left"):
        put(writer, b"2", body)
    file.writelines = lambda parts: file.write(b"".join(parts))  # type: ignore[method-assign, assignment]
    with pytest.raises(OSError, match="No space left"):
        put(writer, b"3", body)
    assert len(file.getvalue()) == length
    with pytest.raises(OSError, match="No space left"):
        writer.close()
    assert file.closed


def test_a_file_whose_pages_are_given_back_is_whole(tmp_path: Path) -> None:
    path, wanted, random = tmp_path / "file", b"", np.random.default_rng(0)
    writer = Writer(path.open("ab"))
    for _ in range(5):
        body = random.bytes(3 << 20)
        writer.append(b"opening", [memoryview(body)])
        wanted += frame(b"opening", [body])
    writer.close()
    assert path.read_bytes() == wanted

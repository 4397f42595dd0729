"""Traces in files: the real ones, every format there and back, streams equal to wholes, hostile files."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import importlib.util
import lzma
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rivage.core.errors import ConfigError, DataError, MissingExtra
from rivage.core.seeding import Streams
from rivage.data import keys as book_keys
from rivage.data import text_traces, trace_files
from rivage.data.requests import REQUESTS, RequestTrace
from rivage.data.trace_files import TraceFile, read_trace, stream_trace

KEYS = [70, -3, 70, 70, 2**31 - 1, 0, -(2**31), -3, 0, 12]
ITEMS = [0, 1, 0, 0, 2, 3, 4, 1, 3, 5]
NAMES = ["a", "b,c", "a", "a", "é", "0", "x y", "b,c", "0", '"q"']
TIMES = [0.0, 0.5, 0.5, 1.0, 2.0, 2.0, 3.0, 4.0, 5.0, 9.0]
SIZES = [10, 20, 10, 10, 0, 5, 6, 20, 5, 2**40]

HAS_ZSTANDARD = importlib.util.find_spec("zstandard") is not None


def int32be(keys: Sequence[int]) -> bytes:
    return struct.pack(f">{len(keys)}i", *keys)


def oracle(records: Sequence[tuple[int, int, int, int]]) -> bytes:
    return b"".join(struct.pack("<IQIq", *record) for record in records)


def csv_text() -> str:
    rows = [
        f'{time},"{name.replace(chr(34), chr(34) * 2)}",{size},x,{number % 3},{size / 8}'
        for number, (time, name, size) in enumerate(zip(TIMES, NAMES, SIZES, strict=True))
    ]
    return "\n".join(["time_s,item, size_bytes,other,origin,cost", *rows])


def table(**columns: object) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


def first_appearance(keys: Sequence[object]) -> list[int]:
    numbers: dict[object, int] = {}
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def put(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path, format: str = "auto") -> str:
    with pytest.raises(DataError) as caught:
        read_trace(path, format)  # type: ignore[arg-type]
    assert caught.value.mend
    assert str(path) in str(caught.value)
    return str(caught.value)


def trace_or_refusal(path: Path, format: str = "auto") -> RequestTrace | str:
    """Whatever else is raised fails the test."""
    with contextlib.suppress(DataError):
        return read_trace(path, format)  # type: ignore[arg-type]
    return refusal(path, format)


def in_a_process(code: str, path: Path) -> list[str]:
    """What a new process prints, split at bars; the last part is its largest resident memory in MB."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the system does not tell the memory of a process")
    # Not ru_maxrss: a child inherits that of the process that starts it.
    before = "import re, sys\nfrom rivage.data.trace_files import read_trace, stream_trace\n"
    after = "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024)\n"
    done = subprocess.run(
        [sys.executable, "-c", before + code + after, str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.split("|")


CONTENTS: dict[str, tuple[str, bytes]] = {
    "int32be": ("a.trace", int32be(KEYS)),
    "oraclegeneral": (
        "a.oracleGeneral.bin",
        oracle([(int(t), k % 2**64, s % 2**32, -1) for t, k, s in zip(TIMES, KEYS, SIZES, strict=True)]),
    ),
    "text": ("a.txt", "\n".join(NAMES).encode() + b"\n"),
    "csv": ("a.csv", csv_text().encode()),
    "parquet": ("a.parquet", table(time_s=TIMES, item=NAMES, size_bytes=SIZES)),
}


class TestRealTraces:
    @pytest.mark.parametrize(
        ("name", "requests", "items", "one_hit", "infinite"),
        [("web12", 95_607, 13_756, 0.451, 0.8561), ("orm-busy", 5_000_000, 76_349, 0.115, 0.9847)],
    )
    def test_they_have_the_published_figures(
        self, data_root: Path, name: str, requests: int, items: int, one_hit: float, infinite: float
    ) -> None:
        path = data_root / "traces" / f"{name}.trace.xz"
        if not path.is_file():
            pytest.skip(f"{path} is not there")
        trace = read_trace(path)
        found = trace.describe()
        assert (found["requests"], found["items"], found["distinct"]) == (requests, items, items)
        assert round(found["one_hit_share"], 3) == one_hit
        assert round(found["infinite_cache_hit_ratio"], 4) == infinite
        assert trace.name == f"{name}.trace.xz"
        raw = np.frombuffer(lzma.decompress(path.read_bytes()), ">i4")  # the way the publisher's page tells
        assert trace.keys is not None
        np.testing.assert_array_equal(trace.keys[trace.item], raw)
        appearances = np.unique(trace.item, return_index=True)[1]
        assert (np.diff(appearances) > 0).all()  # numbered as they come

    @pytest.mark.process
    def test_five_million_requests_stream_in_little_memory(self, data_root: Path) -> None:
        path = data_root / "traces" / "orm-busy.trace.xz"
        if not path.is_file():
            pytest.skip(f"{path} is not there")
        requests, items, megabytes = in_a_process(
            "requests = 0\n"
            "for block in stream_trace(sys.argv[1]):\n"
            "    requests += len(block)\n"
            "print(requests, block.items, sep='|', end='|')\n",
            path,
        )
        assert (int(requests), int(items)) == (5_000_000, 76_349)
        assert float(megabytes) < 200  # measured: 60


class TestFormats:
    @pytest.mark.parametrize("named", [True, False])
    @pytest.mark.parametrize("format", CONTENTS)
    def test_each_is_read_and_recognized(self, tmp_path: Path, format: str, named: bool) -> None:
        name, content = CONTENTS[format]
        trace = read_trace(put(tmp_path / name, content), format if named else "auto")  # type: ignore[arg-type]
        assert trace.item.tolist() == first_appearance(KEYS if format in ("int32be", "oraclegeneral") else NAMES)
        assert trace.item.tolist() == ITEMS
        assert trace.items == 6
        assert trace.keys is not None
        expected: list[object] = list(dict.fromkeys(NAMES))
        if format == "int32be":
            expected = list(dict.fromkeys(KEYS))
        if format == "oraclegeneral":
            expected = [key % 2**64 for key in dict.fromkeys(KEYS)]
        assert trace.keys.tolist() == expected

    def test_int32be_has_nothing_but_items(self, tmp_path: Path) -> None:
        trace = read_trace(put(tmp_path / "a.trace", int32be(KEYS)))
        assert set(trace.columns()) == {"item"}
        assert trace.keys is not None
        assert trace.keys.dtype == np.int64

    def test_oraclegeneral_has_times_and_sizes(self, tmp_path: Path) -> None:
        records = [(5, 2**64 - 1, 2**32 - 1, -1), (5, 7, 0, 3), (2**32 - 1, 2**63, 1, -(2**63))]
        trace = read_trace(put(tmp_path / "a.oracleGeneral", oracle(records)))
        assert set(trace.columns()) == {"item", "time_s", "size_bytes"}
        assert [column.tolist() for column in (trace.time_s, trace.size_bytes, trace.keys) if column is not None] == [
            [5.0, 5.0, 2.0**32 - 1],
            [2**32 - 1, 0, 1],
            [2**64 - 1, 7, 2**63],
        ]

    def test_csv_has_its_columns_in_any_order(self, tmp_path: Path) -> None:
        trace = read_trace(put(tmp_path / "a.csv", csv_text()))
        assert set(trace.columns()) == {"item", "time_s", "size_bytes", "origin", "cost"}
        for name, expected in (
            ("time_s", TIMES),
            ("size_bytes", SIZES),
            ("origin", [number % 3 for number in range(10)]),
            ("cost", [size / 8 for size in SIZES]),
        ):
            assert trace.columns()[name].tolist() == expected
            assert trace.columns()[name].dtype == (np.float64 if name in ("time_s", "cost") else np.int64)

    @pytest.mark.parametrize("ending", ["\n", "\r\n"])
    def test_line_ends_and_a_byte_order_mark_are_no_part_of_keys(self, tmp_path: Path, ending: str) -> None:
        lines = put(tmp_path / "a.txt", "\ufeff" + ending.join(["item", "b ", "item"]) + ending)
        trace = read_trace(lines)
        assert trace.keys is not None
        assert trace.keys.tolist() == ["item", "b "]
        rows = put(tmp_path / "a.csv", "\ufeff" + ending.join(["item,cost", "b ,1", "c,2"]))
        trace = read_trace(rows)
        assert trace.keys is not None
        assert trace.keys.tolist() == ["b ", "c"]

    @pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\n" * 1_000])
    def test_empty_lines_at_the_end_are_no_requests(self, tmp_path: Path, end: str) -> None:
        for name, content in (("a.txt", "a\nb\na"), ("a.csv", "item,cost\na,1\nb,2\na,1")):
            path = put(tmp_path / name, content + end)
            assert read_trace(path).item.tolist() == [0, 1, 0]
            assert [len(block) for block in stream_trace(path, block=3)] == [3]  # no block of nothing after it

    @pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint64(), pa.string(), pa.large_string()])
    @pytest.mark.parametrize("encoded", [False, True])
    def test_parquet_items_are_whole_numbers_or_text(self, tmp_path: Path, kind: pa.DataType, encoded: bool) -> None:
        keys = pa.array([3, 1, 3]).cast(kind)
        if encoded and kind != pa.large_string():
            keys = keys.dictionary_encode()
        trace = read_trace(put(tmp_path / "a.parquet", table(item=keys, cost=pa.array([1, 2, 3], pa.int16()))))
        assert trace.item.tolist() == [0, 1, 0]
        assert trace.keys is not None
        assert [str(key) for key in trace.keys] == ["3", "1"]
        assert trace.cost is not None
        assert trace.cost.tolist() == [1.0, 2.0, 3.0]

    @pytest.mark.parametrize(
        ("name", "content", "format"),
        [
            ("keys", "a\nb\n", "text"),
            ("data", "cost,item\n1,a\n", "csv"),
            ("data", '"item","cost"\na,1\n', "csv"),
            ("data", table(item=["a"]), "parquet"),
            ("b.trace", "é" * 4_000, "text"),  # the first 4 KiB end within a character
            ("b.trace", b"ab\x00\x01", "int32be"),
            ("b.trace", b"\xff\xff\xff\xff", "int32be"),
            ("wiki.ORACLEGENERAL", b"\x00" * 24, "oraclegeneral"),
            ("b.int32be", b"abcd", "int32be"),
        ],
    )
    def test_the_content_tells_where_the_name_does_not(
        self, tmp_path: Path, name: str, content: bytes | str, format: str
    ) -> None:
        path = put(tmp_path / name, content)
        np.testing.assert_array_equal(read_trace(path).keys, read_trace(path, format).keys)  # type: ignore[arg-type]

    def test_bytes_that_nothing_explains_are_not_guessed(self, tmp_path: Path) -> None:
        message = refusal(put(tmp_path / "a.bin", int32be(KEYS)))
        assert "the format cannot be told" in message
        assert "Name it: int32be, oraclegeneral, text, csv, parquet." in message

    def test_limit_keeps_the_beginning_and_its_items(self, tmp_path: Path) -> None:
        path = put(tmp_path / "a.trace", int32be(KEYS))
        for limit in (1, 5, 10, 99):
            trace = TraceFile(path, limit=limit).build(Streams(0))
            assert trace.item.tolist() == ITEMS[:limit]
            assert trace.keys is not None
            assert trace.keys.tolist() == list(dict.fromkeys(KEYS[:limit]))

    def test_a_limit_may_lie_in_any_block(self, tmp_path: Path) -> None:
        keys = list(range(140_000))
        trace = read_trace(put(tmp_path / "a.trace", int32be(keys)), limit=70_000)
        assert trace.item.tolist() == keys[:70_000]
        assert trace.items == 70_000

    def test_the_registry_knows_files(self) -> None:
        assert REQUESTS.get("file") is TraceFile


class TestCompression:
    @pytest.mark.parametrize("format", [format for format in CONTENTS if format != "parquet"])
    @pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)])
    def test_the_suffix_tells(
        self, tmp_path: Path, format: str, suffix: str, compress: Callable[[bytes], bytes]
    ) -> None:
        name, content = CONTENTS[format]
        half = len(content) // 3
        packed = compress(content[:half]) + compress(content[half:]) + b"\0" * 8  # two streams and padding
        assert read_trace(put(tmp_path / (name + suffix), packed)).item.tolist() == ITEMS

    @pytest.mark.skipif(not HAS_ZSTANDARD, reason="zstandard is not installed (extra traces)")
    def test_zst_is_read_where_zstandard_is_installed(self, tmp_path: Path) -> None:
        keys = np.random.default_rng(0).integers(0, 99, 300_000)
        packed = b"".join(pa.compress(int32be(part.tolist()), "zstd", asbytes=True) for part in np.array_split(keys, 2))
        path = put(tmp_path / "a.trace.zst", packed)
        trace = read_trace(path)
        assert trace.keys is not None
        np.testing.assert_array_equal(trace.keys[trace.item], keys)
        for damaged in (packed[:-5], packed[:99], b"plain"):
            assert "it cannot be decompressed" in refusal(put(path, damaged))

    @pytest.mark.parametrize("format", ["auto", "text"])
    def test_without_zstandard_the_extra_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
    ) -> None:
        monkeypatch.setitem(sys.modules, "zstandard", None)
        path = put(tmp_path / "a.txt.zst", b"(\xb5/\xfd")
        with pytest.raises(MissingExtra, match=r'reading a \.zst file needs zstandard.*pip install "rivage\[traces\]"'):
            stream_trace(path, format)  # type: ignore[arg-type]

    @pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)])
    def test_damaged_files_are_refused(self, tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
        keys = np.random.default_rng(0).integers(0, 2**31, 30_000)
        packed, path = compress(int32be(keys.tolist())), tmp_path / f"a.trace{suffix}"
        middle = len(packed) // 2
        for damaged in (
            b"",
            packed[:5],
            packed[:middle],
            packed[:-1],
            packed[:middle] + bytes([packed[middle] ^ 255]) + packed[middle + 1 :],
            packed + b"more",
            int32be(KEYS),
        ):
            assert "it cannot be decompressed" in refusal(put(path, damaged))

    def test_a_decompressor_that_asks_for_much_memory_is_refused(self, tmp_path: Path) -> None:
        greedy = lzma.compress(int32be(KEYS), filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**28}])
        assert "Memory usage limit" in refusal(put(tmp_path / "a.trace.xz", greedy))
        largest = lzma.compress(int32be(KEYS), preset=9)
        assert read_trace(put(tmp_path / "a.trace.xz", largest)).item.tolist() == ITEMS

    @pytest.mark.process
    def test_a_bomb_of_one_line_is_refused_before_it_is_unpacked(self, tmp_path: Path) -> None:
        bomb = put(tmp_path / "a.txt.gz", b"".join([gzip.compress(b"a" * 2**24)] * 64))  # a line of 1 GiB
        message, megabytes = in_a_process(
            "try:\n    read_trace(sys.argv[1])\nexcept ValueError as error:\n    print(error, end='|')\n", bomb
        )
        assert "line 1: it is longer than 1048576 bytes" in message
        assert float(megabytes) < 150


class TestStreams:
    @pytest.mark.parametrize("block", [1, 3, 10, 1_000])
    @pytest.mark.parametrize("format", CONTENTS)
    def test_blocks_put_together_are_the_file(self, tmp_path: Path, format: str, block: int) -> None:
        name, content = CONTENTS[format]
        path = put(tmp_path / name, content)
        whole, blocks = read_trace(path), list(stream_trace(path, block=block))
        assert [len(part) for part in blocks] == [len(part) for part in whole.blocks(block)]
        for name, column in whole.columns().items():
            np.testing.assert_array_equal(np.concatenate([part.columns()[name] for part in blocks]), column)
        assert whole.keys is not None
        for part, end in zip(blocks, range(block, 10 + block, block), strict=True):
            assert part.items == max(ITEMS[:end]) + 1  # the catalog grows
            assert part.keys is not None
            assert part.keys.tolist() == whole.keys[: part.items].tolist()

    @given(st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(-3, 3)), st.integers(1, 9))
    def test_integers_are_numbered_as_they_appear(self, keys: list[int], size: int) -> None:
        book = book_keys._Integers(np.dtype(np.int64))
        found = [n for start in range(0, len(keys), size) for n in book.number(np.array(keys[start : start + size]))]
        assert found == first_appearance(keys)
        assert book.keys.tolist() == list(dict.fromkeys(keys))
        sizes = [len(run) for run, _ in book._runs]
        assert all(long > 2 * short for long, short in pairwise(sizes))
        assert sum(sizes) == len(book)

    @given(st.lists(st.sampled_from("abcdefgh") | st.text(max_size=2)), st.integers(1, 9))
    def test_names_are_numbered_as_they_appear(self, keys: list[str], size: int) -> None:
        book = book_keys._Names()
        found = [n for start in range(0, len(keys), size) for n in book.number(keys[start : start + size])]
        assert found == first_appearance(keys)
        assert book.keys.tolist() == list(dict.fromkeys(keys))

    def test_many_keys_keep_what_was_given_out(self, tmp_path: Path) -> None:
        keys = random.Random(4).sample(range(10**6), 5_000)
        blocks = list(stream_trace(put(tmp_path / "a.trace", int32be(keys)), block=64))
        for part in blocks:
            assert part.keys is not None
            assert part.keys.tolist() == keys[: part.items]

    def test_blocks_of_much_text_end_early(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(text_traces, "_LARGEST_BLOCK", 25)
        path = put(tmp_path / "a.txt", "\n".join(["0123456789"] * 8))
        assert [len(block) for block in stream_trace(path, block=4)] == [3, 3, 2]

    def test_a_trace_too_large_for_memory_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trace_files, "_MOST_REQUESTS", 9)
        path = put(tmp_path / "a.trace", int32be(KEYS))
        assert "there are more than 9 requests. Give a limit" in refusal(path)
        assert len(read_trace(path, limit=10)) == 10

    def test_what_came_before_the_flaw_is_sound(self, tmp_path: Path) -> None:
        stream = stream_trace(put(tmp_path / "a.trace", int32be(KEYS)[:-1]), block=4)
        assert [next(stream).item.tolist(), next(stream).item.tolist()] == [ITEMS[:4], ITEMS[4:8]]
        with pytest.raises(DataError, match="byte 36: the record there has 3 of 4 bytes"):
            next(stream)

    def test_bad_calls_are_refused_at_once(self, tmp_path: Path) -> None:
        path = put(tmp_path / "a.trace", int32be(KEYS))
        with pytest.raises(ConfigError, match="block is 0"):
            stream_trace(path, block=0)
        with pytest.raises(ConfigError, match=r'unknown trace format "int32b"\. Did you mean "int32be"'):
            stream_trace(path, "int32b")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r'unknown trace format "lmdb"\. Known formats: auto, int32be'):
            TraceFile(path, "lmdb")  # type: ignore[arg-type]
        for make in (lambda: read_trace(path, limit=0), lambda: TraceFile(path, limit=0)):
            with pytest.raises(ConfigError, match="limit is 0"):
                make()
        for missing, fault in ((tmp_path / "b.trace", "there is no file"), (tmp_path, "is a folder")):
            with pytest.raises(DataError, match=fault):
                stream_trace(missing)


def linked(keys: Sequence[int], never: int = -1) -> bytes:
    """As libCacheSim writes it: one request a second, each with the place of the next one for its key."""
    places = {place: keys.index(key, place + 1) for place, key in enumerate(keys) if key in keys[place + 1 :]}
    return oracle([(place, key, 1, places.get(place, never)) for place, key in enumerate(keys)])


class TestWrongFormats:
    """Most bytes can be cut into records of another format; what comes out is nonsense that plays like any trace."""

    @pytest.mark.parametrize("format", ["int32be", "oraclegeneral"])
    @pytest.mark.parametrize("text", ["a\nb\n" * 2, "product-1234\n" * 48, "item,cost\n" + "ab,1\n" * 100, "é" * 120])
    def test_text_is_no_record(self, tmp_path: Path, format: str, text: str) -> None:
        for path in (put(tmp_path / "a.bin", text), put(tmp_path / "a.bin.xz", lzma.compress(text.encode()))):
            assert f"it is text, and {format} is not. Name its format: text, or csv." in refusal(path, format)

    def test_a_name_that_misleads_is_no_better(self, tmp_path: Path) -> None:
        assert "it is text, and oraclegeneral is not" in refusal(put(tmp_path / "a.oracleGeneral", "12345678\n" * 8))
        assert "it is the header of a CSV" in refusal(put(tmp_path / "a.txt", "time_s, item\n1,a\n"))

    def test_few_bytes_that_could_be_letters_are_records(self, tmp_path: Path) -> None:
        assert len(read_trace(put(tmp_path / "a.trace", b"abcdefgh"), "int32be")) == 2

    @pytest.mark.parametrize("never", [-1, 2**63 - 1])
    @pytest.mark.parametrize("block", [1, 3, 2**16])
    def test_records_of_libcachesim_are_no_keys(self, tmp_path: Path, never: int, block: int) -> None:
        content = linked([7, 8, 7, 9, 9, 7, 8, 1000] * 30, never)
        for name, packed in (("a.trace", content), ("a.trace.gz", gzip.compress(content))):
            path = put(tmp_path / name, packed)
            with pytest.raises(DataError, match="it holds records of libCacheSim"):
                list(stream_trace(path, "int32be", block))
            assert read_trace(path).item.tolist() == read_trace(path, "oraclegeneral").item.tolist()

    @example([-1, -1], 8)
    @example([1], 99)
    @given(st.lists(st.integers(-2, 9) | st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=7), st.integers(1, 60))
    def test_keys_are_not_taken_for_records(
        self, tmp_path_factory: pytest.TempPathFactory, keys: list[int], rounds: int
    ) -> None:
        """However often they repeat, and in whichever period."""
        path = put(tmp_path_factory.getbasetemp() / "keys.trace", int32be([0, *keys] * rounds))
        assert len(read_trace(path, "int32be")) == rounds * (len(keys) + 1)

    @pytest.mark.parametrize("seed", range(20))
    def test_keys_played_as_records_are_refused(self, tmp_path: Path, seed: int) -> None:
        """Their times fall somewhere; 40 records of chance do not with a probability below 1/40!."""
        keys = np.random.default_rng(seed).integers(0, 10_000, 240).tolist()
        message = refusal(put(tmp_path / "a.trace", int32be(keys)), "oraclegeneral")
        assert "Sort the requests by time. Or name its format, if it is another." in message
        assert "the record there has 4 of 24 bytes" in refusal(put(tmp_path / "a", int32be(keys[:7])), "oraclegeneral")

    @pytest.mark.parametrize("format", ["text", "csv"])
    def test_records_are_no_lines(self, tmp_path: Path, format: str) -> None:
        for name in ("int32be", "oraclegeneral", "parquet"):
            message = refusal(put(tmp_path / "a.bin", CONTENTS[name][1]), format)
            assert "is no text" in message or "is no UTF-8" in message
        assert "column 2: byte 0x00 is no text" in refusal(put(tmp_path / "a", "b\0\n".encode("utf-16-be")[1:]), "text")

    @pytest.mark.parametrize("format", ["auto", "int32be", "oraclegeneral", "text", "csv"])
    @pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)])
    def test_what_is_compressed_needs_a_name_that_tells(
        self, tmp_path: Path, format: str, suffix: str, compress: Callable[[bytes], bytes]
    ) -> None:
        path = put(tmp_path / "a.trace", compress(int32be(KEYS * 9)))
        assert f"it is compressed, which its name does not tell. Let its name end in {suffix}." in refusal(path, format)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (pa.compress(b"abc", "zstd", asbytes=True), "Let its name end in .zst"),
            (bz2.compress(b"abc"), "it is packed with bzip2. Unpack it"),
            (b"PK\3\4" + bytes(28), "it is packed with zip. Unpack it"),
            (CONTENTS["parquet"][1] + bytes(-len(CONTENTS["parquet"][1]) % 4), "Name its format: parquet."),
            (b"\x93NUMPY\x01\x00", "it is a NumPy array"),
        ],
    )
    def test_other_files_are_no_keys(self, tmp_path: Path, content: bytes, message: str) -> None:
        assert message in refusal(put(tmp_path / "a.trace", content), "int32be")

    def test_a_header_read_as_a_key_is_refused(self, tmp_path: Path) -> None:
        path = put(tmp_path / "a", csv_text())
        assert "line 1: it is the header of a CSV. Name its format: csv." in refusal(path, "text")
        assert read_trace(path).item.tolist() == ITEMS
        assert read_trace(put(path, "a, item\n1,b\n")).items == 1  # recognized, for all the space
        assert read_trace(put(path, "item\nitems, all\n"), "text").items == 2


BIG = "1" * 5_000


class TestHostileFiles:
    @pytest.mark.parametrize("format", CONTENTS)
    def test_empty_files_are_refused(self, tmp_path: Path, format: str) -> None:
        empty = b"" if format != "parquet" else table(item=pa.array([], pa.int64()))
        assert "the file holds no request" in refusal(put(tmp_path / "a", empty), format)

    def test_an_empty_file_of_unknown_format_is_refused(self, tmp_path: Path) -> None:
        assert "the file holds no request" in refusal(put(tmp_path / "a", b""))
        assert "the file holds no request" in refusal(put(tmp_path / "a.csv", "item,cost\n"))
        assert "the file holds no request" in refusal(put(tmp_path / "a.txt.gz", gzip.compress(b"")))

    @pytest.mark.parametrize("missing", [1, 10, 23])
    def test_a_cut_record_is_named_by_its_byte(self, tmp_path: Path, missing: int) -> None:
        content = CONTENTS["oraclegeneral"][1][:-missing]
        message = refusal(put(tmp_path / "a.oraclegeneral", content))
        assert f"byte 216: the record there has {24 - missing} of 24 bytes. The file is truncated" in message

    def test_times_that_fall_are_named_within_and_between_blocks(self, tmp_path: Path) -> None:
        path = put(tmp_path / "a.oraclegeneral", oracle([(5, 1, 1, 1), (6, 1, 1, 1), (4, 1, 1, 1)]))
        for block in (1, 2, 3):
            with pytest.raises(DataError) as caught:
                list(stream_trace(path, block=block))
            assert f"{path}, record 2, byte 48: time_s is 4.0 after 6.0. Sort" in str(caught.value)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"a\nb\n\nc\n", "line 3: it is empty. Remove empty lines"),
            (b"a\nb\n\r\n\n\nc", "line 3: it is empty"),
            (b"\n\na\n", "line 1: it is empty"),
            (b"a\n\n\xff", "line 3, column 1: byte 0xff is no UTF-8"),
            (b"\n\r\n\n", "the file holds no request"),
            (b"a\nxy\xffz\n", "line 2, column 3: byte 0xff is no UTF-8. Save it as UTF-8."),
            (b"a\n" + b"x" * 2**20 + b"x\n", "line 2: it is longer than 1048576 bytes. Give one request per line."),
            (b"x" * 2**21, "line 1: it is longer than 1048576 bytes"),
        ],
    )
    def test_lines_that_are_no_keys_are_named(self, tmp_path: Path, content: bytes, message: str) -> None:
        assert message in refusal(put(tmp_path / "a.txt", content))

    def test_a_long_line_within_the_bound_is_a_key(self, tmp_path: Path) -> None:
        trace = read_trace(put(tmp_path / "a.txt", b"x" * (2**20 - 1) + b"\ny"))
        assert trace.items == 2

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ("itm,cost\na,1", 'line 1: there is no column "item". Did you mean "itm"? Rename it.'),
            ("items\na", 'line 1: there is no column "item". Did you mean "items"? Rename it.'),
            ("b,c\na,1", 'line 1: there is no column "item". Rename one of those there are: "b", "c".'),
            ("cost; item\n1;a", 'line 1: there is no column "item". Separate columns by commas.'),
            ("n,url,id\n1,a,b", 'line 1: there is no column "item". Rename "id" to "item".'),
            ("cost,Item\n1,a", 'line 1: there is no column "item". Rename "Item" to "item".'),
            ("item,size\na,1", 'line 1: unknown column "size". Did you mean "size_bytes", in bytes? Rename it'),
            ("item,cost,item\na,1,b", 'line 1: column "item" is there more than once'),
            ("item,cost\na,1\nb", "line 3, column 2: it has 1 fields and the header 2"),
            ("item,cost\na,1\nb,2,3", "line 3, column 3: it has 3 fields and the header 2"),
            ("cost,item\n1,a\n2,", 'line 3, column 2 ("item"): it is empty'),
            ("item,cost\na,1\nb,2 EUR", 'line 3, column 2 ("cost"): "2 EUR" is no number'),
            ("item,cost\na,1_000", 'line 2, column 2 ("cost"): "1_000" is no number'),
            ("item,cost\na,", 'line 2, column 2 ("cost"): "" is no number'),
            ("item,cost\na,-1", 'line 2, column 2 ("cost"): cost is -1.0'),
            ("item,cost\na,nan", 'line 2, column 2 ("cost"): cost is nan'),
            ("item,cost\na,1e999", 'line 2, column 2 ("cost"): cost is inf'),
            ("item,deadline_ms\na,inf", 'line 2, column 2 ("deadline_ms"): deadline_ms is inf'),
            ("item,time_s\na,2\nb,1", 'line 3, column 2 ("time_s"): time_s is 1.0 after 2.0. Sort the requests'),
            ("item,origin\na,0\nb,1.5", 'line 3, column 2 ("origin"): "1.5" is no whole number of 64 bits'),
            ("item,origin\na,-1", 'line 2, column 2 ("origin"): origin is -1'),
            ("item,size_bytes\na,9223372036854775808", 'column 2 ("size_bytes"): "9223372036854775808" is no whole'),
            (f"item,size_bytes\na,{BIG}", f'line 2, column 2 ("size_bytes"): "{BIG[:40]}" is no whole number'),
            ('item,cost\n"a\nb",1', "line 2: it is no CSV (unexpected end of data). Close quotes on the line"),
            ('item,cost\n"a"b,1', "line 2: it is no CSV"),
            (f"item\n{'x' * 200_000}", "line 2: it is no CSV (field larger than field limit (131072))"),
            ("item,cost\na,1\n\nb,1", "line 3: it is empty"),
            ("\nitem,cost\na,1", "line 1: it is empty"),
        ],
    )
    def test_rows_that_are_no_requests_are_named(self, tmp_path: Path, rows: str, message: str) -> None:
        assert message in refusal(put(tmp_path / "a.csv", rows))

    @pytest.mark.parametrize(
        ("column", "meant"),
        [
            *[
                (name, "time_s")
                for name in ("time", "Time", "TIMESTAMP", "ts", "time-ms", "time_s_", "tme_s", "Time (s)")
            ],
            *[
                (name, "size_bytes")
                for name in ("size", "bytes", "object size", "size_byte", "szie_bytes", "Size_Bytes")
            ],
            *[(name, "cost") for name in ("costs", "Cost", "COST ")],
            *[(name, "deadline_ms") for name in ("deadline", "deadline_s", "dedline_ms")],
            ("orign", "origin"),
        ],
    )
    def test_columns_that_look_like_ours_are_refused(self, tmp_path: Path, column: str, meant: str) -> None:
        message = refusal(put(tmp_path / "a.csv", f"{column},item\n1,a\n"))
        assert f'line 1: unknown column "{column.strip()}". Did you mean "{meant}"' in message
        rows = f"{column},item,{meant}\nx,a,1\n"  # with the right one there as well, it is something else
        assert meant in read_trace(put(tmp_path / "b.csv", rows)).columns()

    def test_other_columns_are_told_and_not_used(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        other = ["ttl", "id", "region", "host", "post", "price", "weight", "user", "type", "t"]
        path = put(tmp_path / "a.csv", f"item,{','.join(other)}\n" + f"a,{','.join('x' * 10)}\n" * 9)
        assert set(read_trace(path).columns()) == {"item"}
        shown = ", ".join(f'"{name}"' for name in other[:8])
        assert [record.message for record in caplog.records] == [
            f"{path}, line 1: columns that are not used: {shown} and 2 more"
        ]
        caplog.clear()
        read_trace(put(tmp_path / "b.csv", "item,cost\na,1\n"))
        assert not caplog.records

    def test_places_count_on_through_blocks(self, tmp_path: Path) -> None:
        rows = ["item,cost", *["a,1"] * 9, "a,x"]
        path = put(tmp_path / "a.csv", "\n".join(rows))
        for block in (1, 4, 100):
            with pytest.raises(DataError, match="line 11, column 2"):
                list(stream_trace(path, block=block))
        costs = [1.0] * 9 + [-1.0]
        path = put(tmp_path / "a.parquet", table(item=["a"] * 10, cost=costs))
        for block in (1, 4, 100):
            with pytest.raises(DataError, match='row 9, column "cost": cost is -1'):
                list(stream_trace(path, block=block))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"PAR1 and nothing more", "it is no Parquet file that can be read"),
            (table(item=["a"])[:-9], "it is no Parquet file that can be read"),
            (table(key=["a"]), 'schema: there is no column "item". Rename "key" to "item".'),
            (
                table(item=["a"], timestamp=[1]),
                'schema: unknown column "timestamp". Did you mean "time_s", in seconds?',
            ),
            (table(item=["a", None]), 'row 1, column "item": it is null'),
            (table(item=["a", "b"], cost=[1.0, None]), 'row 1, column "cost": it is null'),
            (table(item=[1.5]), 'column "item": it holds double. Give whole numbers or text.'),
            (table(item=[[1]]), 'column "item": it holds list'),
            (table(item=["a"], origin=[1.0]), 'column "origin": it holds double. Give whole numbers.'),
            (table(item=["a"], cost=["1"]), 'column "cost": it holds string. Give numbers.'),
            (table(item=["a"], size_bytes=pa.array([2**63], pa.uint64())), "it is no Parquet file that can be read"),
        ],
    )
    def test_tables_that_are_no_traces_are_refused(self, tmp_path: Path, content: bytes, message: str) -> None:
        assert message in refusal(put(tmp_path / "a.parquet", content))

    @given(content=st.binary(max_size=200), format=st.sampled_from(["auto", *CONTENTS]))
    def test_any_bytes_are_a_trace_or_a_data_error(
        self, tmp_path_factory: pytest.TempPathFactory, content: bytes, format: str
    ) -> None:
        path = put(tmp_path_factory.getbasetemp() / "any.trace", content)
        trace = trace_or_refusal(path, format)
        assert isinstance(trace, str) or len(trace) >= 1

    @given(content=st.binary(max_size=60), cut=st.integers(0, 200), suffix=st.sampled_from([".gz", ".xz"]))
    def test_any_damage_to_a_compressed_file_is_a_data_error(
        self, tmp_path_factory: pytest.TempPathFactory, content: bytes, cut: int, suffix: str
    ) -> None:
        packed = (gzip.compress if suffix == ".gz" else lzma.compress)(int32be(KEYS))
        path = put(tmp_path_factory.getbasetemp() / f"any.int32be{suffix}", packed[:cut] + content)
        trace = trace_or_refusal(path)
        assert isinstance(trace, str) or trace.item.tolist() == ITEMS  # padding, or nothing changed

"""Files: deterministic text, atomic replacement, checksums, torn and hostile content."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rivage.core import encoding, store
from rivage.core.errors import StoreError

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
in_folder = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
TENSORS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3)}


# --- JSON


@given(values)
def test_json_comes_back(value):
    assert json.loads(encoding.dumps(value)) == value


def test_json_is_canonical():
    assert encoding.dumps({"b": 0.1, "a": [1, "é"]}) == '{"a":[1,"\\u00e9"],"b":0.1}'


def test_json_has_no_nan():
    value = {"a": math.nan, "b": [math.inf, (1.5, np.float32("nan"))], "c": np.array([1.0, np.nan])}
    assert encoding.dumps(value) == '{"a":null,"b":[null,[1.5,null]],"c":[1.0,null]}'


def test_json_of_numpy_and_paths():
    assert encoding.dumps([np.int64(3), np.float32(0.5), np.bool_(True), Path("a")]) == '[3,0.5,true,"a"]'
    with pytest.raises(TypeError, match="object has no JSON form"):
        encoding.dumps(object())


def test_json_file(tmp_path):
    store.write_json(tmp_path / "new" / "x.json", {"a": 1})
    assert store.read_json(tmp_path / "new" / "x.json") == {"a": 1}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff", b"1" * 5000])
def test_corrupt_json_file(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"x\.json: is not JSON"):
        store.read_json(tmp_path / "x.json")


def test_text_file(tmp_path):
    store.write_text(tmp_path / "x", "hôpital\n")
    assert store.read_text(tmp_path / "x") == "hôpital\n"
    (tmp_path / "x").write_bytes(b"h\xf4pital")
    with pytest.raises(StoreError, match="is not UTF-8"):
        store.read_text(tmp_path / "x")


def test_a_huge_file_is_refused_unread(tmp_path):
    with (tmp_path / "x").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(StoreError, match=r"more than 268435456\. Check that it is"):
        store.read_text(tmp_path / "x")


def test_a_huge_tensor_file_is_refused_unread(tmp_path):
    store.save_tensors(tmp_path / "x", TENSORS)
    with (tmp_path / "x").open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(StoreError, match="the tensors take 32 bytes of"):
        store.load_tensors(tmp_path / "x")


@pytest.mark.parametrize("read", [store.read_text, store.read_json, store.load_tensors, store.read_table])
def test_missing_file(tmp_path, read):
    with pytest.raises(StoreError, match=r"nothing: cannot be read \(No such file or directory\). Check the path"):
        read(tmp_path / "nothing")


# --- atomic replacement


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    store.write_text(tmp_path / "x", "old")

    def fail(*_: object) -> None:
        raise OSError("disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk is full"):
        store.write_text(tmp_path / "x", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"


WRITER = """
import sys
from pathlib import Path
import numpy as np
from rivage.core.store import append_jsonl, save_tensors
folder = Path(sys.argv[1])
round = 0
while True:
    save_tensors(folder / "state", {"w": np.full(50_000, round)}, {"round": str(round)})
    append_jsonl(folder / "lines", {"round": round, "text": "x" * 5_000})
    round += 1
    print(round, flush=True)
"""


@pytest.mark.process
def test_files_are_readable_after_kill(tmp_path):
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(5 + attempt):
            process.stdout.readline()
        time.sleep(0.003 * attempt)  # so that the kill does not always meet the same instruction
        process.send_signal(signal.SIGKILL)
        process.communicate()
        tensors, metadata = store.load_tensors(folder / "state")
        assert (tensors["w"] == int(metadata["round"])).all()
        lines = [line["round"] for line in store.read_jsonl(folder / "lines")]
        assert lines == list(range(len(lines)))
        assert len(lines) >= 5 + attempt


# --- tensors


def test_tensors_come_back(tmp_path):
    store.save_tensors(tmp_path / "x", TENSORS, {"round": "3"})
    tensors, metadata = store.load_tensors(tmp_path / "x")
    assert metadata == {"round": "3"}
    assert tensors.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(tensors[name], array, strict=True)


def test_the_library_reads_and_writes_the_format(tmp_path):
    store.save_tensors(tmp_path / "x", TENSORS, {"round": "3"})
    read = safetensors.numpy.load_file(tmp_path / "x")
    np.testing.assert_array_equal(read["w"], TENSORS["w"])
    with safetensors.safe_open(tmp_path / "x", "numpy") as file:
        assert file.metadata()["round"] == "3"
    tensors, metadata = encoding.decode_tensors(safetensors.numpy.save(TENSORS, {"made": "there"}))
    np.testing.assert_array_equal(tensors["w"], TENSORS["w"])
    assert metadata == {"made": "there"}


def test_equal_tensors_give_equal_files(tmp_path):
    store.save_tensors(tmp_path / "x", TENSORS, {"a": "1", "b": "2"})
    store.save_tensors(tmp_path / "y", dict(reversed(TENSORS.items())), {"b": "2", "a": "1"})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_unaligned_tensors_of_others_are_read():
    header = b'{"a":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}} '[:-1]
    buffer = len(header).to_bytes(8, "little") + header + np.array([1.0, 2.0]).tobytes()
    assert len(header) % 8
    array = encoding.decode_tensors(buffer)[0]["a"]
    assert array.flags.aligned
    assert array.tolist() == [1.0, 2.0]


def test_every_flipped_byte_of_a_tensor_file_is_noticed(tmp_path):
    store.save_tensors(tmp_path / "x", TENSORS, {"round": "3"})
    content = (tmp_path / "x").read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        (tmp_path / "x").write_bytes(damaged)
        with pytest.raises(StoreError):
            store.load_tensors(tmp_path / "x")


def test_every_truncation_of_a_tensor_file_is_noticed(tmp_path):
    store.save_tensors(tmp_path / "x", TENSORS)
    content = (tmp_path / "x").read_bytes()
    for size in range(len(content)):
        (tmp_path / "x").write_bytes(content[:size])
        with pytest.raises(StoreError, match="x: is not a safetensors buffer"):
            store.load_tensors(tmp_path / "x")


def test_a_file_without_checksum_is_refused(tmp_path):
    safetensors.numpy.save_file(TENSORS, tmp_path / "x")
    with pytest.raises(StoreError, match="checksum"):
        store.load_tensors(tmp_path / "x")


# --- tables


def test_a_table_comes_back(tmp_path):
    columns = {"method": ["a", "b"], "test": [0.5, None], "client": [1, 2], "empty": [None, None]}
    store.write_table(tmp_path / "x.parquet", columns)
    assert store.read_table(tmp_path / "x.parquet") == columns


@in_folder
@given(place=st.integers(0, 10_000), value=st.integers(1, 255), size=st.integers(0, 10_000))
def test_a_damaged_table_raises_store_error(tmp_path, place, value, size):
    store.write_table(tmp_path / "x", {"a": list(range(50)), "b": [str(i) for i in range(50)]})
    content = bytearray((tmp_path / "x").read_bytes())
    content[place % len(content)] ^= value
    (tmp_path / "x").write_bytes(content[: len(content) - size % 20])
    with suppress(StoreError):  # any other error fails the test
        store.read_table(tmp_path / "x")


# --- lines

LINES = [{"round": 0}, {"round": 1, "name": "é\n"}, {"round": 2}]


def write_lines(path: Path) -> list[int]:
    return [store.append_jsonl(path, line) for line in LINES]


def test_lines_come_back(tmp_path):
    sizes = write_lines(tmp_path / "x")
    assert list(store.read_jsonl(tmp_path / "x")) == LINES
    assert sizes[-1] == (tmp_path / "x").stat().st_size


def test_lines_cut_anywhere_keep_every_whole_line(tmp_path):
    sizes = write_lines(tmp_path / "x")
    content = (tmp_path / "x").read_bytes()
    for size in range(len(content) + 1):
        (tmp_path / "x").write_bytes(content[:size])
        whole = sum(end <= size for end in sizes)
        assert list(store.read_jsonl(tmp_path / "x")) == LINES[:whole]
        for line in LINES[whole:]:
            store.append_jsonl(tmp_path / "x", line)
        assert (tmp_path / "x").read_bytes() == content


def test_a_long_torn_line_is_dropped(tmp_path):
    write_lines(tmp_path / "x")
    with (tmp_path / "x").open("ab") as file:
        file.write(b'{"text":"' + b"x" * 200_000)
    store.append_jsonl(tmp_path / "x", {"round": 3})
    assert list(store.read_jsonl(tmp_path / "x")) == [*LINES, {"round": 3}]


@pytest.mark.parametrize(
    ("line", "fault"), [(b"{\n", "is not JSON"), (b"[1]\n", "is not a JSON object"), (b"\n", "is not JSON")]
)
def test_a_corrupt_line_is_named(tmp_path, line, fault):
    (tmp_path / "x").write_bytes(b'{"a":1}\n' + line + b'{"a":2}\n')
    with pytest.raises(StoreError, match=f"x, line 2: {fault}"):
        list(store.read_jsonl(tmp_path / "x"))


def test_an_endless_line_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "MAX_TEXT_BYTES", 8)
    (tmp_path / "x").write_bytes(b'{"a":1}\n' + b"x" * 20)
    with pytest.raises(StoreError, match="line 2: is too long"):
        list(store.read_jsonl(tmp_path / "x"))


def test_one_line_is_one_write(tmp_path, monkeypatch):
    writes = []

    class Spy(io.FileIO):
        def write(self, line):
            writes.append(bytes(line))
            return super().write(line)

    def opened(path: Path, mode: str, *, buffering: int) -> Spy:
        assert buffering == 0
        return Spy(path, mode.replace("b", ""))

    monkeypatch.setattr(Path, "open", opened)
    store.append_jsonl(tmp_path / "x", {"b": 1, "a": 2})
    assert writes == [b'{"a":2,"b":1}\n']


def test_lines_can_be_truncated(tmp_path):
    sizes = write_lines(tmp_path / "x")
    for offset in (1, sizes[0] - 1, sizes[-1] + 1):
        with pytest.raises(StoreError, match=f"no line that ends at byte {offset}"):
            store.truncate_jsonl(tmp_path / "x", offset)
    store.truncate_jsonl(tmp_path / "x", sizes[1])
    assert list(store.read_jsonl(tmp_path / "x")) == LINES[:2]
    store.truncate_jsonl(tmp_path / "x", 0)
    assert list(store.read_jsonl(tmp_path / "x")) == []


def test_missing_lines(tmp_path):
    with pytest.raises(StoreError, match="cannot be read"):
        list(store.read_jsonl(tmp_path / "x"))
    with pytest.raises(StoreError, match="cannot be read"):
        store.truncate_jsonl(tmp_path / "x", 0)


def test_sync(tmp_path):
    write_lines(tmp_path / "x")
    store.sync(tmp_path / "x")
    assert list(store.read_jsonl(tmp_path / "x")) == LINES

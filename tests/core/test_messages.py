"""The payload coding and the message log: exact sizes, equal bytes, torn and damaged files."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rivage.core import frames
from rivage.core.encoding import dumps
from rivage.core.errors import ConfigError, StoreError
from rivage.core.message_log import MessageLog
from rivage.core.messages import LogPolicy, Message, decode, encode, encoded_size

DTYPES = ["?", "i1", "u1", "<i2", "<u2", "<f2", "<i4", "<u4", "<f4", "<i8", "<u8", "<f8", ">f4", ">i8"]
payloads = st.dictionaries(
    st.text(max_size=12).filter(lambda name: name != "__metadata__"),
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    ),
    max_size=5,
)


def message(round: int, client: int, values: object, *, up: bool = False) -> Message:
    parties = (f"client:{client}", "server") if up else ("server", f"client:{client}")
    return Message(
        round=round,
        sender=parties[0],
        receiver=parties[1],
        kind="update" if up else "broadcast",
        payload={"params": np.asarray(values, np.float32)},
        time=float(round),
    )


def conversation(rounds: int, clients: int = 3) -> list[Message]:
    """Every round one broadcast, equal for all clients, and one update per client."""
    messages = []
    for round in range(rounds):
        broadcast = np.full(16, round)
        messages += [message(round, client, broadcast) for client in range(clients)]
        messages += [message(round, client, broadcast + client + 0.5, up=True) for client in range(clients)]
    return messages


def write(path: Path, messages: list[Message], policy: str = "all") -> bytes:
    with MessageLog.create(path, {"loss": "squared"}, LogPolicy.parse(policy)) as log:
        for each in messages:
            log.append(each)
    return path.read_bytes()


def assert_equal(read: list[Message], written: list[Message]) -> None:
    assert len(read) == len(written)
    for one, other in zip(read, written, strict=True):
        for name in ("round", "sender", "receiver", "kind", "time", "nbytes"):
            assert getattr(one, name) == getattr(other, name)
        assert one.payload.keys() == other.payload.keys()
        for name in one.payload:
            np.testing.assert_array_equal(one.payload[name], other.payload[name])


# --- coding


@given(payloads)
def test_encoded_size_is_the_length(payload):
    assert encoded_size(payload) == len(encode(payload))


@given(payloads)
def test_decode_inverts_encode(payload):
    read = decode(encode(payload))
    assert read.keys() == payload.keys()
    for name, array in payload.items():
        assert read[name].shape == array.shape
        assert read[name].dtype == array.dtype.newbyteorder("<")
        assert read[name].flags.writeable
        assert read[name].flags.aligned
        assert read[name].tobytes() == array.astype(read[name].dtype).tobytes()


@given(payloads)
def test_the_library_reads_the_same(payload):
    read = safetensors.numpy.load(encode(payload))
    for name, array in decode(encode(payload)).items():
        assert read[name].dtype == array.dtype
        assert read[name].tobytes() == array.tobytes()
    for name, array in decode(safetensors.numpy.save(read)).items():
        assert read[name].tobytes() == array.tobytes()


def test_one_width_gives_the_bytes_of_the_library():
    payload = {"b": np.arange(3, dtype=np.float32), "a": np.ones((2, 2), np.float32)}
    assert encode(payload) == safetensors.numpy.save(payload)


def test_order_and_layout_do_not_matter():
    matrix = np.arange(6.0).reshape(2, 3)
    payload = {"a": np.ones(1), "m": matrix}
    assert encode({"m": np.asfortranarray(matrix), "a": np.ones(2)[::2]}) == encode(payload)


def test_a_dtype_without_code_is_refused():
    with pytest.raises(StoreError, match='"z" has dtype complex128'):
        encode({"z": np.ones(1, complex)})


@given(payloads, st.data())
def test_hostile_buffers_raise_store_error(payload, data):
    buffer = bytearray(encode(payload))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(buffer) - 1))
        buffer[place] = data.draw(st.integers(0, 255))
    del buffer[data.draw(st.integers(0, len(buffer))) :]
    try:
        arrays = decode(buffer)
    except StoreError:
        return
    assert sum(array.nbytes for array in arrays.values()) <= len(buffer)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b'{"a":1}',
        b"[" * 100_000,
        b'{"__metadata__":{"k":1}}',
        b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,-4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}',
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}\0',
        b'{"a":{"dtype":"F32","shape":[4611686018427387903],"data_offsets":[0,17179869180]}}',
        b'{"a":{"dtype":"F32","shape":[0,' + b"4611686018427387903," * 50 + b'2],"data_offsets":[0,0]}}',
        b'{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}',
        b'{"a":{"dtype":["F32"],"shape":[],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[],"data_offsets":' + b"9" * 5000 + b"}}",
        b"\xff\xfe",
    ],
)
def test_hostile_headers_raise_store_error(header):
    data = header.removesuffix(b"\0")
    with pytest.raises(StoreError, match="is not a safetensors buffer"):
        decode(len(data).to_bytes(8, "little") + header)


def test_a_shape_of_very_many_numbers_is_not_multiplied():
    header = b'{"a":{"dtype":"F32","shape":[' + b"4611686018427387903," * 20_000 + b'2],"data_offsets":[0,0]}}'
    with pytest.raises(StoreError, match="malformed shape"):
        decode(len(header).to_bytes(8, "little") + header)


def test_a_lying_header_length_allocates_nothing():
    tracemalloc.start()
    with pytest.raises(StoreError, match="header length"):
        decode((2**40).to_bytes(8, "little") + b"{}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_nbytes_counts_the_wire():
    one = message(0, 1, [1.0, 2.0])
    assert one.nbytes == len(encode(one.payload))


# --- policy


@pytest.mark.parametrize("text", ["none", "meta", "all", "clients:[0]", "clients:[3, 14]"])
def test_policies_are_read_as_written(text):
    assert str(LogPolicy.parse(text)) == text


@pytest.mark.parametrize("text", ["", "al", "clients", "clients:[]", "clients:[a]", "clients:[-1]", "clients:[²]"])
def test_unknown_policies_are_refused(text):
    with pytest.raises(ConfigError, match='Write "none", "meta"'):
        LogPolicy.parse(text)


def test_clients_policy_keeps_both_directions(tmp_path):
    messages = conversation(1)
    write(tmp_path / "log", messages, "clients:[1]")
    kept = [each.omitted is None for each in MessageLog.read(tmp_path / "log")]
    assert kept == [False, True, False, False, True, False]


def test_clients_policy_keeps_the_sum_of_a_cohort(tmp_path):
    """It is everybody's, while a single client's part stays out."""
    total = Message(round=0, sender="cohort", receiver="server", kind="sum", payload={"params": np.ones(4)})
    write(tmp_path / "log", [*conversation(1), total], "clients:[1]")
    *_, other, last = MessageLog.read(tmp_path / "log")
    assert (other.sender, other.payload) == ("client:2", {})
    np.testing.assert_array_equal(last.payload["params"], np.ones(4))
    write(tmp_path / "meta", [total], "meta")
    assert not next(iter(MessageLog.read(tmp_path / "meta"))).payload


def test_meta_counts_bytes_without_storing_them(tmp_path):
    messages = [message(0, client, np.zeros(10_000)) for client in range(3)]
    assert len(write(tmp_path / "log", messages, "meta")) < 2_000
    read = list(MessageLog.read(tmp_path / "log"))
    assert [each.nbytes for each in read] == [each.nbytes for each in messages]
    assert all(not each.payload for each in read)


def test_none_keeps_no_message(tmp_path):
    write(tmp_path / "log", conversation(1), "none")
    assert list(MessageLog.read(tmp_path / "log")) == []


# --- log


def test_messages_come_back(tmp_path):
    messages = conversation(3)
    write(tmp_path / "log", messages)
    assert_equal(list(MessageLog.read(tmp_path / "log")), messages)
    assert MessageLog.read_header(tmp_path / "log") == {"loss": "squared"}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=st.lists(payloads, max_size=4))
def test_any_payload_comes_back(tmp_path, written):
    messages = [Message(round=-1, sender="server", receiver="é:1", kind="statistics", payload=each) for each in written]
    write(tmp_path / "log", messages)
    for one, other in zip(MessageLog.read(tmp_path / "log"), messages, strict=True):
        assert encode(one.payload) == encode(other.payload)


def test_heads_can_be_read_alone(tmp_path):
    messages = conversation(2)
    write(tmp_path / "log", messages)
    heads = list(MessageLog.read(tmp_path / "log", payloads=False))
    assert [each.nbytes for each in heads] == [each.nbytes for each in messages]
    assert all(not each.payload for each in heads)


def test_equal_payloads_are_stored_once(tmp_path):
    shared = [message(0, client, np.arange(5000)) for client in range(20)]
    assert len(write(tmp_path / "log", shared)) < 2 * shared[0].nbytes
    assert_equal(list(MessageLog.read(tmp_path / "log")), shared)


def test_an_object_refilled_in_the_next_round_is_stored_again(tmp_path):
    payload = {"params": np.zeros(4)}
    with MessageLog.create(tmp_path / "log", {}) as log:
        for round in range(2):
            payload["params"][:] = round
            one = Message(round=round, sender="server", receiver="client:0", kind="broadcast", payload=payload)
            log.append(one)
    assert [each.payload["params"][0] for each in MessageLog.read(tmp_path / "log")] == [0, 1]


@pytest.mark.parametrize("kept", range(0, 18, 5))
def test_a_resumed_log_has_the_same_bytes(tmp_path, kept):
    messages = conversation(3)
    whole = write(tmp_path / "whole", messages)
    with MessageLog.create(tmp_path / "log", {"loss": "squared"}) as log:
        for each in messages[:kept]:
            log.append(each)
        checkpoint = log.offset
        for each in messages[kept : kept + 4]:
            log.append(each)
    with MessageLog.open(tmp_path / "log") as log:
        log.truncate(checkpoint)
        assert log.offset == checkpoint
        for each in messages[kept:]:
            log.append(each)
        assert log.offset == len(whole)
    assert (tmp_path / "log").read_bytes() == whole


def test_reopening_keeps_policy_and_shared_payloads(tmp_path):
    messages = conversation(2)
    whole = write(tmp_path / "whole", messages, "clients:[2]")
    with MessageLog.create(tmp_path / "log", {"loss": "squared"}, LogPolicy.parse("clients:[2]")):
        pass
    for each in messages:
        with MessageLog.open(tmp_path / "log") as log:
            log.append(each)
    assert (tmp_path / "log").read_bytes() == whole


def test_truncate_wants_the_end_of_a_message(tmp_path):
    size = len(write(tmp_path / "log", conversation(1)))
    with MessageLog.open(tmp_path / "log") as log:
        for offset in (0, 1, size - 1, size + 1):
            with pytest.raises(StoreError, match=f"no message ends at byte {offset}"):
                log.truncate(offset)
        assert log.offset == size


def test_flush_shows_messages_to_readers(tmp_path):
    with MessageLog.create(tmp_path / "log", {}) as log:
        log.append(message(0, 0, [1.0]))
        log.flush()
        assert len(list(MessageLog.read(tmp_path / "log"))) == 1


def frame_ends(path: Path, messages: list[Message]) -> list[int]:
    with MessageLog.create(path, {"loss": "squared"}) as log:
        ends = [log.offset]
        for each in messages:
            log.append(each)
            ends.append(log.offset)
    return ends


def test_a_log_cut_anywhere_keeps_every_whole_message(tmp_path):
    messages = conversation(1, clients=2)
    ends = frame_ends(tmp_path / "log", messages)
    content = (tmp_path / "log").read_bytes()
    for size in range(ends[0], len(content) + 1):
        (tmp_path / "cut").write_bytes(content[:size])
        whole = sum(end <= size for end in ends) - 1
        assert_equal(list(MessageLog.read(tmp_path / "cut")), messages[:whole])
        with MessageLog.open(tmp_path / "cut") as log:
            assert log.offset == ends[whole]
            for each in messages[whole:]:
                log.append(each)
        assert (tmp_path / "cut").read_bytes() == content


def test_a_log_cut_in_its_header_is_refused(tmp_path):
    ends = frame_ends(tmp_path / "log", [])
    content = (tmp_path / "log").read_bytes()
    for size in range(ends[0]):
        (tmp_path / "cut").write_bytes(content[:size])
        for use in (MessageLog.open, MessageLog.read_header, lambda path: list(MessageLog.read(path))):
            with pytest.raises(StoreError):
                use(tmp_path / "cut")


def test_every_flipped_byte_is_noticed(tmp_path):
    messages = conversation(1, clients=2)
    ends = frame_ends(tmp_path / "log", messages)
    content = (tmp_path / "log").read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        (tmp_path / "damaged").write_bytes(damaged)
        if place >= ends[-2]:  # the last message: dropped
            assert_equal(list(MessageLog.read(tmp_path / "damaged")), messages[:-1])
            with MessageLog.open(tmp_path / "damaged") as log:
                assert log.offset == ends[-2]
        elif place < ends[0]:
            with pytest.raises(StoreError, match="no readable header"):
                list(MessageLog.read(tmp_path / "damaged"))
        else:
            with pytest.raises(StoreError, match="byte"):
                list(MessageLog.read(tmp_path / "damaged"))


def test_a_tail_of_zeros_is_dropped(tmp_path):
    messages = conversation(1)
    content = write(tmp_path / "log", messages)
    (tmp_path / "log").write_bytes(content + bytes(3 << 20))
    assert_equal(list(MessageLog.read(tmp_path / "log")), messages)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_hostile_logs_raise_store_error(tmp_path, data):
    content = bytearray(write(tmp_path / "log", conversation(1, clients=2)))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    (tmp_path / "log").write_bytes(content)
    for use in (MessageLog.read_header, lambda path: list(MessageLog.read(path)), open_and_close):
        with suppress(StoreError):  # any other error fails the test
            use(tmp_path / "log")


def open_and_close(path: Path) -> None:
    MessageLog.open(path).close()


HEAD = {"round": 0, "sender": "server", "receiver": "client:0", "kind": "k", "time": 0.0, "bytes": 9}


@pytest.mark.parametrize(
    "change",
    [
        {"round": -2},
        {"round": True},
        {"round": "0"},
        {"sender": None},
        {"time": None},
        {"bytes": -1},
        {"bytes": 10**30, "payload": "x", "at": 1},
        {"payload": "x", "at": 0},
        {"payload": "x", "at": 10**30},
        {"payload": "x", "at": None},
        {"payload": 3},
        {"at": "1"},
    ],
)
def test_forged_heads_raise_store_error(tmp_path, change):
    """Checksums are right, the content is not."""

    path = tmp_path / "log"
    write(path, [])
    head = dumps({**HEAD, "payload": None, "at": None, **change}).encode()
    with path.open("ab") as file:
        file.write(frames.opening(head, 0) + frames.NO_BODY)
    with pytest.raises(StoreError):
        list(MessageLog.read(path))


def test_lying_lengths_allocate_nothing(tmp_path):

    path = tmp_path / "log"
    write(path, [])
    prefix = frames._PREFIX.pack(frames._MAGIC, 16 << 20, 2 << 30)
    with path.open("ab") as file:
        file.write(prefix + frames._CRC.pack(frames.crc32(prefix)))
    tracemalloc.start()
    assert list(MessageLog.read(path)) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_reading_holds_one_message(tmp_path):
    size = 1 << 20
    with MessageLog.create(tmp_path / "log", {}) as log:
        for round in range(24):
            log.append(message(round, 0, np.full(size // 4, round)))
    tracemalloc.start()
    total = sum(each.nbytes for each in MessageLog.read(tmp_path / "log"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total > 24 * size
    assert peak < 5 * size


def test_missing_file(tmp_path):
    for use in (MessageLog.open, MessageLog.read_header, lambda path: list(MessageLog.read(path))):
        with pytest.raises(StoreError, match="cannot be read"):
            use(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()

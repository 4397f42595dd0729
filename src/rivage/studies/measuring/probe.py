"""What runs on a machine while it is measured: it sends to its peers, answers them, and looks at the clock.

The text of this module is sent to Python over its standard input (`rivage.studies.measuring.agents`); nothing has to be
installed there. Hence the standard library of Python 3.6, and no module of ours.

Commands are lines of JSON on standard input, answers are lines of JSON after a mark on standard output. The probe
serves only those who know the token of the run, listens on one address, and ends with its standard input or when its
time is over. The token crosses the network as it is: it keeps strangers out, not those who read along, and what they
could do with it is to send bytes for a while.

A peer says in one line what it wants: ``TOKEN echo``; or ``TOKEN sink ID STREAMS SECONDS``, and in each of the streams
``TOKEN data ID``. Whoever receives a transfer decides when it ends, and tells when what had arrived.
"""

import errno
import hmac
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

MARK = "rivage-probe "
MESSAGE = b"." * 32
WARM_UP = 2  # messages that do not count: the peer starts a thread for the first one
BLOCK_BYTES = 1 << 18
LINE_BYTES = 256  # of what a peer may say before it is known
SAMPLES = 300  # of each stream
DROP_WHAT_WAITS = struct.pack("ii", 1, 0)


class Fault(Exception):
    """What went wrong, in a word that is known on the other side of standard input, and in those of the system."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind, self.text = kind, text

    @classmethod
    def of(cls, error: OSError) -> "Fault":
        """The fault behind an error of the system."""
        kinds = (
            (socket.gaierror, "address"),
            (socket.timeout, "timeout"),
            (ConnectionRefusedError, "refused"),
            (ConnectionError, "lost"),
        )
        kind = next((word for family, word in kinds if isinstance(error, family)), "unreachable")
        return cls(kind, error.strerror or str(error) or type(error).__name__)


def attempt(work: "Callable[[], dict[str, Any]]") -> "dict[str, Any]":
    """What some work gives, or its fault."""
    try:
        return work()
    except (Fault, OSError) as error:
        fault = error if isinstance(error, Fault) else Fault.of(error)
        return {"fault": fault.kind, "text": fault.text}


def all_at_once(work: "list[Callable[[], dict[str, Any]]]") -> "list[dict[str, Any]]":
    """Several pieces of work, each in a thread."""
    answers: "list[dict[str, Any]]" = [{} for _ in work]

    def do(place: int) -> None:
        answers[place] = attempt(work[place])

    threads = [threading.Thread(target=do, args=(place,)) for place in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def first_line(peer: socket.socket) -> str:
    """A line, and nothing of what follows it."""
    line = b""
    while not line.endswith(b"\n"):
        byte = peer.recv(1)
        if not byte or len(line) == LINE_BYTES:
            raise ValueError("no line")
        line += byte
    return line.decode()


class Sink:
    """Where the streams of one transfer arrive."""

    def __init__(self, streams: int, seconds: float) -> None:
        self.seconds, self.missing = seconds, streams
        self.streams: "list[list[tuple[float, int]]]" = []
        self.started: "float | None" = None
        self.changed = threading.Condition()

    def take(self, stream: socket.socket) -> None:
        """Note when how many bytes had arrived, until the stream ends or the time is over."""
        buffer, total, due = bytearray(BLOCK_BYTES), 0, 0.0
        samples: "list[tuple[float, int]]" = []
        elapsed = 0.0
        try:
            while elapsed < self.seconds:
                count = stream.recv_into(buffer)
                elapsed, total = self.clock(), total + count
                if not count:
                    break
                if elapsed >= min(due, self.seconds):
                    samples.append((elapsed, total))
                    due = elapsed + self.seconds / SAMPLES
        except OSError:
            pass  # what has arrived counts
        if total and samples[-1][1] < total:
            samples.append((elapsed, total))
        with self.changed:
            self.streams.append(samples)
            self.missing -= 1
            self.changed.notify_all()

    def clock(self) -> float:
        """Seconds since something arrived in any of the streams."""
        now = time.monotonic()
        with self.changed:
            if self.started is None:
                self.started = now
            return now - self.started

    def wait(self, patience_s: float) -> "dict[str, Any]":
        """When it started, and the samples of those streams that ended in time."""
        with self.changed:
            self.changed.wait_for(lambda: self.missing == 0, self.seconds + patience_s)
            return {"started": self.started, "streams": list(self.streams)}


class Probe:
    """One machine's part in all measurements."""

    def __init__(self) -> None:
        self.token = ""
        self.patience_s = 0.0
        self.sinks: "dict[str, Sink]" = {}

    def listen(
        self, address: str, ports: "list[int]", token: str, life_s: float, patience_s: float
    ) -> "dict[str, Any]":
        """Open the first free port, on this address only."""
        self.token, self.patience_s = token, patience_s
        end = threading.Timer(life_s, os._exit, (0,))
        end.daemon = True
        end.start()
        family, _, _, _, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
        fault = Fault("ports", "")
        for port in range(ports[0], ports[1] + 1):
            door = socket.socket(family, socket.SOCK_STREAM)
            try:
                if os.name == "posix":  # elsewhere it would let others share the port
                    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                door.bind((place[0], port) + place[2:])  # noqa: RUF005
                door.listen(64)
            except OSError as error:
                door.close()
                fault = Fault("foreign" if error.errno == errno.EADDRNOTAVAIL else "ports", error.strerror or "")
            else:
                threading.Thread(target=self.welcome, args=(door,), daemon=True).start()
                return {"port": port}
        raise fault

    def welcome(self, door: socket.socket) -> None:
        """Answer peers, each in a thread."""
        while True:
            peer, _ = door.accept()
            threading.Thread(target=self.answer, args=(peer,), daemon=True).start()

    def answer(self, peer: socket.socket) -> None:
        """Do what a peer asks for, if it knows the token."""
        services: "dict[str, Callable[..., None]]" = {"echo": self.echo, "sink": self.sink, "data": self.data}
        with peer:
            try:
                peer.settimeout(self.patience_s)
                token, what, *words = first_line(peer).split()
                if hmac.compare_digest(token, self.token):
                    services[what](peer, *words)
            except (OSError, ValueError, TypeError, KeyError):
                pass  # strangers, and peers that broke off, which is noticed on their side

    def echo(self, peer: socket.socket) -> None:
        """Send back what comes."""
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for message in iter(lambda: peer.recv(len(MESSAGE)), b""):
            peer.sendall(message)

    def sink(self, peer: socket.socket, name: str, streams: str, seconds: str) -> None:
        """Announce a transfer, and tell what arrived."""
        sink = self.sinks[name] = Sink(int(streams), float(seconds))
        peer.sendall(b"ready\n")
        report = json.dumps(sink.wait(2 * self.patience_s))
        del self.sinks[name]
        peer.sendall(report.encode() + b"\n")

    def data(self, peer: socket.socket, name: str) -> None:
        """One stream of a transfer."""
        self.sinks[name].take(peer)

    def call(self, target: "dict[str, Any]", *words: object) -> socket.socket:
        """A connection to a peer that has been told what is wanted."""
        peer = socket.create_connection((target["address"], target["port"]), self.patience_s)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.sendall(" ".join(map(str, (self.token,) + words)).encode() + b"\n")  # noqa: RUF005
        return peer

    def ping(self, target: "dict[str, Any]", count: int) -> "dict[str, Any]":
        """Round trips of small messages to a peer, in ms."""
        times = []
        with self.call(target, "echo") as peer:
            for _ in range(WARM_UP + count):
                sent = time.perf_counter()
                peer.sendall(MESSAGE)
                back = 0
                while back < len(MESSAGE):
                    more = len(peer.recv(len(MESSAGE) - back))
                    if not more:
                        raise Fault("lost", "the peer hung up")
                    back += more
                times.append(1000 * (time.perf_counter() - sent))
        return {"round_trips_ms": times[WARM_UP:]}

    def send(self, targets: "list[dict[str, Any]]", streams: int, seconds: float, limit_bytes: int) -> "dict[str, Any]":
        """Transfers to some peers at once; what each of them saw."""

        def to(target: "dict[str, Any]") -> "Callable[[], dict[str, Any]]":
            return lambda: self.fill(target, streams, seconds, limit_bytes)

        return {"transfers": all_at_once([to(target) for target in targets])}

    def fill(self, target: "dict[str, Any]", streams: int, seconds: float, limit_bytes: int) -> "dict[str, Any]":
        """Send to a peer until it has enough; what it saw."""
        name = os.urandom(8).hex()
        pipes: "list[socket.socket]" = []
        with self.call(target, "sink", name, streams, seconds) as control, control.makefile() as lines:
            if lines.readline() != "ready\n":
                raise Fault("lost", "the peer hung up")
            control.settimeout(seconds + 3 * self.patience_s)
            try:
                pipes.extend(self.call(target, "data", name) for _ in range(streams))
                for pipe in pipes:
                    threading.Thread(target=pour, args=(pipe, -(-limit_bytes // streams)), daemon=True).start()
                report = lines.readline()
            finally:
                for pipe in pipes:
                    close(pipe)
        if not report:
            raise Fault("lost", "the peer hung up")
        seen = dict(json.loads(report))
        if len(seen["streams"]) < streams:
            raise Fault("lost", "a stream did not arrive")
        return seen

    def step(self, command: str, timeout_s: float) -> "dict[str, Any]":
        """The last word that a command of the user prints."""
        pipe = subprocess.PIPE
        try:
            done = subprocess.run(
                command, shell=True, timeout=timeout_s, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
            )
        except subprocess.TimeoutExpired:
            raise Fault("timeout", f"no end after {timeout_s:g} s") from None
        words = done.stdout.decode(errors="replace").split()
        if done.returncode or not words:
            said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines() or ["it printed nothing"]
            raise Fault("step", f"exit code {done.returncode}, {said[-1]}")
        return {"last": words[-1]}


def pour(pipe: socket.socket, left: int) -> None:
    """Send so many bytes that cannot be compressed, or until the peer has enough."""
    block = memoryview(os.urandom(BLOCK_BYTES))
    try:
        while left > 0:
            left -= pipe.send(block[: min(left, BLOCK_BYTES)])
        pipe.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def close(pipe: socket.socket) -> None:
    """Close at once, without sending what still waits: the next transfer needs the link."""
    try:
        pipe.shutdown(socket.SHUT_RDWR)  # wakes the thread that is sending
        pipe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, DROP_WHAT_WAITS)
    except OSError:
        pass
    pipe.close()


def main() -> None:
    """Do what standard input says, line by line, until it ends."""
    probe = Probe()
    tell(0, {"python": sys.version.split()[0]})
    for line in iter(sys.stdin.readline, ""):
        command = json.loads(line)
        number, work = command.pop("number"), getattr(probe, command.pop("do"))
        tell(number, attempt(lambda work=work, command=command: work(**command)))  # type: ignore[misc]


def tell(number: int, answer: "dict[str, Any]") -> None:
    """The answer to a question, as one line on standard output."""
    sys.stdout.write(f"\n{MARK}{json.dumps(dict(answer, number=number))}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    finally:
        os._exit(0)  # threads may wait for peers

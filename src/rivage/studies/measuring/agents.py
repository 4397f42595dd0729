"""This side of the probes: one process per machine that talks to the probe there, and words for what goes wrong.

What is started is the same few words everywhere, ``COMMAND python3 -I -u -m code``: none of them means anything to a
shell, so that it does not matter whether the command hands its arguments to a shell, as ssh does, or not, as ``ip netns
exec`` does. Everything else, the program first, goes over standard input as JSON in ASCII, and no shell reads it.
"""

from __future__ import annotations

import json
import queue
import shlex
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import files
from typing import IO, Any, Self

from rivage.core.errors import ProtocolError
from rivage.studies.measuring.hosts import Host
from rivage.studies.measuring.probe import MARK

__all__ = ["Agent", "command_of"]

_BOOT = "import sys, json; exec(compile(json.loads(sys.stdin.readline()), 'probe', 'exec'), {'__name__': '__main__'})"
_GRACE_S = 2.0  # for a process that ends by itself


def command_of(host: Host) -> list[str]:
    """The words that start Python on a machine."""
    python = shlex.split(host.python) if host.python else ["python3" if host.command else sys.executable]
    return [*shlex.split(host.command), *python, "-I", "-u", "-m", "code"]


class Agent:
    """The probe on one machine, as seen from here.

    Args:
        host: the machine.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.port = 0
        self._asked = 0
        self._failure: ProtocolError | None = None
        self._answers: queue.Queue[Mapping[str, Any] | None] = queue.Queue()
        self._said: deque[str] = deque(maxlen=20)
        self._process = self._started()
        self._listeners = [
            threading.Thread(target=listener, args=(stream,), daemon=True)
            for listener, stream in ((self._listen, self._process.stdout), (self._note, self._process.stderr))
        ]
        for listener in self._listeners:
            listener.start()

    def _started(self) -> subprocess.Popen[str]:
        command, pipe = command_of(self.host), subprocess.PIPE
        program = files("rivage.studies.measuring").joinpath("probe.py").read_text("utf-8")
        try:
            process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, encoding="utf-8", errors="replace"
            )
        except OSError as error:
            mend = f'Install it here, or mend command ("{self.host.command}").'
            raise ProtocolError(f'"{command[0]}" cannot be started ({error.strerror})', mend=mend) from error
        self._write(process, f"{_BOOT}\n{json.dumps(program)}\n")
        return process

    def greet(self, patience_s: float) -> None:
        """Wait for the probe to say that it runs.

        Raises:
            ProtocolError: when it does not.
        """
        self._answer(patience_s, "it did not start")

    def listen(self, ports: tuple[int, int], token: str, life_s: float, patience_s: float) -> None:
        """Let the probe serve the peers that know the token.

        Raises:
            ProtocolError: when it cannot.
        """
        address = self.host.bind or self.host.address
        answer = self.ask(
            "listen", patience_s, address=address, ports=ports, token=token, life_s=life_s, patience_s=patience_s
        )
        if "fault" in answer:
            raise _unheard(self.host, address, ports, answer)
        self.port = answer["port"]

    @property
    def target(self) -> dict[str, Any]:
        """Where its peers find it."""
        return {"address": self.host.address, "port": self.port}

    def ask(self, what: str, wait_s: float, /, **details: Any) -> Mapping[str, Any]:
        """Have the probe do something; its answer, which may be a fault.

        Raises:
            ProtocolError: when it is gone or does not answer; it is not asked again.
        """
        if self._failure is not None:
            raise self._failure
        self._asked += 1
        self._write(self._process, json.dumps({"do": what, "number": self._asked, **details}) + "\n")
        return self._answer(wait_s, f'it did not answer to "{what}"')

    def _answer(self, wait_s: float, failing: str) -> Mapping[str, Any]:
        try:
            answer = self._answers.get(timeout=wait_s)
        except queue.Empty:
            mend = self._try_it("Raise patience_s")
            self._failure = ProtocolError(f"{failing} within {wait_s:g} s", where=self.host.name, mend=mend)
            raise self._failure from None
        if answer is None:
            raise self.loss()
        assert answer["number"] == self._asked, "one question at a time"
        return answer

    @property
    def alive(self) -> bool:
        """Whether the probe can be asked."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)
        return self._process.returncode is None and self._failure is None

    def loss(self) -> ProtocolError:
        """Why the probe is gone, as far as can be told."""
        if self._failure is None:
            self._failure = self._ended()
        return self._failure

    def _ended(self) -> ProtocolError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        self._listeners[1].join(_GRACE_S)
        said = [line.strip() for line in self._said if line.strip()][-1:]
        code, python = self._process.returncode, command_of(self.host)[-5]
        absent = code == 127 or any(
            python in line and ("not found" in line or "no such file" in line) for line in map(str.lower, said)
        )
        if absent or any("unknown option: -i" in line.lower() for line in self._said):
            mend = 'Install Python 3.6 or later there, or say where it is, e.g. python = "/opt/python/bin/python3".'
        else:
            mend = self._try_it("Mend command")
        what = ", ".join([f"the command ended with exit code {code}", *said])
        return ProtocolError(what, where=self.host.name, mend=mend)

    def _try_it(self, instead: str) -> str:
        return f"{instead}, or try it by hand: {shlex.join([*command_of(self.host)[:-4], '--version'])}"

    def _write(self, process: subprocess.Popen[str], text: str) -> None:
        assert process.stdin is not None, "it is a pipe"
        with suppress(OSError):  # whoever waits for the answer is told that there is none
            process.stdin.write(text)
            process.stdin.flush()

    def _listen(self, stream: IO[str]) -> None:
        """Answers to the queue; greetings of shells and prompts are none."""
        with stream:
            for line in stream:
                if line.startswith(MARK):
                    self._answers.put(json.loads(line.removeprefix(MARK)))
        self._answers.put(None)

    def _note(self, stream: IO[str]) -> None:
        with stream:
            self._said.extend(stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Let the probe end, and see to it."""
        assert self._process.stdin is not None, "it is a pipe"
        with suppress(OSError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        self.kill()
        for listener in self._listeners:
            listener.join(_GRACE_S)

    def kill(self) -> None:
        """End the process that talks to the probe; whoever waits for an answer is told."""
        self._process.kill()
        self._process.wait()


def _unheard(host: Host, address: str, ports: tuple[int, int], answer: Mapping[str, Any]) -> ProtocolError:
    """Why a machine cannot listen."""
    first, last = ports
    match answer["fault"]:
        case "foreign":
            what, mend = f"{address} is no address of this machine", "Give the one it has as bind."
        case "address":
            what, mend = f'no machine is named "{address}" there', "Mend address, or give bind."
        case _:
            what, mend = f"no port from {first} to {last} is free at {address}", "Give others as ports."
    return ProtocolError(f"{what} ({answer['text']})", where=host.name, mend=mend)

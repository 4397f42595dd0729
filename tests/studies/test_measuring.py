"""Machines measured on loopback: what is read, what is refused, what is kept, and what is written."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rivage.cli.progress import Lines
from rivage.core.errors import ConfigError, DataError, ProtocolError
from rivage.core.store import read_jsonl
from rivage.core.toml import load_toml
from rivage.decentralized import Silos
from rivage.graphs import load_connectivity
from rivage.graphs.matrices import parse_matrix
from rivage.studies.games.design import make_design
from rivage.studies.measuring.agents import Agent, command_of
from rivage.studies.measuring.hosts import Host, Hosts, Probing, load_hosts, parse_lines
from rivage.studies.measuring.pairs import measure, meetings
from rivage.studies.measuring.rates import hasty, later, rate_of, round_trips_of
from rivage.studies.measuring.results import RESULTS, format_matrix

QUICK = Probing(pings=3, seconds=0.1, megabytes=20, patience_s=5)


def hosts_of(*names: str, **more: Any) -> Hosts:
    """Machines that are all this one."""
    made = tuple(Host(name=name, address="127.0.0.1", **more) for name in names)
    return Hosts(hosts=made, name="here", probing=QUICK)


def pairs_of(*names: str) -> Hosts:
    """The same, without transfers among all at once."""
    return replace(hosts_of(*names), probing=replace(QUICK, access=False))


class Watcher:
    """Keeps what it is told, and may do something at a point."""

    def __init__(self, at: Mapping[int, Any] | None = None) -> None:
        self.events: list[dict[str, Any]] = []
        self.at = at or {}

    def on_event(self, event: Mapping[str, Any]) -> None:
        self.events.append(dict(event))
        if event["event"] == "point" and event["done"] in self.at:
            self.at[event["done"]]()

    @property
    def done(self) -> list[int]:
        return [event["done"] for event in self.events if event["event"] == "point"]

    @property
    def notices(self) -> str:
        return " ".join(event["text"] for event in self.events if event["event"] == "notice")


# --- the file of machines ------------------------------------------------------------------------------------


def test_toml_and_lines_name_the_same_machines(tmp_path: Path) -> None:
    toml, plain = tmp_path / "sites.toml", tmp_path / "sites.txt"
    toml.write_text(
        '[[hosts]]\nname = "paris"\naddress = "10.8.0.1"\ncommand = "ssh -o BatchMode=yes alice@paris"\n'
        '[[hosts]]\nname = "nice"\naddress = "nice.example.org"\n'
    )
    plain.write_text("# ours\n\nparis 10.8.0.1 ssh -o BatchMode=yes alice@paris\nnice\tnice.example.org\n")
    assert load_hosts(toml) == load_hosts(plain)
    assert load_hosts(toml).name == "sites"
    assert load_hosts(toml).names == ("paris", "nice")


def test_all_faults_of_a_file_are_told_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "hosts.toml"
    path.write_text(
        'ports = [9, 3]\n[probing]\nseconds = 0\n[[hosts]]\nname = "a"\naddress = "-oProxyCommand=x y"\n'
        '[[hosts]]\nname = " b"\naddress = "b"\n[[hosts]]\nname = "c"\naddress = "c"\ncommand = "ssh \'c"\nport = 3\n'
    )
    with pytest.raises(ConfigError) as caught:
        load_hosts(path)
    text = str(caught.value)
    for part in ("[[hosts]] 1", "host name or an IP", "[[hosts]] 2", "blanks", "[[hosts]] 3", '"port"', "seconds is 0"):
        assert part in text
    with pytest.raises(ConfigError, match=r"ports are 9 to 3.*\n.*several hosts are named a"):
        Hosts(hosts=(Host(name="a", address="x"),) * 2, ports=(9, 3))
    with pytest.raises(ConfigError, match="two or more"):
        parse_lines("a 1.1.1.1\n")
    with pytest.raises(ConfigError, match=r"here, line 2: \"b\" has no address"):
        parse_lines("a 1.1.1.1\nb\n", "here")


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        hosts = parse_lines(text)
    except ConfigError:
        return
    assert len(set(hosts.names)) == len(hosts) >= 2


# --- what is started ----------------------------------------------------------------------------------------


@given(st.text(min_size=1, max_size=40).filter(str.isprintable))
def test_what_is_started_means_nothing_to_a_shell(name: str) -> None:
    host = Host(name=f"x{name}x", address="127.0.0.1", command="ssh -o BatchMode=yes a@b", step=f"echo '{name}'")
    words = command_of(host)
    assert words == ["ssh", "-o", "BatchMode=yes", "a@b", "python3", "-I", "-u", "-m", "code"]
    assert shlex.split(" ".join(words)) == words, "a shell there splits it as we did"


@pytest.mark.parametrize("command", ["env", "sh -c '$0 \"$@\"'", f"{sys.executable} {{joins}}"])
def test_commands_with_and_without_a_shell_between(command: str, tmp_path: Path) -> None:
    joins = tmp_path / "joins.py"  # hands its arguments to a shell as one text, as ssh does
    joins.write_text("import os, sys; os.execvp('sh', ['sh', '-c', 'echo Welcome; ' + ' '.join(sys.argv[1:])])")
    evil = "$(touch evil);`touch evil`'\"\\"
    command = command.format(joins=shlex.quote(str(joins)))
    host = Host(name=evil, address="127.0.0.1", command=command, python=shlex.quote(sys.executable))
    with Agent(host) as agent:
        agent.greet(10)
        agent.listen((47100, 47199), "token", 30, 1)
        assert agent.port >= 47100
        answer = agent.ask("ping", 10, target={"address": evil, "port": 1}, count=1)
        assert answer["fault"] == "address"
        assert agent.ask("step", 10, command="echo a; echo 2.5", timeout_s=5)["last"] == "2.5"
    assert not Path("evil").exists()


@pytest.mark.parametrize(
    ("more", "what", "mend"),
    [
        ({"command": "no-such-program-here"}, '"no-such-program-here" cannot be started', "Install it here"),
        ({"command": "sh -c 'echo Permission denied >&2; exit 255'"}, "code 255, Permission denied", "--version"),
        ({"command": "env", "python": "no-python3"}, "no-python3.*No such file", "Install Python 3.6 or later"),
        ({"command": "sh -c 'exit 127'"}, "exit code 127", "Install Python 3.6 or later"),
        ({"command": "sh -c 'echo Unknown option: -I >&2; exit 2'"}, "Unknown option", "Install Python 3.6 or later"),
        ({"command": "sh -c 'cat > /dev/null'"}, "did not start within 1 s", "Raise patience_s"),
        ({"bind": "192.0.2.1"}, "192.0.2.1 is no address of this machine", "bind"),
        ({"bind": "no-name.invalid"}, 'no machine is named "no-name.invalid" there', "Mend address"),
    ],
)
def test_machines_that_do_not_start(more: dict[str, str], what: str, mend: str, tmp_path: Path) -> None:
    good, bad = Host(name="good", address="127.0.0.1"), Host(name="bad one", address="127.0.0.1", **more)
    hosts = Hosts(hosts=(good, bad), name="two", probing=replace(QUICK, patience_s=1))
    with pytest.raises(ProtocolError, match=rf"two: 4 of 4 .*\n  bad one: .*{what}.*{mend}"):
        measure(hosts, tmp_path)
    assert not (tmp_path / RESULTS).exists(), "nothing is measured unless all are there"


def test_a_range_of_ports_that_are_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ProtocolError, match=rf"a: no port from {port} to {port} is free at 127.0.0.1.*as ports"):
            measure(replace(hosts_of("a", "b"), ports=(port, port)), tmp_path)


def test_a_machine_that_cannot_be_reached(tmp_path: Path) -> None:
    hosts = hosts_of("a", "b")
    hosts = replace(hosts, hosts=(hosts.hosts[0], replace(hosts.hosts[1], address="127.0.0.9", bind="127.0.0.1")))
    with pytest.raises(ProtocolError) as caught:
        measure(hosts, tmp_path)
    text = str(caught.value)
    assert "here: 2 of 4 measurements are missing" in text
    assert "a to b: 127.0.0.9:" in text
    assert "cannot be reached (Connection refused). Mend address, or open TCP ports 47100 to 47199 of b" in text
    assert "b to a" not in text
    assert load_text(tmp_path / "round_trip_ms.csv")[1][1, 0] > 0


# --- who is served ------------------------------------------------------------------------------------------


def test_only_those_who_know_the_token_are_served() -> None:
    with Agent(Host(name="a", address="127.0.0.1")) as agent:
        agent.greet(10)
        agent.listen((47100, 47199), "secret", 30, 0.5)
        for first in (
            b"wrong echo\n",
            b"secre echo\n",
            b"secret\n",
            b"secret what\n",
            b"x" * 1000,
            b"\n",
            b"secret data y\n",
        ):
            assert answer_to(agent.port, first + b"hello") == b""
        assert answer_to(agent.port, b"secret echo\nhello") == b"hello"
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", agent.port), 1)


def answer_to(port: int, text: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5) as peer:
        peer.sendall(text)
        try:
            return peer.recv(100)
        except ConnectionError:
            return b""


def test_a_probe_ends_with_its_input_and_after_its_time() -> None:
    with Agent(Host(name="a", address="127.0.0.1")) as agent:
        agent.greet(10)
        agent.listen((47100, 47199), "x", 0.2, 0.5)
        assert agent._process.wait(10) == 0
    with Agent(Host(name="a", address="127.0.0.1")) as agent:
        agent.greet(10)
    assert agent._process.returncode == 0


# --- clocks -------------------------------------------------------------------------------------------------


def test_round_trips_are_median_and_minimum() -> None:
    trips = round_trips_of([5.0, 1.0, 9.0])
    assert (trips.median_ms, trips.min_ms, trips.count) == (5, 1, 3)


@given(
    rates=st.lists(st.floats(1e3, 1e9), min_size=1, max_size=4),
    seconds=st.floats(0.1, 10),
    ramp=st.floats(0, 0.5),
    slow=st.floats(0, 1),
)
def test_a_steady_second_half_is_told_whatever_came_before(
    rates: list[float], seconds: float, ramp: float, slow: float
) -> None:
    times = np.linspace(0, seconds, 50)
    streams = []
    for rate in rates:
        bytes_per_s = np.where(times[1:] <= ramp * seconds, slow * rate, rate) / 8
        streams.append(list(zip(times, np.cumsum([1, *(bytes_per_s * np.diff(times))]), strict=True)))
    told = rate_of(streams)
    assert told.bps == pytest.approx(sum(rates), rel=1e-4)
    assert told.seconds == pytest.approx(seconds / 2, rel=1e-4)


def test_streams_count_only_while_all_of_them_run() -> None:
    early, late = [(0.0, 0), (1.0, 100), (2.0, 200)], [(1.0, 0), (2.0, 100), (4.0, 300)]
    assert rate_of([early, late]).bps == 8 * 200, "from 1.5 to 2 s"


@pytest.mark.parametrize("streams", [[], [[]], [[(0.0, 5)]], [[(0.0, 5), (0.0, 9)]], [[(0.0, 5), (1.0, 5)]]])
def test_too_little_to_tell(streams: list[list[tuple[float, int]]]) -> None:
    with pytest.raises(DataError, match="Raise seconds or megabytes"):
        rate_of(streams)


def test_transfers_of_few_round_trips_are_hasty() -> None:
    assert hasty(0.5, 51)
    assert not hasty(0.5, 49)


def test_transfers_at_once_share_what_is_counted_together() -> None:
    fast, slow = [(0.0, 0), (1.0, 400), (2.0, 800)], [(0.0, 0), (4.0, 400), (8.0, 1600)]
    assert rate_of([fast, slow]).bps == 8 * 500, "the slow one while the fast one runs"
    assert rate_of([fast, *later([fast], 3.0), *later([slow], 9.0)]).bps == 8 * 400, "never at once: the fastest"
    assert rate_of([fast, [(0.0, 1)], []]) == rate_of([fast]), "what starves gets nothing"


# --- order --------------------------------------------------------------------------------------------------


@given(st.integers(2, 12), st.integers(1, 8))
def test_every_ordered_pair_meets_once_and_nobody_is_in_two_places(count: int, at_once: int) -> None:
    groups = list(meetings(count, at_once))
    pairs = [pair for group in groups for pair in group]
    assert sorted(pairs) == [(i, j) for i in range(count) for j in range(count) if i != j]
    for group in groups:
        assert 1 <= len(group) <= at_once
        assert max(Counter(place for pair in group for place in pair).values()) == 1
    if at_once >= count // 2:
        assert len(groups) == 2 * (count - 1 + count % 2)


# --- the whole ----------------------------------------------------------------------------------------------


def load_text(path: Path) -> tuple[tuple[str, ...], Any]:
    return parse_matrix(path.read_text())


def test_measured_here_read_back_and_made_into_silos(tmp_path: Path) -> None:
    names = ("Paris, France", "b;c", 'the "other"')
    hosts, watcher = hosts_of(*names, step="echo loading; echo 12.5"), Watcher()
    measured = measure(hosts, tmp_path, watcher)
    every = load_connectivity(measured.latency, measured="round_trip_ms", bandwidth=measured.bandwidth)
    assert every.names == measured.names == names
    lines = {(line["event"], line["from"], line["to"]): line for line in read_jsonl(tmp_path / RESULTS)}
    assert len(lines) == 21
    for i, one in enumerate(names):
        for j, other in enumerate(names):
            if i != j:
                latency, rate = lines["latency", one, other], lines["bandwidth", one, other]
                assert 2 * every.latency_ms[i, j] == latency["median_ms"] >= latency["min_ms"] > 0
                assert every.available_bps is not None
                assert every.available_bps[i, j] == rate["bps"] > 1e7
                assert rate["megabytes"] <= 20
    assert measured.step_ms == dict.fromkeys(names, 12.5)
    assert every.available_bps is not None
    alone = np.where(np.eye(3, dtype=bool), 0, every.available_bps)
    for way, fastest, known in (
        ("access_up", alone.max(1), measured.access_up_bps),
        ("access_down", alone.max(0), measured.access_down_bps),
    ):
        assert known == {n: max(lines[way, n, n]["bps"], one) for n, one in zip(names, fastest, strict=True)}
    silos = Silos.of(
        every, model_bits=1e6, step_ms=list(measured.step_ms.values()), access_bps=list(measured.access_up_bps.values())
    )
    assert silos.names == names
    assert watcher.done == list(range(1, 22))
    assert watcher.events[0] == {"event": "study", "trials": 1, "rounds": 21, "unit": "measurements"}
    assert watcher.events[-1] == {"event": "study_end"}


@given(
    st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), min_size=2, max_size=5, unique=True),
    st.data(),
)
def test_matrices_read_back_equal(names: list[str], data: st.DataObject) -> None:
    cell = st.none() | st.floats(0, 1e12, allow_subnormal=False)
    cells = [[None if i == j else data.draw(cell) for j in range(len(names))] for i in range(len(names))]
    read, values = parse_matrix(format_matrix("ms", names, cells))
    assert list(read) == names
    np.testing.assert_array_equal(values, np.array(cells, np.float64))


def test_the_draft_of_a_study_says_what_was_measured(tmp_path: Path) -> None:
    hosts = hosts_of("a", "b", step="echo 3")
    measured = measure(hosts, tmp_path / "full")
    study = make_design({"name": "x", **load_toml(measured.study)}, overrides=["silos.model_bits=1e6"])
    silos = study.silos.silos(study.underlay.build())
    assert silos.names == ("a", "b")
    assert silos.step_ms.tolist() == [3, 3]
    assert silos.access_up_bps.tolist() == list(measured.access_up_bps.values())
    assert silos.access_down_bps.tolist() == list(measured.access_down_bps.values())
    measured = measure(replace(hosts, hosts=(hosts.hosts[0], replace(hosts.hosts[1], step=None))), tmp_path / "half")
    assert "# step_ms is left out: it is known of a only" in measured.study.read_text()
    assert "step_ms" not in load_toml(measured.study)["silos"]


def test_progress_of_what_has_no_trials(tmp_path: Path) -> None:
    text = StringIO()
    measure(hosts_of("a", "b"), tmp_path, Lines(Console(file=text, width=200), period_s=0))
    shown = text.getvalue().splitlines()
    assert shown[0].startswith("transfers of at most 0.04 GB in all")
    assert shown[1].startswith("1 of 4 measurements in all, a to b: ")
    assert len(shown) == 5


def test_several_streams_and_pairs_at_once(tmp_path: Path) -> None:
    hosts = hosts_of("a", "b", "c", "d")
    watcher = Watcher()
    measure(replace(hosts, probing=replace(QUICK, streams=3, at_once=2, megabytes=200)), tmp_path, watcher)
    assert watcher.done == list(range(1, 33))
    lines = [line for line in read_jsonl(tmp_path / RESULTS) if line["event"] != "latency"]
    assert {line["streams"] for line in lines} == {3}


def test_an_interrupted_run_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    hosts = pairs_of("a", "b", "c")
    with pytest.raises(KeyboardInterrupt):
        measure(hosts, tmp_path, Watcher({8: stop}), now=lambda: "yesterday")
    kept = (tmp_path / RESULTS).read_text()
    assert kept.count("\n") == 8
    again = Watcher()
    measure(hosts, tmp_path, again)
    assert (tmp_path / RESULTS).read_text().startswith(kept)
    assert again.done == [1, 2, 3, 4]
    assert "8 of 12 measurements are there, the oldest of yesterday" in again.notices
    third = Watcher()
    measure(hosts, tmp_path, third)
    assert third.done == []
    measure(hosts, tmp_path, third, fresh=True)
    assert len(third.done) == 12


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Workers of pytest-xdist ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_does_not_wait_for_answers(tmp_path: Path) -> None:
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(1.0, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        measure(hosts_of("a", "b", step="exec sleep 30"), tmp_path)
    timer.join()
    assert time.monotonic() - begun < 15


def test_addresses_of_six_words(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    hosts = tuple(Host(name=name, address="::1") for name in "ab")
    measured = measure(Hosts(hosts=hosts, probing=QUICK), tmp_path)
    assert np.isfinite(load_text(measured.bandwidth)[1]).sum() == 2


def test_files_of_the_tutorial_are_those_of_its_page() -> None:
    docs = Path(__file__).parents[2] / "docs" / "tutorials"
    page = (docs / "fastest-overlay.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for name, text in blocks:
        if name != "here.txt":
            assert (docs / "studies" / "hospitals" / name).read_text(encoding="utf-8") == text, name
    assert len(blocks) == 6


def test_what_is_measured_in_another_way_is_measured_anew(tmp_path: Path) -> None:
    hosts = hosts_of("a", "b")
    measure(hosts, tmp_path)
    for changed, count in (
        (replace(hosts, probing=replace(QUICK, seconds=0.05)), 2),
        (replace(hosts, probing=replace(QUICK, patience_s=6, at_once=2)), 0),
        (replace(hosts, hosts=(hosts.hosts[0], replace(hosts.hosts[1], address="127.0.0.2"))), 2),
        (pairs_of("a", "b", "c"), 8),
    ):
        watcher = Watcher()
        measure(changed, tmp_path, watcher)
        assert len(watcher.done) == count


def test_a_machine_that_dies_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    id_file = tmp_path / "id"
    dying = Host(name="dying", address="127.0.0.1", step=f"echo $PPID > {shlex.quote(str(id_file))}; echo 1")
    hosts = Hosts(hosts=(*hosts_of("a", "b").hosts, dying), name="three", probing=QUICK)
    watcher = Watcher({3: lambda: os.kill(int(id_file.read_text()), signal.SIGKILL)})
    with pytest.raises(ProtocolError) as caught:
        measure(hosts, tmp_path / "out", watcher)
    text = str(caught.value)
    assert text.count("dying: the command ended with exit code -9") == 1, text
    assert "start again to measure them" in text
    _, values = load_text(tmp_path / "out" / "bandwidth_bps.csv")
    known = np.isfinite(values)
    assert known[0, 1]
    assert known[1, 0]
    assert known.sum() == 2
    measure(hosts, tmp_path / "out")
    assert np.isfinite(load_text(tmp_path / "out" / "bandwidth_bps.csv")[1]).sum() == 6


@pytest.mark.parametrize(
    ("step", "what"),
    [("exit 3", "exit code 3"), ("echo fast", 'last word of step is "fast"'), ("echo -1", '"-1"'), ("true", "nothing")],
)
def test_steps_that_tell_no_time(step: str, what: str, tmp_path: Path) -> None:
    hosts = hosts_of("a", "b")
    hosts = replace(hosts, hosts=(replace(hosts.hosts[0], step=step), hosts.hosts[1]))
    with pytest.raises(ProtocolError, match=f"a: .*{what}.*milliseconds of one step"):
        measure(hosts, tmp_path)


def test_a_probe_that_is_gone_or_silent_is_not_waited_for_again() -> None:
    with Agent(Host(name="a", address="127.0.0.1")) as agent:
        agent.greet(10)
        agent._process.kill()
        for _ in range(2):
            with pytest.raises(ProtocolError, match="exit code -9"):
                agent.ask("ping", 60, target={}, count=1)
    with Agent(Host(name="a", address="127.0.0.1")) as agent:
        agent.greet(10)
        assert agent.alive
        for _ in range(2):
            with pytest.raises(ProtocolError, match=r'a: it did not answer to "step" within 0.2 s'):
                agent.ask("step", 0.2, command="exec sleep 1; echo 1", timeout_s=1)
        assert not agent.alive


def test_measuring_loads_no_torch() -> None:
    code = "import sys, rivage.studies.measuring.pairs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

"""Runs of policies in networks of caches: records, certificates, resuming, what is drawn, what cannot be played."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivage.core.certificates import CHECKS
from rivage.core.errors import ConfigError, RivageError
from rivage.core.integrity import changes
from rivage.core.records import RunRecord
from rivage.core.seeding import Streams
from rivage.core.settings import dump
from rivage.core.toml import format_toml
from rivage.data.request_laws import zipf
from rivage.graphs.topologies import abilene
from rivage.online import network_optimum
from rivage.online.cache_networks import CacheNetwork, play_network
from rivage.online.network_optimum import exhaustive, program_size, relaxed_optimum
from rivage.online.tabular_greedy import DistributedTGOnline
from rivage.studies.games.network_stage import NetworkStage
from rivage.studies.games.networks import NetworkPlay
from rivage.studies.play import play_study
from rivage.studies.play_settings import parse_play

STUDY = """
name = "toy"
trace = { kind = "zipf", items = 20, requests = 2000 }
network = { kind = "abilene", weights = [1, 10], capacities = "1-3", servers = ["SEAT", 7], origins = 3 }
policies = [{ kind = "tg_online", colors = 5 }, { kind = "grd" }, { kind = "path_replication", name = "lru" }]
run = { seeds = [0, 1], points = 10 }
"""


def study(**replaced: str) -> NetworkPlay:
    text = STUDY
    for key, value in replaced.items():
        text, count = re.subn(rf"^{key} = .*$", lambda _, k=key, v=value: f"{k} = {v}", text, flags=re.MULTILINE)
        assert count == 1
    made = parse_play(text)
    assert isinstance(made, NetworkPlay)
    return made


def stage(seed: int = 0, **replaced: str) -> NetworkStage:
    return NetworkStage.build(study(**replaced), seed)


class Watch:
    """Keeps what it sees, and may stop the run at one of the points."""

    def __init__(self, stop: int = -1) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.stop = stop

    def on_event(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)
        if len([e for e in self.events if e["event"] == "point"]) == self.stop:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return play_study(study(), out=tmp_path_factory.mktemp("runs"))


def test_a_study_is_its_settings() -> None:
    for network in (
        '{ kind = "grid", rows = 2, columns = 3, capacities = [1, 2, 3, 0, 0, 1], weights = 2.5, origins = [0, "5"] }',
        '{ kind = "links", path = "a.csv", capacities = { a = 3 }, servers = "a", origins = "b", horizon = "unknown" }',
    ):
        made = study(network=network)
        assert parse_play(format_toml(dump(made))) == made


def test_a_trial_per_policy_and_seed(whole: RunRecord) -> None:
    assert [(t.method, t.seed) for t in whole.trials] == [(n, s) for n in ("tg_online", "grd", "lru") for s in (0, 1)]
    for trial in whole.trials:
        kinds = [event["event"] for event in trial.events()]
        assert kinds == ["start", "network", "optimum", *["point"] * 10, "placement", "end"]
        assert not any("seconds" in event for event in trial.events()), "no clock in what is hashed"
        assert trial.timings[0]["requests"] == 2000


def test_the_record_says_what_the_loop_says(whole: RunRecord) -> None:
    """The scene is drawn here by hand, stream by stream, and routed over all pairs of origins and items."""
    draw = Streams(1).child("network")
    network = abilene().with_random_weights(1, 10, draw.numpy("weights"))
    item = zipf(20, 2000, 0.8, Streams(1).child("trace").numpy("requests")).item
    origins = np.sort(draw.numpy("origins").choice(9, 3, replace=False))
    entered = draw.numpy("requests").choice(origins, 2000)
    instance = CacheNetwork.routed(
        network,
        items=20,
        capacities=draw.numpy("capacities").integers(1, 4, 9),
        servers=draw.numpy("servers").choice([8, 7], 20),
        origins=origins,
        horizon=2000,
    )
    requests = np.searchsorted(origins, entered) * 20 + item
    policy, streams = DistributedTGOnline(colors=5), Streams(1).child("policy")
    played = play_network(policy, instance, requests, streams=streams, every=200)
    kept = whole.trial("tg_online", 1).events("point")
    for key in ("gain", "hits", "moves", "control", "asked"):
        assert [point[key] for point in kept] == pytest.approx([point[key] for point in played.points])
    best = whole.trial("tg_online", 1).events("optimum")[0]
    assert best["relaxed"] == pytest.approx(relaxed_optimum(instance, instance.counts(requests)).value)
    assert best["relaxed"] >= best["placed"] > best["relaxed"] / 2


def test_policies_of_one_seed_play_on_the_same(whole: RunRecord) -> None:
    for key in ("fingerprint", "network"):
        assert all(len({json.dumps(t.start[key]) for t in whole.trials if t.seed == seed}) == 1 for seed in (0, 1))
    assert len({trial.start["fingerprint"] for trial in whole.trials}) == 2, "seeds differ"
    assert len({json.dumps(trial.events("optimum")) for trial in whole.trials}) == 2


def test_the_program_is_solved_once_for_each_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    solved = []

    def watched(*arguments: Any, **options: Any) -> Any:
        solved.append(1)
        return relaxed_optimum(*arguments, **options)

    monkeypatch.setattr("rivage.online.network_optimum.relaxed_optimum", watched)
    play_study(study(), out=tmp_path)
    assert len(solved) == 2
    play_study(study(), out=tmp_path)
    assert len(solved) == 2, "nothing is left to be played"
    fixed = '{ kind = "path", nodes = 4, capacities = 1, servers = 3, origins = [0] }'
    play_study(study(network=fixed, trace='{ kind = "cyclic", items = 9, requests = 90 }'), out=tmp_path)
    assert len(solved) == 3, "no seed changes what is played"


def test_the_summary_and_its_certificates(whole: RunRecord) -> None:
    summary = whole.summary
    tg, grd = summary["policies"]["tg_online"], summary["policies"]["grd"]
    ends = [whole.trial("tg_online", seed).events("point")[-1] for seed in (0, 1)]
    best = [whole.trial("tg_online", seed).events("optimum")[0] for seed in (0, 1)]
    assert tg["gain"] == pytest.approx(np.mean([end["gain"] for end in ends]))
    assert tg["cost_saved"] == pytest.approx(np.mean([end["gain"] / end["asked"] for end in ends]))
    assert tg["relaxed_saved"] == pytest.approx(np.mean([each["relaxed"] / each["asked"] for each in best]))
    assert tg["regret"] == pytest.approx(
        np.mean([0.5 * b["relaxed"] - e["gain"] for b, e in zip(best, ends, strict=True)])
    )
    assert tg["regret_bound"] == pytest.approx(np.mean([end["bound"] for end in ends]))
    assert tg["update_items"] == np.mean([end["moves"] for end in ends])
    assert tg["control_messages"] == np.mean([end["control"] for end in ends]) > 0
    assert (tg["factor"], tg["kind"], tg["foresees"], tg["finished"]) == (0.5, "tg_online", False, True)
    assert (grd["factor"], grd["regret"], grd["regret_bound"]) == (None, None, None)
    assert tg["placed_saved"] <= tg["relaxed_saved"]
    checked = [(c.check, c.fields["method"]) for c in whole.certificates]
    assert checked == [("network_regret", "tg_online"), *(("network_gap", n) for n in ("tg_online", "grd", "lru"))]
    assert list(changes(whole)) == []


def test_certificates_need_nothing_but_the_record(whole: RunRecord) -> None:
    claims = NetworkStage.claims(whole)
    recomputed = [CHECKS.get(name)(RunRecord.open(whole.folder), **fields).as_dict() for name, fields in claims]
    assert recomputed == [certificate.as_dict() for certificate in whole.certificates]


def test_the_map_adds_up(whole: RunRecord) -> None:
    trial = whole.trial("grd", 0)
    drawn, placed = trial.events("network")[0], trial.events("placement")[0]
    assert drawn["names"] == list(abilene().names or ())
    assert sum(drawn["serves"]) == 20
    assert {drawn["names"][node] for node, count in enumerate(drawn["serves"]) if count} <= {"SALT", "LOSA", "SEAT"}
    assert len(drawn["origins"]) == 3
    assert all(held <= capacity for held, capacity in zip(placed["held"], drawn["capacities"], strict=True))
    assert 0 < sum(placed["answered"]) <= 2000


def test_who_would_have_answered_request_by_request() -> None:
    scene = stage().scene
    instance, held = scene.instance, np.random.default_rng(3).random((9, 20)) < 0.3
    answered = np.zeros(9, np.int64)
    for kind in scene.requests.tolist():
        path = instance.paths[kind, : instance.hops[kind]].tolist()
        first = next((node for node in path if held[node, instance.item[kind]]), None)
        if first is not None:
            answered[first] += 1
    assert scene.answered(held).tolist() == answered.tolist()
    assert scene.answered(np.zeros((9, 20), bool)).sum() == 0


def test_the_same_study_again_changes_nothing(whole: RunRecord, tmp_path: Path) -> None:
    digest, before = whole.hash, whole.summary
    again = play_study(study(), out=whole.folder.parent)
    assert (again.folder, again.hash, again.summary) == (whole.folder, digest, before)
    assert play_study(study(), out=tmp_path).hash == digest


@pytest.mark.parametrize("stop", [1, 13, 25, 60])
def test_an_interrupted_run_ends_like_one_that_was_not(whole: RunRecord, tmp_path: Path, stop: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        play_study(study(), out=tmp_path, observer=Watch(stop))
    watch = Watch()
    resumed = play_study(study(), out=tmp_path, observer=watch)
    replayed = sum(event["event"] == "point" for event in watch.events)
    assert replayed == 60 - (stop - 1) // 10 * 10, "finished trials are kept, the interrupted one is played again"
    assert resumed.hash == whole.hash
    assert resumed.compare(whole) == []


def test_a_torn_record_is_played_again(whole: RunRecord, tmp_path: Path) -> None:
    record = play_study(study(), out=tmp_path)
    path = record.trial("grd", 1).folder / "record.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    again = play_study(study(), out=tmp_path)
    assert again.hash == whole.hash
    assert len(again.trial("grd", 1).timings) == 1


def test_fresh_forgets(tmp_path: Path) -> None:
    play_study(study(), out=tmp_path)
    watch = Watch()
    play_study(study(), out=tmp_path, fresh=True, observer=watch)
    assert sum(event["event"] == "point" for event in watch.events) == 60


def test_draws_of_one_setting_leave_the_others() -> None:
    one, other = stage().scene, stage(
        network='{ kind = "abilene", weights = 3, capacities = 2, servers = "random", origins = 3 }'
    ).scene  # fmt: skip
    assert one.origins.tolist() == other.origins.tolist()
    assert np.array_equal(one.instance.item[one.requests], other.instance.item[other.requests])


def test_a_program_that_is_too_large_is_told_and_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(network_optimum, "LARGEST_PROGRAM", 10)
    watch = Watch()
    record = play_study(study(), out=tmp_path, observer=watch)
    assert any("too large" in event.get("text", "") for event in watch.events)
    assert {c.verdict for c in record.certificates} == {"no_power"}
    row = record.summary["policies"]["tg_online"]
    assert (row["relaxed_saved"], row["regret"]) == (None, None)
    assert row["placed_saved"] > 0
    assert "found by greed in hindsight" in record.summary["answer"]


def own(folder: Path, links: str = "", trace: str = "", **network: str) -> NetworkPlay:
    """A network and a trace of a reader's own."""
    (folder / "links.csv").write_text(links or "from,to,cost\nParis,Lyon,4.5\nLyon,Nice,6\nLyon,cloud,20\n")
    (folder / "web.csv").write_text(trace or "item,origin\n" + "a,0\nb,0\na,2\nc,2\na,2\nb,0\n" * 30)
    settings = {"capacities": "{ Paris = 1, Lyon = 1, Nice = 1 }", "servers": '"cloud"', **network}
    table = ", ".join(f"{key} = {value}" for key, value in settings.items())
    return study(
        trace=f'{{ kind = "file", path = "{(folder / "web.csv").as_posix()}" }}',
        network=f'{{ kind = "links", path = "{(folder / "links.csv").as_posix()}", {table} }}',
    )


def test_a_network_and_a_trace_of_ones_own(tmp_path: Path) -> None:
    scene = NetworkStage.build(own(tmp_path), 0).scene
    network, instance = scene.instance.network, scene.instance
    assert network.names == ("Paris", "Lyon", "Nice", "cloud")
    routes = {(p[0], int(i)): p[p >= 0].tolist() for i, p in zip(instance.item, instance.paths, strict=True)}
    assert routes == {(0, 0): [0, 1, 3], (0, 1): [0, 1, 3], (2, 0): [2, 1, 3], (2, 2): [2, 1, 3]}
    entered = instance.paths[scene.requests, 0]
    assert entered[:6].tolist() == [0, 0, 2, 2, 2, 0]
    assert instance.capacities.tolist() == [1, 1, 1, 0]
    best = exhaustive(instance, scene.counts)
    assert scene.yardsticks.placed == scene.yardsticks.relaxed == pytest.approx(best)
    record = play_study(own(tmp_path), out=tmp_path / "runs")
    assert {c.verdict for c in record.certificates} <= {"holds", "no_power"}


def test_who_serves_what_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "served.csv").write_text("item,server\nc,Paris\na,cloud\nb,0\nd,Nice\n")
    scene = NetworkStage.build(own(tmp_path, servers=f'"{(tmp_path / "served.csv").as_posix()}"'), 0).scene
    assert scene.servers.tolist() == [3, 0, 0], "of a, b and c, in the order of the trace"
    assert scene.instance.network.names == ("Paris", "Lyon", "Nice", "cloud")


@pytest.mark.parametrize(
    ("served", "parts"),
    [
        ("item,server\na,cloud\n", ('item "b" of the trace has no server, and 1 more have none', "every item")),
        ("item,server\na,clod\nb,9\nc,0\n", ("2 problems", 'line 2: no node "clod". Did', 'line 3: no node "9"')),
        ("item,server\na,cloud\na,Nice\nb\n", ('line 3: item "a" is in line 2 too', "line 4: it has not as many")),
        ("item,node\na,cloud\n", ('its columns are "item", "node". It needs "item" and "server", no others.',)),
    ],
)
def test_what_is_wrong_with_servers_is_told_with_lines(tmp_path: Path, served: str, parts: tuple[str, ...]) -> None:
    path = tmp_path / "served.csv"
    path.write_text(served)
    with pytest.raises(RivageError) as caught:
        NetworkStage.build(own(tmp_path, servers=f'"{path.as_posix()}"'), 0)
    for part in ("[network] servers", str(path), *parts):
        assert part in str(caught.value)


def test_a_network_in_gml(tmp_path: Path) -> None:
    nodes = "".join(f'node [ id {node} label "{name}" ] ' for node, name in enumerate(("edge", "core", "cloud")))
    links = "".join(f"edge [ source {a} target {b} distance_km {km} ] " for a, b, km in ((0, 1, 80), (1, 2, 900)))
    path = tmp_path / "net.gml"
    path.write_text(f"graph [ {nodes}{links}]")
    more = 'cost = "distance_km", capacities = 1, servers = "cloud", origins = ["edge"]'
    assert stage(network=f'{{ kind = "file", path = "{path.as_posix()}", {more} }}').scene.instance.costs[0] == 980.0


def test_nodes_that_keep_everything_can_be_played(tmp_path: Path) -> None:
    """Once all is cached where it is asked for, nothing costs anything, and nothing is more than that."""
    line = '{ kind = "path", nodes = 3, capacities = [5, 0, 0], servers = 2, origins = [0] }'
    trace = '{ kind = "cyclic", items = 5, requests = 500 }'
    record = play_study(study(network=line, trace=trace), out=tmp_path)
    policies = record.summary["policies"]
    assert policies["lru"]["gain"] == 2 * (500 - 5)
    assert policies["lru"]["relaxed_saved"] == policies["lru"]["placed_saved"] == pytest.approx(1)


def test_a_list_of_links_is_no_matrix(tmp_path: Path) -> None:
    own(tmp_path)
    path = (tmp_path / "links.csv").as_posix()
    text = refused(f'{{ kind = "file", path = "{path}", capacities = 1, origins = 1 }}')
    assert text.endswith('A CSV with a line for each link is kind = "links".')


def test_numbers_are_names_where_all_names_are_numbers(tmp_path: Path) -> None:
    links = "from,to\n10,20\n20,30\n"
    trace = "item,origin\na,10\nb,20\na,10\n"
    game = own(tmp_path, links, trace, capacities="{ 10 = 1 }", servers="30")
    scene = NetworkStage.build(game, 0).scene
    assert scene.instance.paths[scene.requests, 0].tolist() == [0, 1, 0]
    assert scene.instance.capacities.tolist() == [1, 0, 0]
    assert set(scene.servers.tolist()) == {2}


def test_networks_from_files_cost_what_is_asked_for(tmp_path: Path) -> None:
    nodes = "".join(f'[[nodes]]\nname = "{name}"\n' for name in ("phone", "edge", "cloud"))
    ends = (("phone", "edge", 3), ("edge", "cloud", 20))
    text = nodes + "".join(f'[[links]]\nends = ["{a}", "{b}"]\nlatency_ms = {ms}\n' for a, b, ms in ends)
    (tmp_path / "net.toml").write_text(text)
    kind = f'kind = "file", path = "{(tmp_path / "net.toml").as_posix()}", capacities = 1, servers = "cloud"'
    origins = 'origins = ["phone"]'
    assert stage(network=f"{{ {kind}, {origins} }}").scene.instance.costs[0] == 46.0
    assert stage(network=f'{{ {kind}, {origins}, cost = "hops" }}').scene.instance.costs[0] == 2.0
    with pytest.raises(
        ConfigError, match=r'distance_km is not known\. Give it there, or set cost: "latency_ms", "hops"'
    ):
        stage(network=f'{{ {kind}, {origins}, cost = "distance_km" }}')


def test_the_published_path_in_a_study(tmp_path: Path) -> None:
    """Five slots near the origin, 50 items in turn: any five of them save a tenth of the cost."""
    line = '{ kind = "path", nodes = 4, weights = 100, capacities = [0, 5, 5, 0], servers = 0, origins = [1] }'
    record = play_study(study(trace='{ kind = "oscillator" }', network=line), out=tmp_path)
    policies = record.summary["policies"]
    assert policies["lru"]["gain"] == 0
    assert policies["lru"]["relaxed_saved"] == pytest.approx(0.1)
    assert policies["lru"]["placed_saved"] == pytest.approx(0.1)
    assert policies["tg_online"]["cost_saved"] > 0


def test_a_column_that_is_not_used_is_told(tmp_path: Path) -> None:
    notices = " ".join(NetworkStage.build(own(tmp_path, origins='["Paris"]'), 0).notices)
    assert 'the column "origin" of the trace is not used' in notices
    assert "not used" not in " ".join(NetworkStage.build(own(tmp_path), 0).notices)


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    play_study(own(tmp_path), out=tmp_path / "runs")
    with pytest.raises(ConfigError, match="not those this trial was played with"):
        play_study(own(tmp_path, "from,to,cost\nParis,Lyon,4.5\nLyon,Nice,6\nLyon,cloud,21\n"), out=tmp_path / "runs")


def refused(network: str = "", **replaced: str) -> str:
    with pytest.raises(RivageError) as caught:
        stage(**({"network": network} if network else {}), **replaced)
    return str(caught.value)


@pytest.mark.parametrize(
    ("network", "parts"),
    [
        (
            '{ kind = "abilene", capacities = -1, servers = [], origins = 0, weights = [5, 1] }',
            ("4 problems", "capacity is -1", "servers is []: nobody serves", "origins is 0", "weights is [5.0, 1.0]"),
        ),
        (
            '{ kind = "abilene", capacities = { SEAT = 1, LOS = 2 }, servers = ["SALT", "DENV"], origins = [0, 9] }',
            (
                "3 problems",
                '[network] capacities: no node "LOS". Did you mean "LOSA"?',
                '[network] servers: no node "DENV". Nodes are NEWY,',
                "[network] origins: no node 9. A number is the position of a node, 0 to 8.",
            ),
        ),
        ('{ kind = "abilene", capacities = [1, 2], origins = 1 }', ("2 capacities for 9 nodes", "in their order")),
        ('{ kind = "abilene", capacities = "9-1", origins = 1 }', ('capacities is "9-1"', 'such as "1-5"')),
        ('{ kind = "abilene", capacities = 0, origins = 1 }', ("no node keeps anything",)),
        (
            '{ kind = "abilene", capacities = { SEAT = 21 }, origins = 1 }',
            ("SEAT keeps 21, and the trace has 20 items",),
        ),
        ('{ kind = "abilene", capacities = [], origins = 1 }', ("capacities is empty",)),
        ('{ kind = "abilene", capacities = { SEAT = -2 }, origins = 1 }', ("capacity of SEAT is -2",)),
        ('{ kind = "abilene", capacities = 1, origins = 10 }', ("origins is 10, and there are 9 nodes",)),
        ('{ kind = "abilene", capacities = 1 }', ('there is no column "origin"', "set [network] origins")),
        ('{ kind = "abilene", capacities = 1, servers = 0, origins = [0] }', ("nothing to save",)),
        ('{ kind = "abilene", capacities = 1, origins = 2, weights = 0 }', ("nothing to save",)),
        ('{ kind = "abilen", capacities = 1, origins = 2 }', ('Did you mean "abilene"?',)),
        ('{ kind = "grid", rows = 0, columns = 3, capacities = 1, origins = 2 }', ("rows is 0",)),
        ('{ kind = "hypercube", dimension = 80, capacities = 1, origins = 2 }', ("Give at most 10,000",)),
        ('{ kind = "erdos_renyi", nodes = 30, p = 0.0, capacities = 1, origins = 2 }', ("were not connected",)),
        ('{ kind = "erdos_renyi", nodes = 30, p = 2.0, capacities = 1, origins = 2 }', ("p is 2.0",)),
        ('{ kind = "links", path = "nowhere.csv", capacities = 1, origins = 2 }', ('there is no file "nowhere.csv"',)),
        ('{ kind = "file", path = "nowhere.toml", capacities = 1, origins = 2 }', ("nowhere.toml", "cannot be read")),
        ('{ kind = "geant", origins = 2 }', ('key "capacities" is missing',)),
    ],
)
def test_what_is_wrong_with_a_network_is_told_at_once(network: str, parts: tuple[str, ...]) -> None:
    text = refused(network)
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("links", "parts"),
    [
        (
            "from,to,cost\na,b,-1\nb,b,1\nb,c,x\n,d,1\na,c,1\nc,a,2\nd,e\n",
            ("6 problems", 'line 2: cost is "-1"', "line 3: a link from", 'line 4: cost is "x"', "line 5: a node has",
             "line 7: link c–a is there twice", "line 8: it has not as many columns"),
        ),
        ("from,to\na,b\nc,d\n", ("some nodes cannot be reached", "Add links from a to c, d")),
        ("source,target\na,b\n", ('its columns are "source", "target"', 'It needs "from" and "to"')),
        ("from,to\n", ("there is no link",)),
        ("", ("its columns are none",)),
    ],
)  # fmt: skip
def test_what_is_wrong_with_links_is_told_with_lines(tmp_path: Path, links: str, parts: tuple[str, ...]) -> None:
    path = tmp_path / "links.csv"
    path.write_text(links)
    text = refused(f'{{ kind = "links", path = "{path.as_posix()}", capacities = 1, origins = 2 }}')
    for part in (str(path), *parts):
        assert part in text


def test_origins_that_are_no_nodes(tmp_path: Path) -> None:
    with pytest.raises(RivageError) as caught:
        NetworkStage.build(own(tmp_path, trace="item,origin\na,0\nb,7\nc,9\n"), 0)
    assert "origin 7 of request 2 is no node, and 1 more are no nodes" in str(caught.value)
    assert "A number is the position of a node, 0 to 3" in str(caught.value)


def test_faults_of_network_and_trace_are_told_together(tmp_path: Path) -> None:
    text = refused(
        '{ kind = "links", path = "nowhere.csv", capacities = 1 }', trace='{ kind = "file", path = "no.csv" }'
    )
    assert "2 problems" in text
    assert "[network]: there is no file" in text
    assert "[trace]: there is no file" in text


def test_a_policy_that_refuses_the_network_is_named() -> None:
    network = '{ kind = "abilene", capacities = 1, origins = 2, horizon = "unknown" }'
    text = refused(network, policies='[{ kind = "grd" }, { kind = "tg_online", learning_rate = "horizon" }]')
    assert text.startswith("[[policies]] 2")
    assert "the horizon is unknown" in text


def test_the_size_of_the_program_is_what_is_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    """All non-zeros but those of the capacities, one for each variable of a cache."""
    seen: list[Any] = []

    def watched(cost: Any, *, upper: Any, **options: Any) -> Any:
        seen.append((upper[0], (cost == 0).sum()))
        return solve(cost, upper=upper, **options)

    solve = network_optimum.linear_program
    monkeypatch.setattr(network_optimum, "linear_program", watched)
    scene = stage().scene
    assert scene.yardsticks.size == program_size(scene.instance, scene.counts)
    matrix, caches = seen[0]
    assert scene.yardsticks.size == matrix.nnz - caches


def test_a_policy_that_finds_no_room_is_refused_before_it_takes_any() -> None:
    text = refused(policies='[{ kind = "tg_online", colors = 2000000000 }]')
    assert text.startswith("[[policies]] 1: tg_online would take ")
    assert "slots and 20 items, and this machine has" in text
    scene, policy = stage().scene, DistributedTGOnline(colors=5)
    state = policy.init(scene.instance, Streams(0)).tables
    assert policy.memory_bytes(scene.instance) == state.chance.nbytes + state.sums.nbytes
    fixed = DistributedTGOnline(colors=5, learning_rate=0.1)
    assert fixed.memory_bytes(scene.instance) == fixed.init(scene.instance, Streams(0)).tables.chance.nbytes

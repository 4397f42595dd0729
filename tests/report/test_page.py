from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rivage.core.certificates import Certificate
from rivage.core.errors import ConfigError, MissingExtra
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.report import write_report

MakeRun = Callable[..., RunRecord]
MakeCertificate = Callable[..., Certificate]
VOID = {"meta", "br", "path", "rect", "use", "image", "line", "circle"}
HOSTILE = '<img src=x onerror="alert(1)">&amp;$x^2$'


class _Checker(HTMLParser):
    """Collects tags, ids and addresses, and demands that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.ids += [value or ""] if name == "id" else []
            self.addresses += [value or ""] if name in ("href", "src", "xlink:href", "action") else []

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def _write(path: Path, *records: RunRecord) -> tuple[str, _Checker]:
    text = write_report(records, path).read_text("utf-8")
    checker = _Checker()
    checker.feed(text)
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids)), "ids are unique on the page"
    assert all(a.startswith(("#", "data:")) for a in checker.addresses), "nothing outside the page"
    assert not {"script", "link", "iframe", "img", "object"} & set(checker.tags)
    assert "url(http" not in text
    assert "NaN" not in text
    assert ">None<" not in text
    return text, checker


def _words(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)).replace("\xa0", " ")


def test_simulated_time_is_told_apart_from_wall_clock(make_run: MakeRun, tmp_path: Path) -> None:
    words = _words(_write(tmp_path / "r.html", make_run(devices=True))[0])
    assert "Downloaded Time Simulated time Simulated energy" in words
    assert re.search(r"\d s 1 min 30 s 1\.50 kJ", words)
    assert re.search(r"\d s – –", words), "Local plays no rounds"
    assert "time is the wall clock of the machine that ran the simulation" in words
    assert "Simulated" not in _words(_write(tmp_path / "s.html", make_run(name="plain"))[0])


def test_one_run_tells_everything(make_run: MakeRun, certificate: MakeCertificate, tmp_path: Path) -> None:
    certificates = [certificate("holds", "it is fine"), certificate("fails", "it is not"), certificate("no_power")]
    notes = {"columns": {"age": "real"}, "skipped_clients": ["site 7"], "rows": 920}
    record = make_run(certificates=certificates, notes=notes, unseen=4)
    text, checker = _write(tmp_path / "r.html", record)
    words = _words(text)
    assert "4 methods on 24 clients (4 unseen in training), 3 seeds, 50 rounds" in words
    assert words.index("it is not") < words.index("it is fine") < words.index("Mean accuracy")
    headings = ["Certificates", "Results", "Learning curves", "Every client against local", "Participation", "Data"]
    places = [text.index(f">{heading}</h") for heading in headings]
    assert places == sorted(places)
    assert checker.tags.count("figure") == 5
    for fact in ("site 7", "age: real", "skipped clients", record.hash, f"rivage verify {record.folder.name}"):
        assert fact in words
    assert "@inproceedings{mcmahan17" in text
    assert 'target = "disease"' in words.replace("&#34;", '"')
    assert str(tmp_path) not in text, "a report does not tell where it was written"


def test_what_happened_to_updates_is_told(make_run: MakeRun, tmp_path: Path) -> None:
    harm = {"adversary": {"kind": "sign_flip", "clients": [2], "share": 0.2, "scale": 5.0}}
    krum = {"collector": {"kind": "krum", "faulty": 1, "keep": 3}, "stages": [{"kind": "clip", "norm": 1.0}]}
    record = make_run(
        rounds=5, seeds=(0,), exchange={method: harm for method in ("local", "fedavg+")} | {"fedavg": krum}
    )
    why = "3 updates where Krum with faulty = 1 needs 5"
    event = {"event": "round", "round": 5, "cohort": [1], "lost": [], "rejected": [], "bytes_up": 1, "bytes_down": 1}
    record.trial("fedavg", 0).append(event | {"refused": why})
    record.trial("fedavg+", 0).append(event | {"forgotten": 6})
    words = _words(_write(tmp_path / "r.html", record)[0])
    results, participation = words.index(" Results "), words.index(" Participation ")
    assert words[results:].startswith(" Results With an adversary. Client 2 flips the sign of its update, scale 5.")
    line = "fedavg: updates clipped to norm 1; combined by Krum (faulty 1, keep 3)"
    assert results < words.index(line) < words.index("Mean accuracy") < participation
    told = words[participation:]
    assert "Rejected Rounds not aggregated Memories dropped" in told
    assert re.search(r" fedavg 6 .*? 0 1 0 fedavg\+ 6 .*? 0 0 6 ", told)
    assert f"fedavg: 1 of 6 rounds was not aggregated: {why}." in told
    assert "fedavg+: 6 client memories were dropped" in told


def test_of_an_ordinary_exchange_nothing_is_told(make_run: MakeRun, tmp_path: Path) -> None:
    words = _words(_write(tmp_path / "r.html", make_run(rounds=5))[0])
    for phrase in ("adversary", "aggregated", "dropped", "combined by", "Memories"):
        assert phrase not in words


def test_personal_models_are_told(make_personal_run: MakeRun, tmp_path: Path) -> None:
    record = make_personal_run(unseen=4, rounds=10)
    text, checker = _write(tmp_path / "r.html", record)
    words = _words(text)
    headings = [
        "Results", "Spread over clients", "At equal bytes", "Unseen clients", "Figures", "Learning curves",
        "Every client against local", "Clients from worst to best", "Shares of the shared models",
        "Weight of the neighbours", "What the server reports", "Participation",
    ]  # fmt: skip
    places = [text.index(f">{heading}</h") for heading in headings]
    assert places == sorted(places)
    assert checker.tags.count("figure") == 7
    assert "Unweighted mean Bottom decile Mean of the worst 10 % Worst client Standard deviation" in words
    assert re.search(r"Rounds for 1\d\d kB", words)
    assert "fits its shares" in words
    assert "stores its records" in words
    assert "Seed 0 alone" in words


def test_tables_that_would_say_nothing_are_left_out(make_run: MakeRun, tmp_path: Path) -> None:
    words = _words(_write(tmp_path / "r.html", make_run(rounds=2, clients=1, cohort=1))[0])
    for heading in ("Spread over clients", "At equal bytes", "Unseen clients", "Shares of", "Weight of", "server rep"):
        assert heading not in words
    assert "Cost of a client" in words


def test_certificates_that_hold_alike_are_one_line(
    make_run: MakeRun, certificate: MakeCertificate, tmp_path: Path
) -> None:
    def sent(method: str, verdict: str = "holds") -> Certificate:
        claim = f"{method} sent no byte beyond those reported."
        return certificate(verdict, claim, check="wire_bytes", fields={"method": method})

    record = make_run(rounds=1, certificates=[*map(sent, ("a", "b", "c")), sent("d", "fails")])
    text = _write(tmp_path / "r.html", record)[0]
    folded = re.findall(r"<details><summary>(.*?)</summary>(.*?)</details>", text, re.DOTALL)[0]
    assert _words(folded[0]).strip() == "3 × sent no byte beyond those reported. a, b, c"
    assert [f"{method} sent no byte" in folded[1] for method in "abcd"] == [True, True, True, False]
    assert text.index("d sent no byte") < text.index("<details>"), "what fails stays open"


def test_same_record_same_bytes_wherever_it_lies(make_run: MakeRun, tmp_path: Path) -> None:
    record = make_run(rounds=5)
    first = write_report([record], tmp_path / "a.html").read_bytes()
    moved = Path(shutil.copytree(record.folder, tmp_path / "elsewhere" / record.folder.name))
    assert write_report([RunRecord.open(moved)], tmp_path / "b.html").read_bytes() == first


def test_same_bytes_in_another_process(make_run: MakeRun, tmp_path: Path) -> None:
    record = make_run(rounds=5)
    first = write_report([record], tmp_path / "a.html").read_bytes()
    code = (
        "import sys; from pathlib import Path; from rivage.core.records import RunRecord\n"
        "from rivage.report import write_report\n"
        "write_report([RunRecord.open(Path(sys.argv[1]))], Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", code, record.folder, tmp_path / "b.html"], check=True)
    assert (tmp_path / "b.html").read_bytes() == first


@pytest.mark.parametrize(
    "options",
    [
        {"clients": 1, "cohort": 1},
        {"methods": {"fedem": "fedem", "knnper": "knnper"}},
        {"methods": {"knnper": "knnper"}, "unseen": 1, "seeds": (0,)},
        {"values": lambda kind, seed, done: [None] * 20},
        {"values": lambda kind, seed, done: [None, *[0.1 * seed] * 19], "unseen": 2},
        {"error": True, "unfinished": True, "unseen": 2},
        {"rounds": 0},
    ],
)
def test_degenerate_runs_of_personal_models(
    make_personal_run: MakeRun, tmp_path: Path, options: dict[str, object]
) -> None:
    text, _ = _write(tmp_path / "r.html", make_personal_run(**{"rounds": 6} | options))
    assert "Results" in _words(text)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"clients": 1, "cohort": 1}, "on 1 client,"),
        ({"seeds": (0,)}, "One seed: the spread is unknown"),
        ({"seeds": (0,)}, "(one seed: the spread is unknown)"),
        ({"methods": {"fedavg": "fedavg"}}, "1 method on"),
        ({"methods": {"local": "local"}}, "local has the best mean accuracy"),
        ({"rounds": 0}, "0 rounds"),
        ({"every": 100}, "Learning curves"),
        ({"error": True}, "lower is better"),
        ({"unfinished": True}, "guarded, seed 2: stopped after 5 rounds"),
        ({"values": lambda kind, seed, done: [None] * 20}, "there is no answer to report"),
        ({"values": lambda kind, seed, done: [None] * 20}, "accuracy is undefined for 20 clients"),
        ({"values": lambda kind, seed, done: [0.5] * 20}, "0 % better, 0 % worse"),
        ({"values": lambda kind, seed, done: [1e12 * done + seed] * 20}, "1e+13"),
        ({"values": lambda kind, seed, done: [None, *[0.1 * seed] * 19]}, "Every client against local"),
    ],
)
def test_degenerate_runs(make_run: MakeRun, tmp_path: Path, options: dict[str, object], expected: str) -> None:
    record = make_run(**{"rounds": 10} | options)
    text, _ = _write(tmp_path / "r.html", record)
    assert expected in _words(text)


def test_a_run_that_has_just_been_created(make_run: MakeRun, tmp_path: Path) -> None:
    record = RunRecord.create(
        tmp_path, "new", {"name": "new", "methods": [{"kind": "local"}], "run": {"seeds": [0, 1]}}
    )
    words = _words(_write(tmp_path / "r.html", record)[0])
    assert "No method has begun." in words
    assert "local, seed 1: not begun" in words
    trial = TrialRecord.open(record.trial_folder("local", 0))
    start = {
        "event": "start",
        "method": "local",
        "kind": "local",
        "seed": 0,
        "metric": "mse",
        "higher_is_better": False,
    }
    trial.append(start | {"population": {"size": 3}, "reference": None})
    words = _words(_write(tmp_path / "r.html", record)[0])
    assert "local, seed 0: stopped after 0 rounds" in words
    assert "there is nothing to draw" in words


def test_names_cannot_inject_markup(make_run: MakeRun, certificate: MakeCertificate, tmp_path: Path) -> None:
    record = make_run(
        name=HOSTILE.replace("/", ""),
        methods={"_local" + HOSTILE: "local", HOSTILE: "fedavg", "</svg>": "guarded"},
        rounds=5,
        certificates=[certificate("holds", HOSTILE)],
        notes={HOSTILE: {HOSTILE: HOSTILE}},
    )
    text, _ = _write(tmp_path / "r.html", record)
    assert "<img" not in text
    assert text.count("</svg>") == text.count("<svg")


def test_several_runs_share_a_page(make_run: MakeRun, tmp_path: Path) -> None:
    one = make_run(name="first", rounds=5)
    two = make_run(
        name="second", rounds=10, methods={"new": "fedavg", "fedavg": "fedavg", "local": "local"}, error=True
    )
    text, checker = _write(tmp_path / "r.html", one, two)
    words = _words(text)
    assert "2 runs compared" in words
    assert "run.rounds 5 10" in words
    assert {"r1", "r2"} <= set(checker.ids)
    legends = re.findall(r'style="color:var\(--([\w-]+)\)">(?:<path[^>]*></path>|<path[^>]*/>)*</svg>([^<]+)', text)
    looks = {(name.strip(), color) for color, name in legends}
    assert {("fedavg", "series-0"), ("new", "series-3"), ("local", "ink")} <= looks
    assert len({name for name, _ in looks}) == len(looks), "one colour per method on the page"


def test_speed_and_size(make_run: MakeRun, make_personal_run: MakeRun, tmp_path: Path) -> None:
    usual, large = make_run(), make_personal_run(name="large", clients=1000, unseen=100, rounds=10)
    begun = time.process_time()
    write_report([usual], tmp_path / "usual.html")
    assert time.process_time() - begun < 5
    write_report([large], tmp_path / "large.html")
    assert (tmp_path / "large.html").stat().st_size < 2_000_000


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run to report on"):
        write_report([], tmp_path / "r.html")


@pytest.mark.parametrize("module", ["matplotlib", "jinja2"])
def test_missing_extra_says_what_to_install(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    record = make_run(rounds=1)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf'needs {module}.*pip install "rivage\[report\]"'):
        write_report([record], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_importing_the_package_loads_no_drawing_library() -> None:
    heavy = {"matplotlib", "jinja2", "torch"}
    code = f"import sys, rivage.report, rivage.core.summaries; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

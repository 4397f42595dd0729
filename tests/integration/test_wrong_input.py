"""What people get wrong, and what they are told: the texts are kept in ``wrong_input.txt``.

Every case runs the real command in a fresh folder. After a deliberate change of a text, write the file anew with
``RIVAGE_SNAPSHOT=write pytest tests/integration/test_wrong_input.py`` and read the difference.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rivage.cli.app import main
from rivage.core.records import RunRecord

SNAPSHOT = Path(__file__).with_name("wrong_input.txt")

TABLES = """
name = "sites"
data = { kind = "tables", folder = "sites", target = "sick" }
work = { batch_size = 8 }
methods = [{ kind = "fedavg", learning_rate = 0.1 }, { kind = "local", learning_rate = 0.1, epochs = 2 }]
run = { rounds = 2 }
"""

DIGITS = """
name = "digits"
data = { kind = "digits" }
partition = { kind = "iid", clients = 4 }
methods = [{ kind = "fedavg", learning_rate = 0.1 }]
run = { rounds = 2 }
"""


def write(name: str, text: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)


def site(rows: list[str], header: str = "age,sex,sick") -> str:
    return "\n".join([header, *rows]) + "\n"


def sites(**changed: str) -> None:
    rows = [f"{age},{sex},{int(age % 3 == 0)}" for age, sex in zip(range(30, 60), "fm" * 15, strict=True)]
    for name in ("north", "south", "west"):
        write(f"sites/{name}.csv", changed.get(name, site(rows)))
    write("study.toml", TABLES)


def digits(**replaced: str) -> None:
    text = DIGITS
    for old, new in replaced.items():
        text = text.replace({"rounds": "rounds = 2", "clients": "clients = 4"}.get(old, old), new)
    write("study.toml", text)


def arrays(x: np.ndarray, y: np.ndarray) -> None:
    np.savez("records.npz", x=x, y=y)
    text = DIGITS.replace('kind = "digits" }\npart', 'kind = "arrays", path = "records.npz" }\npart')
    write("study.toml", text)


def corrupt_checkpoint() -> None:
    digits()
    assert main(["train", "study.toml", "--quiet"]) == 0
    trial = next(Path("runs").glob("*/trials/fedavg/seed-0"))
    record = trial / "record.jsonl"
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(lines[:-1]))  # the end is missing: the trial resumes
    path = trial / "checkpoint.sqlite"
    data = bytearray(path.read_bytes())
    data[data.index(b'"rounds"')] ^= 1
    path.write_bytes(data)


def other_data() -> None:
    sites()
    assert main(["train", "study.toml", "--quiet"]) == 0
    trial = next(Path("runs").glob("*/trials/fedavg/seed-0"))
    lines = (trial / "record.jsonl").read_text().splitlines(keepends=True)
    (trial / "record.jsonl").write_text("".join(lines[:-1]))
    sites(north=site([f"{age},f,{age % 2}" for age in range(40)]))


def many_features(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(count, 3)), generator.integers(0, 2, count)


def nan_target() -> None:
    x, y = many_features()
    target = y.astype(float)
    target[5] = np.nan
    arrays(x, target)


def nan_feature() -> None:
    x, y = many_features()
    x[7, 1] = np.nan
    arrays(x, y)


CASES: dict[str, tuple[int, Callable[[], None]]] = {
    "unknown key": (2, lambda: digits(rounds="rouns = 2")),
    "wrong type": (2, lambda: digits(rounds='rounds = "ten"')),
    "several faults at once": (2, lambda: digits(rounds="rouns = 2, seeds = []", clients='clients = "4"')),
    "unknown method": (2, lambda: write("study.toml", DIGITS.replace('kind = "fedavg"', 'kind = "fedavgg"'))),
    "missing file": (2, lambda: write("studdy.toml", DIGITS)),
    "not TOML": (2, lambda: write("study.toml", "name = \n")),
    "learning rate out of range": (2, lambda: write("study.toml", DIGITS.replace("0.1", "-0.1"))),
    "cohort larger than the population": (2, lambda: digits(rounds="rounds = 2, cohort = 9")),
    "data without a partition": (2, lambda: write("study.toml", re.sub("partition.*\n", "", DIGITS))),
    "partition of data that are split": (
        2,
        lambda: (sites(), write("study.toml", TABLES + 'partition = { kind = "iid", clients = 2 }\n'))[0],
    ),
    "no such folder": (2, lambda: write("study.toml", TABLES)),
    "folder without tables": (2, lambda: write("sites/readme.txt", "") or write("study.toml", TABLES)),
    "empty table": (2, lambda: sites(south=site([]))),
    "table of zero bytes": (2, lambda: sites(south="")),
    "target missing in one table": (2, lambda: sites(west=site(["30,f"], "age,sex"))),
    "target mistyped in all": (2, lambda: sites() or write("study.toml", TABLES.replace('"sick"', '"sik"'))),
    "column missing in one table": (2, lambda: sites(west=site(["30,0", "31,1"], "age,sick"))),
    "target without a value": (2, lambda: sites(south=site(["30,f,1", "31,m,"]))),
    "text among numbers": (
        2,
        lambda: sites(south=site([f"{'forty' if age == 45 else age},f,{age % 2}" for age in range(30, 60)])),
    ),
    "an adversary that is nobody": (
        2,
        lambda: digits(rounds="rounds = 2 }\nadversary = { kind = 'nan', clients = [9]"),
    ),
    "a log of nobody": (2, lambda: digits(rounds="rounds = 2, log = 'clients:[99]'")),
    "more to keep than there are clients": (
        2,
        lambda: write(
            "study.toml", DIGITS.replace("0.1 }", "0.1, collector = { kind = 'krum', faulty = 0, keep = 3 } }")
        ),
    ),
    "one class over all clients": (
        2,
        lambda: sites(**{name: site([f"{age},f,1" for age in range(20)]) for name in ("north", "south", "west")}),
    ),
    "NaN target": (2, nan_target),
    "NaN feature": (2, nan_feature),
    "not an npz file": (2, lambda: (arrays(*many_features()), write("records.npz", "no"))[0]),
    "model that does not fit": (
        2,
        lambda: write("study.toml", DIGITS + 'task = { model = "cnn" }\n'),
    ),
    "loss that does not fit": (2, lambda: write("study.toml", DIGITS + 'task = { loss = "squared" }\n')),
    "model that is nowhere": (2, lambda: write("study.toml", DIGITS + 'task = { model = "my_nets:Net" }\n')),
    "corrupt checkpoint": (1, corrupt_checkpoint),
    "data changed under a run": (2, other_data),
    "training diverges": (1, lambda: write("study.toml", DIGITS.replace("0.1", "1e38"))),
}


@pytest.fixture(scope="module")
def told() -> dict[str, str]:
    if not SNAPSHOT.exists():
        return {}
    cases = SNAPSHOT.read_text("utf-8").split("\n=== ")
    return {name: text.rstrip("\n") for name, _, text in (case.partition(" ===\n") for case in cases[1:])}


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_is_told(
    case: str,
    told: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, prepare = CASES[case]
    prepare()
    capsys.readouterr()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["train", "study.toml", "--quiet"]) == code
    output = capsys.readouterr()
    assert output.out == ""
    text = re.sub(r"-[0-9a-f]{8}/", "-<hash>/", output.err.replace(str(tmp_path), "HERE")).strip()
    assert text.startswith("error: ")
    if os.environ.get("RIVAGE_SNAPSHOT") == "write":
        _remember(case, text)
    else:
        assert text == told[case]
    kept = {path: path.read_bytes() for path in before if path.exists()}
    changed = [str(path) for path, data in before.items() if kept.get(path) != data]
    assert not changed, "nothing already written is lost"


def _remember(case: str, text: str) -> None:
    old = SNAPSHOT.read_text("utf-8") if SNAPSHOT.exists() else "What people get wrong, and what they are told.\n"
    parts = [part for part in old.split("\n=== ") if not part.startswith(f"{case} ===")]
    SNAPSHOT.write_text("\n=== ".join([*parts, f"{case} ===\n{text}\n"]), "utf-8")


def test_after_mending_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleting the corrupt checkpoint, as the message says, restarts that trial and nothing else."""
    monkeypatch.chdir(tmp_path)
    digits()
    assert main(["train", "study.toml", "--quiet"]) == 0
    folder = next(Path("runs").iterdir())
    whole = RunRecord.open(folder).hash
    corrupt_checkpoint()
    assert main(["train", "study.toml", "--quiet"]) == 1
    next(folder.glob("trials/fedavg/seed-0/checkpoint.sqlite")).unlink()
    assert main(["train", "study.toml", "--quiet"]) == 0
    assert RunRecord.open(folder).hash == whole

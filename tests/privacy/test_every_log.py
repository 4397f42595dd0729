"""Every attack on logs of every kind: it works, or refuses for a reason that somebody can act on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivage.core.errors import ConfigError
from rivage.studies.audit_settings import Auditing
from rivage.studies.auditing import audit_run
from rivage.studies.pipeline import run_study
from rivage.studies.settings import parse_study

DIGITS = 'data = { kind = "digits" }\npartition = { kind = "iid", clients = 6 }\n'
TEXT = (
    'data = { kind = "arrays", path = "text.npz", target_type = "tokens" }\npartition = { kind = "iid", clients = 4 }\n'
)
COSTS = (
    'data = { kind = "tables", folder = "sites", target = "cost", ignore = ["high"] }\n'
    'task = { model = "linear", loss = "squared", metric = "rmse" }\n'
)
HIGH = 'data = { kind = "tables", folder = "sites", target = "high", ignore = ["cost"] }\n'
STREAM = 'stream = { historical = 0.5, batch = 10, memory = { kind = "fifo", capacity = 20 } }\n'
STAGES = {
    "top_k": 'stages = [{ kind = "top_k", share = 0.1 }]',
    "float16": 'stages = [{ kind = "float16" }]',
    "all": 'stages = [{ kind = "clip", norm = 1.0 }, { kind = "top_k", share = 0.1 }, { kind = "bfloat16" }]',
    "noise": 'stages = [{ kind = "clip", norm = 1.0 }, { kind = "gaussian_noise", deviation = 0.1 }]',
}


def method(kind: str, more: str = "") -> str:
    return f'methods = [{{ kind = "{kind}"{", " if more else ""}{more} }}]\n'


STUDIES = {
    "text by recent symbols": TEXT + 'task = { model = "char_ngram" }\n' + method("fedavg"),
    "text by a recurrent network": TEXT
    + 'task = { model = "char_gru", options = { hidden = 8 } }\n'
    + method("fedavg"),
    "numbers": COSTS + method("fedavg", "learning_rate = 0.05"),
    "numbers by a network": COSTS.replace('"linear"', '"mlp"') + method("fedavg", "learning_rate = 0.05"),
    "classes of tables": HIGH + method("fedavg"),
    "streams": DIGITS + STREAM + method("fedstream"),
    "streams of numbers": COSTS + STREAM + method("fedstream"),
    "sums": DIGITS + method("fedavg", 'collector = { kind = "secagg" }'),
    **{f"stages {name}": DIGITS + method("fedavg", stages) for name, stages in STAGES.items()},
    **{
        kind: (HIGH if kind != "fedrep" else HIGH + 'task = { model = "mlp" }\n') + method(kind)
        for kind in ("clustered", "fedem", "fedem_heads", "fedrep", "scaffold", "fedsgd", "afl", "knnper")
    },
    "one site": DIGITS.replace("6", "1") + method("fedavg"),
    "wrong numbers": DIGITS
    + 'adversary = { kind = "nan", share = 0.3 }\n'
    + method("fedavg", 'collector = { kind = "median" }'),
}
QUICK = {
    "text by recent symbols": ("analytic_inversion", "idlg", "emulator", "dlg", "white_box", "fedmia"),
    "streams of numbers": ("active_attributes", "isolated_attributes", "local_model", "fedmia"),
    "sums": ("local_lira", "local_rmia", "local_model", "zari21", "fedmia", "idlg"),
    "clustered": ("active_attributes", "isolated_attributes", "local_lira"),
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four sites with a table each, and a text of random symbols; the place to work in."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    np.savez("text.npz", x=draw.integers(0, 20, (120, 8)), y=draw.integers(0, 20, (120, 8)))
    Path("sites").mkdir()
    for site in range(4):
        smokes, age = draw.random(60) < 0.3 + 0.1 * site, draw.integers(20, 70, 60)
        cost = 2 * smokes + age / 30 + 0.4 * draw.normal(size=60)
        rows = zip(age, np.where(smokes, "yes", "no"), cost.round(3), np.where(cost > 2.2, "yes", "no"), strict=True)
        lines = ["age,smoker,cost,high", *(",".join(map(str, row)) for row in rows)]
        Path(f"sites/{site}.csv").write_text("\n".join(lines))
    return tmp_path


def audited(name: str, attacks: tuple[str, ...] = ()) -> dict[str, Any]:
    record = run_study(parse_study(f'name = "x"\nrun = {{ rounds = 3, log = "all" }}\n{STUDIES[name]}'))
    return audit_run(record, Auditing(attacks=attacks, targets=2, budget=0.0))


def require_reasons(found: dict[str, Any]) -> None:
    """No attack broke down, and every refusal says what could be done, or what is not to be had."""
    assert found["attacks"]
    assert not found["not_run"]
    for row in found["attacks"]:
        assert not any("it failed" in why for why in row["reasons"]), (row["attack"], row["reasons"])
        assert row["reasons"] or row["verdict"] != "refused", row["attack"]
        assert row["evidence"] is not None or row["verdict"] == "refused"


@pytest.mark.parametrize("name", QUICK)
def test_attacks_that_need_more_than_such_a_log_holds_say_so(data: Path, name: str) -> None:
    found = audited(name, QUICK[name])
    require_reasons(found)
    if name == "sums":
        assert all(row["verdict"] == "refused" for row in found["attacks"])
        assert not [row for row in found["attacks"] if "hides what each of them returned" not in str(row["reasons"])]


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_every_attack_works_or_gives_its_reason(data: Path, name: str) -> None:
    require_reasons(audited(name))


def test_a_training_without_a_server_is_refused_whole(data: Path) -> None:
    silos = method("dfedem", 'overlay = { kind = "ring" }')
    record = run_study(parse_study(f'name = "x"\nrun = {{ rounds = 2, log = "all" }}\n{HIGH}{silos}'))
    with pytest.raises(ConfigError, match=r"has no server.*Audit a federated method"):
        audit_run(record, Auditing())

"""An audit that has nothing to find finds nothing: every attack against three nulls, forty times each.

- *shuffled*: a trained federation, but who is called a member is drawn anew;
- *untrained*: clients that return the model they are sent, on which no record has left a trace;
- *independent*: an attribute that is drawn independently of everything else.

Each repetition has data, training and audit of its own. An attack that is honest rejects at level 5 % in 5 % of them;
more than 6 of 40 have probability 0.3 % for one attack. All settings are those of the audit, but for searches and
reference models: fewer rounds and models make an attack weaker and leave its null alone.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rivage.core.seeding import Streams
from rivage.data.dataset import Arrays, Dataset
from rivage.data.population import Schema
from rivage.privacy.attack import ATTACKS, Attack
from rivage.privacy.evidence import LEVEL
from rivage.studies.audit_attack import perform
from rivage.studies.audit_kept import corrected
from rivage.studies.audit_opening import scene_of_run
from rivage.studies.audit_scene import Scene
from rivage.studies.audit_settings import Auditing
from rivage.studies.auditing import requested
from rivage.studies.claims.claim import Claim, Outcome
from rivage.studies.pipeline import run_study
from rivage.studies.settings import parse_study

__all__ = ["CLAIMS", "MOST", "NULLS", "people", "rejections"]

REPETITIONS = 40
MOST = 6
NULLS = ("shuffled", "untrained", "independent")
_CLIENTS, _RECORDS = 4, 60
_STUDY = """
name = "nulls"
data = {{ kind = "python", function = "rivage.studies.claims.audit_nulls:people" }}
task = {{ model = "mlp", options = {{ hidden = [8] }} }}
methods = [{{ kind = "fedavg", learning_rate = 0.3 }}]
work = {{ epochs = {epochs}, batch_size = 10 }}
run = {{ rounds = 6, seeds = [{seed}], executor = "tiled", workers = 1 }}
evaluation = {{ every = 99, validation = 0.2, test = 0.3 }}
"""


def people(seed: int) -> Dataset:
    """Records of four clients: three numbers, a group that says nothing, and a class that the numbers say in part."""
    generator, size = Streams(seed).numpy("people"), _CLIENTS * _RECORDS
    numbers = generator.normal(size=(size, 3))
    group = generator.integers(2, size=size)
    y = (numbers.sum(axis=1) + generator.normal(0, 1.5, size) > 0).astype(np.int64)
    x = np.concatenate([numbers, np.eye(2)[group]], axis=1).astype(np.float32)
    features = ("a", "b", "c", "group=x", "group=y")
    schema = Schema(input_shape=(5,), target="class", num_classes=2, features=features, classes=("no", "yes"))
    clients = np.repeat(np.arange(_CLIENTS), _RECORDS)
    return Dataset(
        source="people",
        records=Arrays(x, y, schema),
        clients=clients,
        names=tuple(f"site {client}" for client in range(_CLIENTS)),
    )


def rejections(null: str, kinds: Iterable[str], repetitions: int) -> tuple[Counter[str], Counter[str]]:
    """How often each attack rejects at level 5 %, uncorrected, and how often it tests at all.

    The key ``any`` counts audits in which an attack is called a leak, after the correction for all attacks.

    Args:
        null: one of ``NULLS``.
        kinds: of attacks.
        repetitions: audits, each of a training of its own.
    """
    rejected, tested = Counter[str](), Counter[str]()
    for repetition in range(repetitions):
        rows = list(_rows(null, kinds, repetition))
        for row in rows:
            tested[row["attack"]] += 1
            rejected[row["attack"]] += row["p"] <= LEVEL
        tested["any"] += bool(rows)
        rejected["any"] += any(row["verdict"] == "leaks" for row in corrected(rows))
    return rejected, tested


def _rows(null: str, kinds: Iterable[str], seed: int) -> Iterator[dict[str, Any]]:
    """What the attacks of one audit find that test something."""
    with tempfile.TemporaryDirectory() as folder:
        study = parse_study(_STUDY.format(epochs=0 if null == "untrained" else 5, seed=seed))
        record = run_study(study, out=Path(folder))
        scene = scene_of_run(record, Auditing(targets=2, attribute="group"), seed)
        scene = scene.shuffled() if null == "shuffled" else scene
        try:
            for kind in requested(tuple(kinds)):
                if (row := _row(scene, null, kind)) is not None and row["p"] is not None:
                    yield row
        finally:
            scene.close()


def _row(scene: Scene, null: str, kind: str) -> dict[str, Any] | None:
    attack: Attack = ATTACKS.get(kind)()
    asks = {"shuffled": ("membership",), "independent": ("attribute",)}.get(null, ("membership", "attribute", "record"))
    if attack.asks not in asks:
        return None
    attribute = scene.attributes[0] if attack.asks == "attribute" else None
    return perform(scene, kind, attribute, _smaller(attack))


def _smaller(attack: Any) -> Attack:
    """The attack with fewer rounds of search and fewer reference models."""
    if hasattr(attack, "shadows"):
        return replace(attack, shadows=replace(attack.shadows, models=16))  # type: ignore[no-any-return]
    if hasattr(attack, "draws"):
        return replace(attack, rounds=5, draws=3)  # type: ignore[no-any-return]
    if hasattr(attack, "attack"):
        return replace(attack, rounds=5, attack=_smaller(attack.attack))  # type: ignore[no-any-return]
    if hasattr(attack, "learning_rates"):
        return replace(attack, iterations=20, learning_rates=(1e3,))  # type: ignore[no-any-return]
    return attack  # type: ignore[no-any-return]


@cache
def _found(null: str) -> tuple[Counter[str], Counter[str]]:
    return rejections(null, ATTACKS, REPETITIONS)


def _nothing_found(null: str) -> Outcome:
    rejected, tested = _found(null)
    worst = max(rejected[kind] for kind in tested)
    detail = ", ".join(f"{kind} {rejected[kind]} of {tested[kind]}" for kind in sorted(tested))
    return Outcome(float(worst), "holds" if worst <= MOST and tested else "fails", detail)


def _claim(null: str, statement: str) -> Claim:
    return Claim(
        name=f"audit-nulls-{null}",
        paper="a test at level 5 % rejects a true null in 5 % of cases",
        where="definition",
        statement=statement,
        expected=f"at most {MOST} of {REPETITIONS} per attack, and of audits after correction",
        tolerance=0.0,
        cost="slow",
        run=lambda: _nothing_found(null),
    )


CLAIMS = (
    _claim("shuffled", "No attack tells members from others when who is called a member was drawn at random."),
    _claim("untrained", "No attack finds members, attributes or labels in the messages of clients that do not train."),
    _claim(
        "independent", "No attack guesses an attribute that is independent of everything better than the baselines."
    ),
)

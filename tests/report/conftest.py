"""Small runs with known numbers, written through the record's own interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivage.core.certificates import Certificate
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord

REFERENCE = {
    "key": "mcmahan17",
    "authors": "H. Brendan McMahan and Eider Moore and Daniel Ramage",
    "title": "Communication-Efficient Learning of Deep Networks from Decentralized Data",
    "venue": "AISTATS",
    "year": 2017,
    "arxiv": "1602.05629",
    "part": "Algorithm 1",
}
METHODS = {"local": "local", "fedavg": "fedavg", "fedavg+": "finetuned", "guarded": "guarded"}
PERSONAL = {"local": "local", "fedavg": "fedavg", "fedem": "fedem", "knnper": "knnper"}
STRENGTH = {
    "local": (0.80, 0.10), "fedavg": (0.84, 0.04), "finetuned": (0.88, 0.07), "guarded": (0.89, 0.06),
    "fedem": (0.87, 0.06), "knnper": (0.90, 0.05), "other": (0.85, 0.05),
}  # fmt: skip
DEARER = {"fedem": 3}  # times the bytes and gradients of the others


@pytest.fixture
def certificate() -> Callable[..., Certificate]:
    """Makes a certificate with a verdict."""
    return _certificate


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunRecord]:
    """Makes a run below the test's own folder; see `_make_run`."""
    return partial(_make_run, tmp_path)


@pytest.fixture
def make_personal_run(tmp_path: Path) -> Callable[..., RunRecord]:
    """The same with Local, FedAvg, FedEM and kNN-Per, and all that their evaluations hold today."""
    today = {"columns": personal_columns, "server": server_numbers, "gradients": 500}
    return lambda **options: _make_run(tmp_path, **{"methods": PERSONAL, **today, **options})


def _certificate(verdict: str, claim: str = "guarded is not worse than Local", **changes: Any) -> Certificate:
    values: dict[str, Any] = {
        "kind": "test",
        "claim": claim,
        "measured": 0.031,
        "reference": 0.0,
        "method": "paired sign-flip test over 20 clients and 3 seeds",
        "confidence": 0.95,
        "verdict": verdict,
        "check": "paired_difference",
        "fields": {},
    }
    return Certificate(**values | changes)


def evaluation(done: int, test: Sequence[float | None], sizes: Sequence[int], **changes: Any) -> dict[str, Any]:
    event: dict[str, Any] = {
        "event": "evaluation",
        "round": done,
        "group": "seen",
        "clients": list(range(len(test))),
        "test": list(test),
        "test_size": list(sizes),
        "test_loss": [0.5] * len(test),
        "validation": [0.5] * len(test),
        "validation_loss": [0.5] * len(test),
        "validation_se": [0.1] * len(test),
        "validation_size": [10] * len(test),
        "skipped": 0,
    }
    return event | changes


def values_of(kind: str, seed: int, clients: int, progress: float, error: bool) -> list[float]:
    """Plausible test values: the same clients are hard for every method, and training closes the gap."""
    random = np.random.default_rng([seed, clients, list(STRENGTH).index(kind)])
    ease = np.random.default_rng([seed, clients]).normal(size=clients)
    level, spread = STRENGTH[kind]
    final = (level + spread * (0.8 * ease + 0.6 * random.normal(size=clients))).clip(0.05, 1.0)
    value = 0.1 + (final - 0.1) * (1 - np.exp(-4 * progress))
    return [round(float(8 * (1 - v) if error else v), 4) for v in value]


def personal_columns(kind: str, seed: int, clients: int) -> dict[str, Any]:
    """What evaluations of today hold beside the metrics: records, gradients, shares, weights of neighbours."""
    random = np.random.default_rng([seed, clients])
    sizes = random.integers(20, 200, clients)
    trains = 4 if kind in ("local", "finetuned") else 0
    columns: dict[str, Any] = {"train_size": sizes.tolist(), "gradients": (trains * sizes).tolist()}
    if kind == "fedem":
        columns["mix"] = random.dirichlet([0.5] * 3, clients).round(4).tolist()
    if kind == "knnper":
        columns["neighbour_share"] = (random.integers(0, 11, clients) / 10).tolist()
        columns["neighbour_bytes"] = (260 * sizes).tolist()
    return columns


def server_numbers(kind: str, seed: int, done: int) -> dict[str, float]:
    """What one method tells of its server."""
    return {"kappa": 1 / (1 + done) + 0.1 * seed, "share": 0.4} if kind == "fedavg" else {}


def _make_run(
    parent: Path,
    *,
    name: str = "hospitals",
    methods: Mapping[str, str] = METHODS,
    seeds: Sequence[int] = (0, 1, 2),
    clients: int = 20,
    rounds: int = 50,
    every: int = 5,
    cohort: int = 10,
    unseen: int = 0,
    error: bool = False,
    unfinished: bool = False,
    values: Callable[[str, int, int], Sequence[float | None]] | None = None,
    certificates: Sequence[Certificate] = (),
    notes: Mapping[str, Any] | None = None,
    devices: bool = False,
    exchange: Mapping[str, Mapping[str, Any]] | None = None,
    columns: Callable[[str, int, int], Mapping[str, Any]] = lambda kind, seed, clients: {},
    server: Callable[[str, int, int], Mapping[str, float]] = lambda kind, seed, done: {},
    gradients: int | None = None,
) -> RunRecord:
    """A run folder with one trial per method and seed.

    Args:
        values: (kind, seed, rounds done) -> test value of each client; by default plausible random values.
        unfinished: leave the last seed of the last method in the middle.
        devices: rounds say what they took on simulated devices: 90 s and 1,500 J for 50 rounds.
        exchange: method -> stages, collector and adversary, as its first event has them.
        columns: (kind, seed, clients) -> further columns of evaluations.
        server: (kind, seed, round) -> numbers of the server.
        gradients: that a round takes; None does not count.
    """
    settings = {
        "name": name,
        "data": {"kind": "tables", "folder": "sites/", "target": "disease"},
        "methods": [{"name": n, "kind": k} for n, k in methods.items()],
        "run": {"rounds": rounds, "cohort": cohort, "seeds": list(seeds), "dtype": "float32"},
        "evaluation": {"every": every},
    }
    record = RunRecord.create(parent, name, settings)
    sizes = [int(s) for s in 12 + np.random.default_rng(5).lognormal(3, 1, clients)]
    values = values or (lambda kind, seed, done: values_of(kind, seed, clients, done / max(rounds, 1), error))
    for method, kind in methods.items():
        for seed in seeds:
            trial = TrialRecord.open(record.trial_folder(method, seed))
            last = unfinished and (method, seed) == (list(methods)[-1], seeds[-1])
            played = rounds // 2 if last else rounds
            trial.append(
                {
                    "event": "start",
                    "method": method,
                    "kind": kind,
                    "seed": seed,
                    "settings": {},
                    "metric": "mse" if error else "accuracy",
                    "higher_is_better": not error,
                    "population": {
                        "size": clients + unseen,
                        "fingerprint": "f",
                        "unseen": list(range(clients, clients + unseen)),
                        "names": [f"site {c}" for c in range(clients + unseen)],
                        "notes": dict(notes or {}),
                    },
                    "parameters": 4810,
                    "dtype": "float32",
                    "reference": REFERENCE if kind in ("fedavg", "finetuned") else None,
                    **(exchange or {}).get(method, {}),
                }
            )
            trial.append({"event": "setup", "bytes_up": 4000, "bytes_down": 2000, "messages": 2 * clients})
            more = {} if gradients is None else {"gradients": gradients * DEARER.get(kind, 1)}
            tell = partial(_told, kind, seed, server, more)
            own = columns(kind, seed, clients)
            _play(trial, kind, played, every, cohort, clients, sizes, values, devices and kind != "local", own, tell)
            if unseen:
                test = values_of(kind, seed + 100, unseen, played / max(rounds, 1), error)
                ids, apart = list(range(clients, clients + unseen)), columns(kind, seed + 100, unseen)
                trial.append(evaluation(played, test, sizes[:1] * unseen, group="unseen", clients=ids, **apart))
            if kind == "guarded":
                names = np.random.default_rng(seed).choice(["local", "fedavg", "fedavg+"], clients, p=[0.25, 0.2, 0.55])
                chosen = {"chosen": names.tolist(), "clients": list(range(clients)), "group": "seen"}
                trial.append({"event": "choice", "round": played} | chosen)
            if not last:
                trial.append({"event": "end", "rounds": rounds})
    record.write_certificates(certificates)
    return record


def _told(
    kind: str,
    seed: int,
    server: Callable[[str, int, int], Mapping[str, float]],
    more: Mapping[str, Any],
    done: int,
) -> dict[str, Any]:
    numbers = server(kind, seed, done)
    return {**more, **({"server": dict(numbers)} if numbers else {})}


def _play(
    trial: TrialRecord,
    kind: str,
    rounds: int,
    every: int,
    cohort: int,
    clients: int,
    sizes: Sequence[int],
    values: Callable[[str, int, int], Sequence[float | None]],
    devices: bool,
    columns: Mapping[str, Any],
    tell: Callable[[int], Mapping[str, Any]],
) -> None:
    """Rounds and evaluations; everybody trains locally every round, else a cohort that leans to low ids."""
    odds = 1 / (5 + np.arange(clients))
    for done in range(rounds + 1):
        if done % every == 0 or done == rounds:
            trial.append(evaluation(done, values(kind, trial.seed, done), sizes, **columns))
            trial.append_timing({"evaluation": done, "seconds": 0.05})
        if done == rounds:
            break
        draw = np.random.default_rng([trial.seed, done])
        ids = sorted(draw.choice(clients, min(cohort, clients), replace=False, p=odds / odds.sum()).tolist())
        alone = kind == "local"
        lost = [] if alone or draw.random() < 0.6 else ids[-1:]
        rejected = [{"client": ids[0], "reason": "update is not finite"}] if not alone and done == 7 else []
        trial.append(
            {
                "event": "round",
                "round": done,
                "cohort": list(range(clients)) if alone else ids,
                "lost": lost,
                "rejected": rejected,
                "bytes_up": 0 if alone else 19_320 * DEARER.get(kind, 1) * (len(ids) - len(lost)),
                "bytes_down": 0 if alone else 19_320 * DEARER.get(kind, 1) * len(ids),
                **tell(done),
                **({"simulated_s": 1.8, "energy_j": 30.0, "energy_radio_j": 3.0} if devices else {}),
            }
        )
        trial.append_timing({"round": done, "seconds": 0.02})

from __future__ import annotations

import doctest
from typing import Any

import pytest

from rivage.report import exchanges
from rivage.report.exchanges import adversary, exchange, harm, notices

CLIP = {"kind": "clip", "norm": 2.5}


def test_examples_of_the_docstrings() -> None:
    assert doctest.testmod(exchanges).failed == 0


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({}, ""),
        ({"stages": None, "collector": None}, ""),
        ({"stages": [CLIP]}, "updates clipped to norm 2.5"),
        ({"collector": {"kind": "median"}}, "combined by coordinate-wise median"),
        ({"collector": {"kind": "trimmed_mean", "faulty": 2}}, "combined by trimmed mean (faulty 2)"),
        ({"collector": {"kind": "krum", "faulty": 1, "keep": 3}}, "combined by Krum (faulty 1, keep 3)"),
        (
            {"collector": {"kind": "secagg", "survivors": 5, "noise_multiplier": "off", "clip": "off"}},
            "combined by secure aggregation of at least 5 updates",
        ),
        (
            {"collector": {"kind": "secagg", "survivors": 5, "noise_multiplier": 0.5, "clip": 2.0}},
            "combined by secure aggregation of at least 5 updates, each clipped to norm 2, "
            "with noise of multiplier 0.5",
        ),
        ({"collector": {"kind": "norm_bounded", "norm": 5.0}}, "combined by mean of norm-bounded updates (norm 5)"),
        (
            {"collector": {"kind": "norm_bounded"}},
            "combined by mean of norm-bounded updates (norm: the median distance)",
        ),
        (
            {"stages": [{"kind": "top_k", "count": 50, "feedback": False}, {"kind": "bfloat16"}]},
            "updates sparsified to top-k 50 numbers without error feedback, rounded to bfloat16",
        ),
        (
            {"stages": [{"kind": "sketch", "rows": 3, "seed": None}], "collector": {"kind": "own"}},
            "updates passed through sketch (rows 3); combined by own",
        ),
    ],
)
def test_an_exchange_in_a_line(row: dict[str, Any], text: str) -> None:
    assert exchange(row) == text


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"kind": "sign_flip", "share": 0.07, "scale": 5.0},
            "About 7 % of the clients, drawn for each seed, flip the sign of their update, scale 5.",
        ),
        ({"kind": "nan", "share": 0.2, "clients": [3, 7]}, "Clients 3 and 7 send NaN instead of their update."),
        (
            {"kind": "huge", "clients": [1, 2, 3], "scale": 1e9},
            "Clients 1, 2 and 3 add normal noise of scale 1e+09 to their update.",
        ),
        ({"kind": "nan", "clients": ["site 3", 7]}, 'Clients "site 3" and 7 send NaN instead of their update.'),
        ({"kind": "nan", "clients": list(range(9))}, "9 clients send NaN instead of their update."),
        ({"kind": "nan", "share": 0.2, "clients": []}, "No client sends NaN instead of its update."),
        (
            {"kind": "own", "clients": [0], "share": 0.2, "depth": 2},
            "Client 0 corrupts its update as own does (depth 2).",
        ),
    ],
)
def test_an_adversary_in_a_sentence(settings: dict[str, Any], text: str) -> None:
    assert adversary(settings) == text


def test_the_record_of_every_built_in_kind_has_words_of_its_own() -> None:
    from rivage.core.settings import dump
    from rivage.federated.kinds import ADVERSARIES, COLLECTIONS, STAGES
    from rivage.studies.settings import parse_study

    stages = [f"{{ kind = {kind!r}{', share = 0.1' if kind == 'top_k' else ''} }}" for kind in STAGES]
    stages = [f"{{ kind = 'clip' }}, {stage}" if "noise" in stage else stage for stage in stages]
    collectors = [kind for kind in COLLECTIONS if kind != "mean"]
    methods = [f"stages = [{stage}]" for stage in stages] + [
        f"collector = {{ kind = {kind!r} }}" for kind in collectors
    ]
    tables = "\n".join(f"[[methods]]\nkind = 'fedavg'\nname = 'm{n}'\n{method}" for n, method in enumerate(methods))
    for kind in ADVERSARIES:
        text = f"name = 'x'\n[data]\nkind = 'digits'\n{tables}\n[adversary]\nkind = {kind!r}"
        text += "\n[run]\ncohort = 10\nsampling = 'epochs'"  # dp_ftrl asks for it
        study = parse_study(text)
        lines = [exchange(dump(method)) for method in study.methods]
        assert len(set(lines)) == len(stages) + len(collectors)
        assert all(line and "passed through" not in line and "_" not in line for line in lines)
        assert " as " not in adversary(dump(study)["adversary"])


def test_notices_name_the_method_the_count_and_the_most_frequent_reason() -> None:
    why = "3 updates where Krum with faulty = 1 needs 5"
    quiet = {"played": 20, "refused": 0, "refusals": {}, "forgotten": 0}
    summary = {
        "plain": quiet,
        "krum": {**quiet, "refused": 17, "refusals": {why: 17}},
        "both": {**quiet, "refused": 3, "refusals": {"a": 1, why: 2}, "forgotten": 4},
        "one": {**quiet, "refused": 1, "refusals": {why: 1}, "forgotten": 1},
        "older": {},
    }
    assert notices(summary) == [
        f"krum: 17 of 20 rounds were not aggregated: {why}",
        f"both: 3 of 20 rounds were not aggregated, most often: {why}",
        "both: 4 client memories were dropped because of run.remembered; those clients start anew",
        f"one: 1 of 20 rounds was not aggregated: {why}",
        "one: 1 client memory was dropped because of run.remembered; that client starts anew",
    ]


def test_a_run_has_one_adversary_or_none() -> None:
    assert harm({"a": {"adversary": None}, "b": {}}) == ""
    assert harm({"a": {"adversary": {"kind": "nan", "clients": [4]}}}) == "Client 4 sends NaN instead of its update."

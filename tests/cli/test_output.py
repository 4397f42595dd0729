from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from rich.console import Console

from rivage.cli.output import Options, certificate_rows, logs, number, show, table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (0.123456, "0.1235"),
        (271200.0, "271,200"),
        (1234.5, "1234"),
        (1e-9, "1e-09"),
        (-3, "-3"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_json_is_valid_where_numbers_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    show(
        Options(json=True),
        {"b": [float("inf"), np.float64(1.5), np.int64(2)], "a": np.float64("nan"), "c": "é"},
        "never shown",
    )
    out = capsys.readouterr().out
    assert json.loads(out) == {"b": [None, 1.5, 2], "a": None, "c": "é"}
    assert list(json.loads(out)) == ["b", "a", "c"], "in the order given"
    assert "é" in out


def test_tables_keep_text_as_it_is_and_empty_ones_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    show(Options(), {}, "line", table(("name", "n"), [("[bold]x[/bold]", "1")]), table(("gone",), []), then="end")
    out = capsys.readouterr().out
    assert "[bold]x[/bold]" in out
    assert "gone" not in out
    assert (out.splitlines()[0], out.splitlines()[-1]) == ("line", "end")


def test_quiet_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    show(Options(quiet=True), {}, "line", table(("a",), [("1",)]), then="end")
    assert capsys.readouterr().out == "line\n"


WHY = "3 updates where Krum with faulty = 1 needs 5"
KRUM = {
    "collector": {"kind": "krum", "faulty": 1},
    "adversary": {"kind": "nan", "clients": [2]},
    "played": 20,
    "refused": 17,
    "refusals": {WHY: 17},
}
NOTICE = f"[krum]: 17 of 20 rounds were not aggregated: {WHY}\n"


def test_exchanges_stand_under_the_first_table_and_notices_on_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables = table(("first",), [("1",)]), table(("second",), [("2",)])
    show(Options(), {"methods": {"local": {}, "[krum]": KRUM}}, "line", *tables, then="end")
    captured = capsys.readouterr()
    lines = [line.strip() for line in captured.out.splitlines()]
    places = [
        lines.index(line)
        for line in ("1", "[krum]: combined by Krum (faulty 1)", "adversary: Client 2 sends NaN instead of its update.")
    ]
    assert places == sorted(places)
    assert places[-1] < lines.index("second") < lines.index("end")
    assert captured.err == NOTICE


def test_json_is_alone_on_standard_output_and_quiet_tells_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    result = {"methods": {"[krum]": KRUM}}
    show(Options(json=True), result, "never shown")
    captured = capsys.readouterr()
    assert json.loads(captured.out) == result
    assert captured.err == NOTICE
    show(Options(quiet=True), result, "line", table(("a",), [("1",)]))
    assert capsys.readouterr() == ("line\n", "")
    show(Options(quiet=True, json=True), result, "line")
    assert capsys.readouterr().err == ""


def test_certificates_as_rows() -> None:
    certificate = {"verdict": "no_power", "claim": "c", "measured": None, "reference": 0.5}
    assert certificate_rows([certificate])[1] == ("no power", "c", "–", "0.5")


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (Options(), ["warning: w", "error: [e]"]),
        (Options(quiet=True), ["error: [e]"]),
        (Options(verbose=True), ["debug: d", "warning: w", "error: [e]"]),
    ],
)
def test_logs_by_option(options: Options, lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("rivage.test_output")
    with logs(options, Console(stderr=True)):
        logger.debug("d")
        logger.warning("w")
        logger.error("[e]")
    logger.debug("afterwards nobody listens")
    assert capsys.readouterr().err.splitlines() == lines

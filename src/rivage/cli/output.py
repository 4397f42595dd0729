"""What a command prints: one JSON object, or one line and a few short tables."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "DEFAULTS",
    "VIOLATION",
    "Options",
    "certificate_rows",
    "logs",
    "number",
    "show",
    "stderr",
    "table",
    "verdicts",
]

VIOLATION = 3
"""Exit code of a verb that found what does not hold."""

_PIPE_WIDTH = 120  # columns of a table that goes to a file or another program
_NAME_WIDTH = 32  # single words up to this length are never broken


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Options:
    """What every verb understands.

    Args:
        seed: Use this one seed, instead of the seeds of the study; advise counts on from it. Verbs that draw nothing
            ignore it.
        quiet: No progress and no tables.
        verbose: Also show what is going on, and where an error came from.
        json: Print one JSON object instead of text.
    """

    seed: int | None = None
    quiet: bool = False
    verbose: bool = False
    json: bool = False


DEFAULTS = Options()


def stderr() -> Console:
    """Where progress and logs go."""
    from rich.console import Console

    return Console(stderr=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[Sequence[str]]:
    """A header and its rows."""
    return [columns, *rows]


def show(
    options: Options, result: Mapping[str, Any], line: str, *tables: Sequence[Sequence[str]], then: str = ""
) -> None:
    """Print a result the way the user asked for.

    What a result with ``methods`` tells of their exchanges stands under the first table. Rounds that were not
    aggregated and memories that were dropped are told on standard error, also next to JSON.

    Args:
        options: ``json`` prints ``result`` and nothing else; ``quiet`` leaves out the tables and what is told.
        result: the whole answer; NaN and infinity become null.
        line: the answer in one line.
        tables: a header and rows each; columns of numbers are set flush right.
        then: a last line.
    """
    if options.json:
        # NumPy numbers, where there are any, know how to become plain ones.
        print(json.dumps(_finite(result), indent=2, ensure_ascii=False, default=lambda value: value.item()))
    else:
        print(line)
        if not options.quiet:
            _text(tables, _exchanges(result), then)
    if not options.quiet:
        _tell(result)


def _text(tables: Sequence[Sequence[Sequence[str]]], remarks: Iterable[str], then: str) -> None:
    """Tables, with remarks under the first, and a last line."""
    for rows in tables[:1]:
        _draw(rows)
    for remark in remarks:
        print(remark)
    for rows in tables[1:]:
        _draw(rows)
    if then:
        print(then)


def _exchanges(result: Mapping[str, Any]) -> list[str]:
    """One line per method that did more than average what clients sent, and one for the adversary."""
    from rivage.report.exchanges import exchanges, harm

    methods = result.get("methods", {})
    lines = [f"{method}: {text}" for method, text in exchanges(methods).items()]
    return [*lines, *([f"adversary: {text}"] if (text := harm(methods)) else [])]


def _tell(result: Mapping[str, Any]) -> None:
    from rivage.report.exchanges import notices

    for notice in notices(result.get("methods", {})):
        stderr().print(notice, markup=False, highlight=False, soft_wrap=True)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _draw(rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    header, *body = rows
    if not body:
        return
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
    drawing = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column, cells in enumerate(zip(*body, strict=True)):
        numeric = all(cell[:1].isdigit() or cell[:1] in "-–<" for cell in cells)
        name = all(len(cell) <= _NAME_WIDTH and " " not in cell for cell in cells)
        justify: Literal["left", "right"] = "right" if numeric else "left"
        drawing.add_column(header[column], justify=justify, overflow="fold", no_wrap=name)
    for row in body:
        drawing.add_row(*map(Text, row))
    console.print(drawing)


def number(value: float | None, digits: int = 4) -> str:
    """A number for a table, large counts in full; a dash when there is none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10**digits and value == round(value) else f"{value:.{digits}g}"


def certificate_rows(certificates: Iterable[Mapping[str, Any]]) -> list[Sequence[str]]:
    """One row per certificate: verdict, claim, measured, reference."""
    return table(
        ("verdict", "claim", "measured", "reference"),
        [
            (c["verdict"].replace("_", " "), c["claim"], number(c["measured"]), number(c["reference"]))
            for c in certificates
        ],
    )


def verdicts(certificates: Sequence[Mapping[str, Any]]) -> str:
    """``certificates: 5 hold, 3 no power, 0 fail``."""
    words = {"holds": "hold", "no_power": "no power", "fails": "fail"}
    verdicts = [certificate["verdict"] for certificate in certificates]
    return "certificates: " + ", ".join(f"{verdicts.count(verdict)} {word}" for verdict, word in words.items())


class _Lines(logging.Handler):
    """Log records as plain lines above the progress bar."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.levelname.lower()}: {record.getMessage()}"
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def logs(options: Options, console: Console) -> Iterator[None]:
    """Show the library's log on standard error: warnings; everything with ``--verbose``; errors with ``--quiet``."""
    level = logging.DEBUG if options.verbose else logging.ERROR if options.quiet else logging.WARNING
    logger, handler = logging.getLogger("rivage"), _Lines(console)
    before = logger.level, logger.propagate
    logger.setLevel(level)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]

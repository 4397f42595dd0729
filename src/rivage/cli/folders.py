"""Folders of runs: where they go, how they are opened, and the page that is drawn into them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rivage.cli.output import Options, stderr
from rivage.core.errors import ConfigError, StoreError, nearest

if TYPE_CHECKING:
    from rivage.core.records import RunRecord

__all__ = ["draw", "draw_if_possible", "named_settings", "open_run", "require_folder"]


@contextmanager
def named_settings(path: Path | None) -> Iterator[None]:
    """Put the file of a study in front of what is wrong with its settings once clients and model are known."""
    try:
        yield
    except ConfigError as error:
        if path is None or not re.search(r"^(  )?(\[|task\.)", str(error), re.MULTILINE):
            raise
        raise error.at(str(path)) from error


def require_folder(out: Path | None) -> None:
    """Refuse a folder of runs that cannot be one."""
    folder = out or Path("runs")
    file = next((place for place in (folder, *folder.parents) if place.exists() and not place.is_dir()), None)
    if file is not None:
        raise ConfigError(
            f'"{file}" is a file, so it cannot hold the folder of the run',
            where="--out" if out else "runs",
            mend="Give a folder with --out, or move the file away.",
        )


def open_run(folder: Path) -> RunRecord:
    """The record in a folder.

    Raises:
        StoreError: when there is none, with the nearest name.
    """
    from rivage.core.records import RunRecord

    if not folder.exists():
        beside = [path.parent.name for path in folder.parent.glob("*/settings.toml")] if folder.parent.is_dir() else []
        raise StoreError(
            "there is no such folder",
            where=str(folder),
            mend=nearest(folder.name, beside)
            or "Give a folder that `rivage run`, `train`, `play` or `place` has made.",
        )
    return RunRecord.open(folder)


def draw(records: Sequence[RunRecord], page: Path) -> None:
    """Write the page of one or several runs."""
    from rivage.report import write_report

    write_report(records, page)


def draw_if_possible(record: RunRecord, options: Options) -> None:
    """The report beside the record, where Matplotlib and Jinja are installed.

    Another process draws it: what was compiled to play cannot be unloaded, and Matplotlib would add 25 MB to that.
    """
    page = record.folder / "report.html"
    words = ["report", str(record.folder), "--out", str(page), "--quiet"]
    done = subprocess.run([sys.executable, "-P", "-m", "rivage.cli", *words], capture_output=True, text=True)
    if done.returncode == 0:
        record.write_summary({**record.summary, "report": str(page)})
    elif not options.quiet:
        why = done.stderr.strip().removeprefix("error: ")
        stderr().print(f"no report: {why}", markup=False, highlight=False, soft_wrap=True)
